"""Ends the reading of entries whose period is over: once a day, on record first, never under a legal hold.

Run by the ledger's own process beside the log. What it knows it has from the log's entries alone; a small file on the volume keeps
how far they were read, and may be lost (they are read again, in the background). Only reading ends: the entries stay in the
write-ahead log, whose segments nothing here touches, and tiles are served for ever. Which entries: `folkmoot_core.ledger.retention`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from folkmoot_core.document import AuditEntry
from folkmoot_core.entries import EntryRequest, Producer, Receipt, new_entry, rfc3339
from folkmoot_core.errors import Conflict, FolkmootError, Unavailable
from folkmoot_core.ledger import bundle, checkpoint, retention, tiles
from folkmoot_core.ledger.retention import DAY, State
from folkmoot_core.ledger.tiles import ENTRIES, WIDTH, Tile
from folkmoot_runtime.durable import Os, RealOs, replace_file
from folkmoot_runtime.ledger.interface import OWN, OWN_ACTOR

log = logging.getLogger(__name__)
EVERY: Final = 86_400.0  # seconds between looks
AGAIN: Final = 60.0  # seconds after one that failed
SAVE_EVERY: Final = 64 * WIDTH  # entries between two writings of the file while the log is read back


class Pruned(Protocol):
    """What is needed of a log: `Log`, or its twin."""

    minimum: int

    async def append(self, requests: list[EntryRequest], producer: Producer) -> list[Receipt]: ...

    async def read(self, path: str) -> bytes | None: ...


class Retention:
    """`terms` gives the tenant's audit settings, None while they are not known (nothing moves then); `clock` epoch seconds."""

    def __init__(
        self,
        ledger: Pruned,
        path: Path,
        terms: Callable[[], AuditEntry | None],
        clock: Callable[[], float],
        calls: Os | None = None,
    ) -> None:
        self._ledger = ledger
        self._path = path
        self._terms = terms
        self._clock = clock
        self._calls = calls or RealOs()
        self._bundle: tuple[str, list[bytes]] = ("", [])
        self.state = State()

    async def run(self) -> None:
        """Until cancelled. A look that fails is repeated; it never ends the log."""
        while True:
            try:
                await self.look()
                wait = EVERY
            except (FolkmootError, OSError) as error:
                log.warning("retention waits", extra={"error": str(error)})
                wait = AGAIN
            await asyncio.sleep(wait)

    async def look(self) -> int:
        """Read on from where it stopped, move the minimum index if it is time; the minimum index."""
        if self.state == State():
            self._load()
        published = await self._published()
        await self._follow(published)
        self._ledger.minimum = self.state.minimum
        audit = self._terms()
        if audit is None:
            return self.state.minimum
        now, days = self._clock(), retention.kept_days(audit)
        minimum = await self._search(published, now, days)
        if minimum > self.state.minimum:
            await self._prune(minimum, now - days * DAY, days)
        return self.state.minimum

    async def _prune(self, minimum: int, through: float, days: int) -> None:
        """On record, then in force. A crash in between is healed by reading the entry at the next start."""
        # A hold may have been published since. One that is recorded between this and the entry comes too late, by moments.
        await self._follow(await self._published())
        if self.state.holds:
            return
        data = {"first": minimum, "minimum": minimum, "through": rfc3339(through), "days": days, "before": self.state.minimum}
        entry = new_entry("retention.pruned", OWN_ACTOR, id=f"retention.pruned/{minimum}", data=data, now=self._clock())
        try:
            await self._ledger.append([entry], OWN)
        except Conflict as error:
            if error.reason != "LogClosed":
                raise
            log.info("a closed log is not pruned", extra={"minimum": self.state.minimum})
            return
        self.state = self.state._replace(minimum=minimum)
        self._ledger.minimum = minimum
        self._save()
        log.info("reading ended below", extra={"minimum": minimum, "days": days})

    async def _search(self, published: int, now: float, days: int) -> int:
        search = retention.minimum_index(self.state, published, now, days)
        try:
            position = next(search)
            while True:
                position = search.send(retention.recorded_time(await self._entry(position, published)))
        except StopIteration as found:
            return int(found.value)

    async def _follow(self, published: int) -> None:
        """Fold what was published since the last look."""
        since = self.state.scanned
        while self.state.scanned < published:
            self.state = retention.follow(self.state, await self._entry(self.state.scanned, published))
            if self.state.scanned - since >= SAVE_EVERY:
                since = self.state.scanned
                self._save()
                await asyncio.sleep(0)  # appends come first
        if self.state.scanned != since:
            self._save()

    async def _entry(self, position: int, published: int) -> bytes:
        index = position // WIDTH
        path = Tile(ENTRIES, index, min(WIDTH, published - index * WIDTH)).path()
        if self._bundle[0] != path:
            data = await self._ledger.read(path)
            if data is None:
                raise Unavailable(f"the log does not have {path} any more, which retention has not read yet")
            self._bundle = (path, bundle.decode(data))
        return self._bundle[1][position % WIDTH]

    async def _published(self) -> int:
        signed = await self._ledger.read(tiles.CHECKPOINT)
        if signed is None:
            return 0
        return checkpoint.parse(signed.decode(errors="replace").partition("\n\n")[0] + "\n").size

    def _load(self) -> None:
        try:
            kept = json.loads(self._path.read_bytes())
            state = State(int(kept["scanned"]), int(kept["minimum"]), frozenset(str(hold) for hold in kept["holds"]))
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            log.warning("what retention knew is not readable; the log is read again", extra={"path": str(self._path)})
            return
        if 0 <= state.minimum <= state.scanned:
            self.state = state

    def _save(self) -> None:
        kept = {"scanned": self.state.scanned, "minimum": self.state.minimum, "holds": sorted(self.state.holds)}
        replace_file(self._calls, self._path, json.dumps(kept).encode())
