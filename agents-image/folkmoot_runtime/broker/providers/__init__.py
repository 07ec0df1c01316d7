"""One file per wire format, behind `interface`; `registry` imports them on first use. Nothing else imports a vendor's SDK."""
