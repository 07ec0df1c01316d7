"""What the witness asks of a store, and the store without a disk for tests. `store.py` is the real one.

A store gives one thing: an atomic step on one log. The pure decision runs inside it, so that nobody reads what another is about
to replace (tlog-witness, add-checkpoint: checking and persisting must be performed atomically).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from folkmoot_core.errors import LimitReached
from folkmoot_core.ledger.witness import Known, origin_hash

T = TypeVar("T")
Step = Callable[[Known | None], tuple[Known | None, T]]
"""What is stored of a log in, what is to be stored (None: nothing changes) and the step's answer out. Must be pure."""

MAX_LOGS_PER_TENANT = 16  # a tenant has one; a restored or replaced one is another
MAX_LOGS = 100_000


class Store(Protocol):
    """Logs by origin."""

    async def step(self, origin: str, change: Step[T]) -> T:
        """Run `change` on what is stored of the log; its result is on disk when this returns. All or nothing."""

    async def enrol(self, tenant: str, origin: str, change: Step[T]) -> T:
        """The same for a log that this tenant brings, and remember whose it is; raises `LimitReached` for too many."""

    async def logs(self, tenant: str) -> list[Known]:
        """The logs that a tenant has brought, by origin."""

    async def find(self, digest: str) -> Known | None:
        """The log whose origin has this SHA-256 in hex."""

    async def close(self) -> None:
        """Let go of the disk."""


class MemoryStore:
    """`Store` in memory. One event loop's calls never interleave within a step."""

    def __init__(self, most: int = MAX_LOGS) -> None:
        self._known: dict[str, Known] = {}
        self._tenants: dict[tuple[str, str], None] = {}
        self._most = most

    async def step(self, origin: str, change: Step[T]) -> T:
        """See `Store.step`."""
        changed, answer = change(self._known.get(origin))
        if changed is not None:
            self._known[origin] = replace(changed)
        return answer

    async def enrol(self, tenant: str, origin: str, change: Step[T]) -> T:
        """See `Store.enrol`."""
        changed, answer = change(self._known.get(origin))
        if (tenant, origin) not in self._tenants:
            check_room(sum(whose == tenant for whose, _ in self._tenants), len(self._tenants), self._most)
            self._tenants[(tenant, origin)] = None
        if changed is not None:
            self._known[origin] = changed
        return answer

    async def logs(self, tenant: str) -> list[Known]:
        """See `Store.logs`."""
        return [self._known[origin] for whose, origin in sorted(self._tenants) if whose == tenant]

    async def find(self, digest: str) -> Known | None:
        """See `Store.find`."""
        return next((known for origin, known in self._known.items() if origin_hash(origin) == digest), None)

    async def close(self) -> None:
        """Nothing to let go of."""


def check_room(of_tenant: int, of_all: int, most: int) -> None:
    """Whether one more log may be brought."""
    if of_tenant >= MAX_LOGS_PER_TENANT:
        raise LimitReached(f"the tenant has brought {of_tenant} logs already; at most {MAX_LOGS_PER_TENANT} are witnessed")
    if of_all >= most:
        raise LimitReached(f"{of_all} logs are witnessed already; at most {most}")
