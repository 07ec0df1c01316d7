"""The tenant's bus: the only package that speaks Redis. `interface.py` is what agent and conductor see.

`valkey.py` and `memory.py` implement it; `router.py`, `door.py`, `__main__.py` are the trusted router; `server.py` launches
Valkey. Nothing is imported here, so that an agent loads no web server with its client.
"""
