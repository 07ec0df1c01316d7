"""A timestamp authority (RFC 3161) of the installation's own, for clusters that reach no other. What it proves: docs/timestamps.md."""
