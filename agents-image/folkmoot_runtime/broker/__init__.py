"""The broker: the only door out of a tenant. Holds the provider keys; checks, journals, records and forwards model calls.

`python -m folkmoot_runtime.broker`. It never interprets content, holds no ledger key, and imports a vendor's SDK only when
that vendor is called for the first time.
"""
