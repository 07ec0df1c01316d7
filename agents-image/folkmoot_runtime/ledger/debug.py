"""The debug door: `POST /add` and the log's files over plain HTTP on loopback, for load tools that are not ours (Tessera's `hammer`).

There only with `FOLKMOOT_DEBUG_ADD=true`, which no plan sets, and refused inside a cluster: whoever reaches the port reads and writes
without being asked who it is. A log that was written to like this says so for ever: its entries are `log.degraded`. They hold the
leaf's digest, not the leaf; the digest makes the id, so that the same leaf again has the first one's index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from folkmoot_core.entries import EntryRequest, new_entry
from folkmoot_core.errors import Invalid
from folkmoot_runtime.ledger.interface import OWN_ACTOR

ADD = "FOLKMOOT_DEBUG_ADD"
PORT = "FOLKMOOT_DEBUG_PORT"
HOST = "127.0.0.1"
MAX_LEAF = 64 << 10  # bytes
_IN_CLUSTER = "KUBERNETES_SERVICE_HOST"  # every container of a pod has it


def port(env: Mapping[str, str]) -> int | None:
    """Where the door is asked for; None: nowhere. Raises `Invalid` for anything but a clear wish on a machine of one's own."""
    wanted = env.get(ADD, "")
    if not wanted:
        return None
    if wanted != "true":
        raise Invalid(f"environment variable {ADD} is {wanted!r}; expected true, or no such variable")
    if env.get(_IN_CLUSTER):
        raise Invalid(f"environment variable {ADD} is set in a cluster: this door asks nobody who they are. Remove it")
    given = env.get(PORT, "")
    if not given.isascii() or not given.isdigit() or not 0 < int(given) < 1 << 16:
        raise Invalid(f"environment variable {PORT} is {given!r}; {ADD} needs a port from 1 to 65535")
    return int(given)


def entry(leaf: bytes, now: float) -> EntryRequest:
    """What is recorded of a leaf."""
    digest = hashlib.sha256(leaf).hexdigest()
    return new_entry(
        "log.degraded",
        OWN_ACTOR,
        id=f"debug-add/{digest}",
        data={"reason": "DebugAdd", "sha256": digest, "size": len(leaf)},
        now=now,
    )
