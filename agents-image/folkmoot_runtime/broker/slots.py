"""Calls in flight per provider: at most its `concurrency`, the others wait in order.

Not an `asyncio.Semaphore`, because the limit may change while calls are in flight.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class _Lane:
    limit: int
    held: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    def admit(self) -> None:
        """Give free places to those who have waited longest."""
        while self.waiting and self.held < self.limit:
            turn = self.waiting.popleft()
            if not turn.done():
                self.held += 1
                turn.set_result(None)


class Slots:
    """One lane per provider name."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    @asynccontextmanager
    async def hold(self, name: str, limit: int) -> AsyncIterator[None]:
        """Hold one of `limit` places; first come, first served."""
        lane = self._lanes.setdefault(name, _Lane(limit))
        lane.limit = limit
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane.waiting.append(turn)
        lane.admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the place was given just before we were cancelled
                self._free(lane)
            raise
        try:
            yield
        finally:
            self._free(lane)

    def in_flight(self, name: str) -> int:
        """Places held now."""
        return self._lanes[name].held if name in self._lanes else 0

    def _free(self, lane: _Lane) -> None:
        lane.held -= 1
        lane.admit()
