"""Entries between their arrival and their receipt: the bounded queue, who waits for what, and what is in flight by key.

Nothing here is made for each entry: a call's new entries are one `Lot`, and follow each other in the log. Owned by the loop's
thread.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from folkmoot_core.entries import Receipt
from folkmoot_core.errors import Conflict, FolkmootError, Overloaded
from folkmoot_core.ledger.envelope import Prepared

MAX_QUEUED = 8192  # entries waiting for their batch
MAX_QUEUED_BYTES = 16 << 20


class Lot:
    """The new entries of one call: queued, in flight or, with all their leaves, durable."""

    __slots__ = ("error", "first", "keys", "leaves", "prepared", "size", "taken", "waiters")

    def __init__(self, prepared: Sequence[Prepared], keys: list[bytes]) -> None:
        self.prepared = prepared
        self.keys = keys
        self.first = -1
        """Index of the first one, once that is durable."""
        self.leaves: list[bytes] = []
        self.error: FolkmootError | None = None
        """What their batch was refused with; then none of those without a leaf is written."""
        self.taken = 0  # entries that are in a batch
        self.size = 0  # bytes of those that are not
        self.waiters: list[Callable[[], None]] = []

    @property
    def settled(self) -> bool:
        """Durable or refused."""
        return len(self.leaves) == len(self.prepared) or self.error is not None


def lot_of(prepared: Sequence[Prepared]) -> Lot:
    """Entries that are known to be new."""
    return Lot(prepared, [one.key for one in prepared])


def durable_lot(prepared: Prepared, index: int, leaf: bytes) -> Lot:
    """One entry that is in the log already."""
    lot = lot_of([prepared])
    lot.first, lot.leaves = index, [leaf]
    return lot


class Admission:
    """One append call: its new entries, and for each of its entries where to find it, if some were there before."""

    __slots__ = ("_places", "fresh")

    def __init__(self, fresh: Lot, places: list[tuple[Lot, int, bool]] | None = None) -> None:
        self.fresh = fresh
        self._places = places

    def results(self) -> Iterator[tuple[int, bytes, bool]]:
        """Index, leaf hash and whether it was there before, for each entry; all are durable."""
        if self._places is None:
            return zip(itertools.count(self.fresh.first), self.fresh.leaves, itertools.repeat(False))
        return ((lot.first + place, lot.leaves[place], duplicate) for lot, place, duplicate in self._places)

    @property
    def error(self) -> FolkmootError | None:
        """What it was refused with, once it is settled."""
        if self._places is None:
            return self.fresh.error
        return next((lot.error for lot in self._lots() if lot.error is not None), None)

    def then(self, call: Callable[[], None]) -> bool:
        """Have it called, by the loop, once all are durable or some refused; False when that is so already."""
        if self._places is None:
            if not self.fresh.settled:
                self.fresh.waiters.append(call)
                return True
            return False
        waiting = [lot for lot in self._lots() if not lot.settled]
        left = len(waiting)

        def one_less() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                call()

        for lot in waiting:
            lot.waiters.append(one_less)
        return bool(waiting)

    async def durable(self) -> None:
        """Waits until all are durable; raises what their batch was refused with."""
        future = asyncio.get_running_loop().create_future()
        if self.then(lambda: None if future.done() else future.set_result(None)):
            await future
        if self.error is not None:
            raise self.error

    async def receipts(self) -> list[Receipt]:
        """The receipts, when all are durable."""
        await self.durable()
        return [Receipt(index=index, leaf=leaf.hex(), duplicate=duplicate) for index, leaf, duplicate in self.results()]

    def _lots(self) -> list[Lot]:
        return [*{id(lot): lot for lot, _, _ in self._places or ()}.values()]


class Batch:
    """Entries that are written together."""

    __slots__ = ("keys", "parts", "prepared", "size")

    def __init__(self) -> None:
        self.prepared: list[Prepared] = []
        self.keys: list[bytes] = []
        self.parts: list[tuple[Lot, int]] = []  # and how many of each
        self.size = 0
        """At most so many bytes, with their framing."""

    def __len__(self) -> int:
        return len(self.prepared)

    def add(self, lot: Lot, count: int, size: int) -> None:
        """The next `count` entries of a lot."""
        start, end = lot.taken, lot.taken + count
        self.prepared += lot.prepared[start:end]
        self.keys += lot.keys[start:end]
        self.parts.append((lot, count))
        self.size += size + 2 * count
        lot.taken, lot.size = end, lot.size - size


class Durable(Protocol):
    """What is already in the log."""

    def suspects(self, keys: Sequence[bytes]) -> list[int]:
        """Which of these idempotency keys may be there, by their place; all others certainly are not."""

    def find(self, key: bytes) -> Lot | None:
        """The entry with this key."""


class Waiting:
    """The queue of one log."""

    def __init__(self, limit: int = MAX_QUEUED) -> None:
        self._limit = limit
        self._queue: deque[Lot] = deque()
        self._count = 0
        self._bytes = 0
        self._pending: dict[bytes, Lot] = {}

    def __len__(self) -> int:
        """Entries that are in no batch yet."""
        return self._count

    def resolve(self, prepared: Sequence[Prepared], durable: Durable) -> Admission:
        """What is new of a call's entries, and where the others are. Changes nothing. `Conflict`: an id with other content."""
        keys = [one.key for one in prepared]
        known = {keys[place]: lot for place in durable.suspects(keys) if (lot := durable.find(keys[place])) is not None}
        if not known and self._pending.keys().isdisjoint(keys) and len(set(keys)) == len(keys):
            return Admission(Lot(prepared, keys))  # the usual case
        new: dict[bytes, Prepared] = {}
        for one in prepared:
            if one.key not in known and one.key not in self._pending:
                new.setdefault(one.key, one)
        fresh = Lot(list(new.values()), list(new))
        here: set[bytes] = set()
        places: list[tuple[Lot, int, bool]] = []
        for one in prepared:
            lot = known.get(one.key) or self._pending.get(one.key) or fresh
            place = lot.keys.index(one.key)
            if lot.prepared[place].fact != one.fact:
                raise Conflict(f"entry {one.id}: its producer used this id for other content; an id names one fact for ever",
                               reason="IdReused")  # fmt: skip
            places.append((lot, place, lot is not fresh or one.key in here))
            here.add(one.key)
        return Admission(fresh, places)

    def admit(self, lot: Lot) -> None:
        """Queue what is new; raises `Overloaded` beyond the bounds."""
        count = len(lot.prepared)
        if count and (self._count + count > self._limit or self._bytes > MAX_QUEUED_BYTES):
            raise Overloaded(f"{self._count} entries wait to be written; append again in a second", retry_after=1)
        self.add(lot)

    def add(self, lot: Lot) -> None:
        """Queue it whatever else waits."""
        if not lot.prepared:
            return
        lot.size = sum([one.size for one in lot.prepared])
        self._queue.append(lot)
        self._count += len(lot.prepared)
        self._bytes += lot.size
        self._pending.update(dict.fromkeys(lot.keys, lot))

    def take(self, count: int, room: int) -> Batch:
        """The next batch: all that waits, up to the caps. They stay known as pending until `durable` or `reject`."""
        batch = Batch()
        while self._queue and len(batch) < count:
            lot = self._queue[0]
            some, size = _fitting(lot, count - len(batch), room - batch.size)
            if not some:
                break
            batch.add(lot, some, size)
            self._count -= some
            self._bytes -= size
            if lot.taken == len(lot.prepared):
                self._queue.popleft()
        return batch

    def durable(self, batch: Batch, leaves: Sequence[bytes], first: int) -> None:
        """A batch was synced: give its receipts."""
        pending = self._pending
        for key in batch.keys:
            del pending[key]
        start = 0
        for lot, count in batch.parts:
            if lot.first < 0:
                lot.first = first + start
            lot.leaves += leaves[start : start + count]
            start += count
            if len(lot.leaves) == len(lot.prepared):
                _settle(lot)

    def reject(self, batch: Batch, error: FolkmootError) -> None:
        """A batch was not written: its producers may send it again. A lot that it had a part of does not go on either."""
        for lot, _ in batch.parts:
            if self._queue and self._queue[0] is lot:
                self._queue.popleft()
                self._count -= len(lot.prepared) - lot.taken
                self._bytes -= lot.size
            self._fail(lot, error)

    def reject_all(self, error: FolkmootError) -> None:
        """Everything queued."""
        queued = list(self._queue)
        self._queue.clear()
        self._count = self._bytes = 0
        for lot in queued:
            self._fail(lot, error)

    def _fail(self, lot: Lot, error: FolkmootError) -> None:
        if lot.error is None:
            lot.error = error
            for key in lot.keys[len(lot.leaves) :]:
                del self._pending[key]
            _settle(lot)


def _fitting(lot: Lot, count: int, room: int) -> tuple[int, int]:
    """How many of a lot's next entries fit, and their bytes."""
    left = len(lot.prepared) - lot.taken
    if left <= count and lot.size + 2 * left <= room:
        return left, lot.size
    some = size = 0
    for one in lot.prepared[lot.taken : lot.taken + count]:
        if size + one.size + 2 * (some + 1) > room:
            break
        some, size = some + 1, size + one.size
    return some, size


def _settle(lot: Lot) -> None:
    """By the loop, so that a fault of who waits is not the log's."""
    if lot.waiters:
        loop = asyncio.get_running_loop()
        for call in lot.waiters:
            loop.call_soon(call)
        lot.waiters = []
