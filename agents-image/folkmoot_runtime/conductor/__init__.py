"""The conductor: a tenant's durable state machine for sessions, and the doors through which it is given work and watched.

`python -m folkmoot_runtime.conductor` runs in the core pod. Road of a session: `doors/` → `service.py` (accept, order, cancel) →
`runner.py` (one session from opening to end) → `driver.py` (replays a pure deliberation, meets its needs) → `tasks.py` (bus),
`checks.py` (checks sandbox), `probing.py`, `notary.py` (ledger). Everything durable is in `store.py`/`rows.py`/`blobs.py`.
Nothing is imported here.
"""
