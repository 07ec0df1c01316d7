"""The audit ledger: the tenant's only log writer. `python -m folkmoot_runtime.ledger` starts it; others use `client`."""
