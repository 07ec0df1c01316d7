"""Group commit: everything that arrives while a sync is in flight is the next batch. ledger.md §5.1. Owned by the loop's thread.

Numbered here and at the steps. 1. A receipt is given only after the sync of its own batch. 2. While one batch is written and
synced (in the one writer's thread), the next may be made from what was sealed before it, and waits behind it; no third one. 3. A
batch behind one that was not written is not written either: `Wal.append` refuses it, and it is refused like the one before. 4. A
failed sync ends everything. 5. Columns are flushed and a segment is begun only while nothing else is under way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from folkmoot_core.entries import rfc3339
from folkmoot_core.errors import FolkmootError, Unavailable
from folkmoot_core.ledger.sequence import Sequence
from folkmoot_runtime.durable import FULL
from folkmoot_runtime.ledger.records import HEADER
from folkmoot_runtime.ledger.waiting import Batch, Lot, Waiting
from folkmoot_runtime.ledger.wal import Wal

DEPTH = 2  # batches under way
AHEAD = 512  # entries that are worth a batch of their own behind another; fewer wait, and become more


class Told(Protocol):
    """Who is told how batches ended."""

    def written(self) -> None:
        """One is durable, and has its receipts."""

    def full(self, refused: int) -> None:
        """The volume has no room; so many entries were refused."""

    def failed(self, why: str) -> None:
        """What is on the disk is unknown: the log cannot go on. Must call `Writer.stop`."""


@dataclass
class _UnderWay:
    batch: Batch
    first: int
    leaves: list[bytes]
    written: Future[None]


class Writer:
    """The queue of one log and its one consumer, `run`."""

    def __init__(  # noqa: PLR0913 - the parts of a log
        self, wal: Wal, sequence: Sequence, waiting: Waiting, told: Told, *, clock: Callable[[], float], limit: int
    ) -> None:
        self._wal = wal
        self._sequence = sequence
        self._waiting = waiting
        self._told = told
        self._clock = clock
        self._limit = limit
        self._thread = ThreadPoolExecutor(1, "ledger-write")
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._under_way: deque[_UnderWay] = deque()
        self._next: Batch | None = None  # taken, and must be alone
        self._stopped = self._closing = False

    def admit(self, lot: Lot) -> None:
        """Queue; raises `Overloaded`."""
        self._waiting.admit(lot)
        self._wake_for_new()

    def add(self, lot: Lot) -> None:
        """Queue an entry of the log's own, whatever else waits."""
        self._waiting.add(lot)
        self._wake_for_new()

    def _wake_for_new(self) -> None:
        if not self._under_way or self._worth_it():
            self._wake.set()

    def _worth_it(self) -> bool:
        return len(self._under_way) < DEPTH and len(self._waiting) >= min(AHEAD, self._limit)

    async def run(self) -> None:
        """Until closed and empty, or stopped."""
        while True:
            while self._under_way and self._under_way[0].written.done():
                self._finish(self._under_way.popleft())
            if self._stopped or (self._closing and self._idle()):
                return
            if not self._begin():
                await self._wake.wait()
                self._wake.clear()

    def _idle(self) -> bool:
        return not self._under_way and self._next is None and not len(self._waiting)

    def close(self) -> None:
        """Have `run` end when everything is written."""
        self._closing = True
        self._wake.set()

    def stop(self, error: FolkmootError) -> None:
        """Refuse everything that has no receipt; nothing more is written."""
        self._stopped = True
        self._refuse_under_way(error)
        self._waiting.reject_all(error)
        self._wake.set()

    def shutdown(self) -> None:
        """Wait for the thread."""
        self._thread.shutdown()

    def _begin(self) -> bool:
        """Hand the next batch to the writer's thread, if it is its turn."""
        alone = not self._under_way
        if self._next is None and (alone or self._worth_it()):
            self._next = self._waiting.take(self._limit, self._wal.max_payload) if len(self._waiting) else None
        batch = self._next
        if batch is None or not (alone or self._follows(batch)):
            return False
        self._next = None
        first = self._sequence.sealed
        entries, leaves = self._sequence.seal(batch.prepared, rfc3339(self._clock()))
        written = self._thread.submit(self._wal.append, entries, leaves, None if alone else first)
        self._under_way.append(_UnderWay(batch, first, leaves, written))
        written.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._wake.set))
        return True

    def _follows(self, batch: Batch) -> bool:
        """5. Whether all that is under way and this one need neither flush nor segment."""
        needed = sum(one.batch.size + HEADER.size for one in self._under_way) + batch.size + HEADER.size
        return len(self._under_way) < DEPTH and self._wal.fits(needed)  # 2

    def _finish(self, one: _UnderWay) -> None:
        try:
            one.written.result()
        except OSError as error:
            if error.errno in FULL:
                self._refuse(one)
            else:
                self._fail(f"writing the log failed: {error.strerror}", one)
        except FolkmootError as error:  # SyncFailed, Superseded
            self._fail(error.message, one)
        else:
            self._sequence.commit(one.batch.keys, one.leaves)
            self._waiting.durable(one.batch, one.leaves, one.first)  # 1
            self._told.written()

    def _refuse(self, one: _UnderWay) -> None:
        """The volume is full: nothing of the batch was recorded, and it may be sent again."""
        self._under_way.appendleft(one)
        full = Unavailable("the ledger's volume is full; enlarge it", reason="VolumeFull", retry_after=5)
        self._told.full(self._refuse_under_way(full))  # 3
        self._sequence.drop()

    def _fail(self, why: str, one: _UnderWay) -> None:
        self._under_way.appendleft(one)
        self._told.failed(why)  # 4

    def _refuse_under_way(self, error: FolkmootError) -> int:
        """How many entries those were; with the batch that waits for its turn, which may hold the rest of their calls."""
        refused = [one.batch for one in self._under_way] + ([self._next] if self._next is not None else [])
        self._under_way.clear()
        self._next = None
        for batch in refused:
            self._waiting.reject(batch, error)
        return sum(map(len, refused))
