"""What `bench/ledger` is made of: our side (`ours`, `process`), the peer's (`peer`), the stages and the table."""
