"""Who is at the other end of the Unix socket: the kernel says so, and nothing the peer sends can change it.

In the pod the core's containers run under distinct uids, so one socket tells them apart. In `folkmoot dev` all processes
share one uid: each producer then has a socket of its own, in a directory that only this user enters.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from starlette.requests import Request

from folkmoot_core import names
from folkmoot_core.entries import Producer
from folkmoot_core.errors import Invalid, Unauthorized
from folkmoot_runtime.ledger.protocol import PEER

CONDUCTOR: Final = "core/conductor"
ROUTER: Final = "core/router"
POD: Final[Mapping[int, str]] = {names.UID_CONDUCTOR: CONDUCTOR, names.UID_ROUTER: ROUTER}
MAX_SOCKET_PATH = 107  # sun_path less its NUL


@dataclass(frozen=True)
class Socket:
    """One listening socket and whom its peers' uids stand for."""

    path: Path
    producers: Mapping[int, str]

    def producer(self, request: Request) -> Producer:
        """Who appends; raises `Unauthorized` for any other uid."""
        client = request.client
        return self.of(client.port if client is not None and client.host == PEER else None)

    def of(self, uid: int | None) -> Producer:
        """Who has this uid; raises `Unauthorized` for any other."""
        known = self.producers.get(uid) if uid is not None else None
        if known is None:
            raise Unauthorized("this socket is for the core's conductor and router, known by their uid")
        return _producer(known)


@cache
def _producer(known: str) -> Producer:
    return Producer(id=known)


def sockets(env: Mapping[str, str]) -> list[Socket]:
    """The sockets that the environment asks for; raises `Invalid` naming the variable."""
    several = env.get("FOLKMOOT_LEDGER_SOCKETS", "")
    if not several:
        found = [Socket(Path(env.get("FOLKMOOT_LEDGER_SOCKET", names.LEDGER_SOCKET)), POD)]
    else:
        found = [_one(part) for part in several.split(",")]
    for one in found:
        if len(os.fsencode(one.path)) > MAX_SOCKET_PATH:
            raise Invalid(f"Unix socket path {one.path} is longer than {MAX_SOCKET_PATH} bytes; use a shorter directory")
    return found


def _one(part: str) -> Socket:
    path, _, producer = part.strip().rpartition("=")
    if not path or producer not in (CONDUCTOR, ROUTER):
        raise Invalid(f"FOLKMOOT_LEDGER_SOCKETS has {part!r}; expected <path>={CONDUCTOR} or <path>={ROUTER}")
    return Socket(Path(path), {os.getuid(): producer})
