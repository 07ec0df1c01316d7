"""What runs in a tenant's namespace: a package per process. Start one with `python -m folkmoot_runtime.<process>`."""
