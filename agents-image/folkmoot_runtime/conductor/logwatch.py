"""How the tenant's log stands, asked of the ledger every few seconds, for the reports to the operator; and the freeze that it asks for.

The operator remembers the log outside this pod. When what the log shows contradicts that memory, its answer to a report says so,
and the log is frozen here: again and again until the ledger says that it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from folkmoot_core.document import LogReport
from folkmoot_core.errors import FolkmootError

log = logging.getLogger(__name__)
LOOK_SECONDS: Final = 5.0
MOVE_SECONDS: Final = 30.0  # numbers that only grew are told this often; anything else at once
FORK: Final = "ForkDetected"
_MOVING: Final = {"size", "root", "entries", "anchored", "anchored_size", "asked"}


class Watched(Protocol):
    """The ledger, as far as the conductor watches over it: LedgerClient, or a twin."""

    async def status(self) -> LogReport: ...

    async def freeze(self, reason: str, message: str) -> LogReport: ...


class LogWatch:
    """Run `run` until cancelled. `clock` gives epoch seconds."""

    def __init__(self, ledger: Watched, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._told: LogReport | None = None
        self._fork = ""
        self._wake = asyncio.Event()
        self._listener: Callable[[], None] = lambda: None
        self.current: LogReport | None = None
        """As it stood last; None while the ledger is away."""

    def on_news(self, listener: Callable[[], None]) -> None:
        """Call `listener` when there is something to report."""
        self._listener = listener

    def forked(self, why: str) -> None:
        """Somebody who remembers this log knows another history of it: freeze it."""
        self._fork = why
        self._wake.set()

    async def run(self) -> None:
        """Look, tell, wait, for ever."""
        while True:
            await self._look()
            try:
                await asyncio.wait_for(self._wake.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue
            self._wake.clear()

    async def _look(self) -> None:
        try:
            asked = int(self._clock())
            found = await self._ledger.status()
            if self._fork and found.state != "Frozen":
                log.critical("the log is frozen: the operator remembers another history of it", extra={"detail": self._fork})
                found = await self._ledger.freeze(FORK, self._fork[:1000])
            if found.state == "Frozen":
                self._fork = ""
        except FolkmootError as error:
            if self.current is not None:
                log.warning("the ledger does not say how its log stands", extra={"error": error.message})
            self.current = None
            return
        self.current = found.model_copy(update={"asked": asked})
        if news(self._told, self.current):
            self._told = self.current
            self._listener()


def news(told: LogReport | None, found: LogReport) -> bool:
    """Whether the operator should hear of it now. Pure."""
    if told is None or told.model_dump(exclude=_MOVING) != found.model_dump(exclude=_MOVING):
        return True
    moved = told.model_dump(include=_MOVING - {"asked"}) != found.model_dump(include=_MOVING - {"asked"})
    return moved and found.asked - told.asked >= MOVE_SECONDS
