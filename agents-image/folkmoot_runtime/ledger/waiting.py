"""Entries between their arrival and their receipt: the bounded queue, who waits for what, and what is in flight by key."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from folkmoot_core.entries import Receipt
from folkmoot_core.errors import Conflict, FolkmootError
from folkmoot_core.ledger.envelope import Prepared
from folkmoot_runtime.ledger.interface import Overloaded

MAX_QUEUED = 8192  # entries waiting for their batch
MAX_QUEUED_BYTES = 16 << 20


@dataclass(slots=True, eq=False)
class Ticket:
    """One append call, waiting for its entries."""

    future: asyncio.Future[None]
    waiting: int = 0

    def entry_done(self) -> None:
        """One of its entries is durable."""
        self.waiting -= 1
        if self.waiting == 0 and not self.future.done():
            self.future.set_result(None)


@dataclass(slots=True, eq=False)
class Item:
    """One entry, queued, in flight or (with an index) durable."""

    prepared: Prepared
    index: int = -1
    leaf: bytes = b""
    tickets: list[Ticket] = field(default_factory=list)


@dataclass(frozen=True)
class Admission:
    """One append call's items; `duplicate[i]` when the i-th was there before."""

    items: tuple[Item, ...]
    duplicate: tuple[bool, ...]
    ticket: Ticket

    async def receipts(self) -> list[Receipt]:
        """Waits until all are durable; raises what their batch was refused with."""
        if self.ticket.waiting:
            await self.ticket.future
        return [Receipt(index=i.index, leaf=i.leaf.hex(), duplicate=d) for i, d in zip(self.items, self.duplicate, strict=True)]


Durable = Callable[[bytes], Item | None]
"""Finds an entry that is already in the log by its idempotency key."""


class Waiting:
    """The queue of one log. Owned by the loop's thread."""

    def __init__(self, limit: int = MAX_QUEUED) -> None:
        self._limit = limit
        self._queue: deque[Item] = deque()
        self._bytes = 0
        self._pending: dict[bytes, Item] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def resolve(self, prepared: Sequence[Prepared], durable: Durable) -> tuple[Admission, list[Item]]:
        """For each entry its item, and those that are new. Changes nothing. `Conflict`: an id with other content."""
        items: list[Item] = []
        fresh: dict[bytes, Item] = {}
        duplicate: list[bool] = []
        for one in prepared:
            item = fresh.get(one.key) or self._pending.get(one.key) or durable(one.key)
            duplicate.append(item is not None)
            if item is None:
                item = fresh[one.key] = Item(one)
            elif item.prepared.fact != one.fact:
                raise Conflict(f"entry {one.id}: its producer used this id for other content; an id names one fact for ever",
                               reason="IdReused")  # fmt: skip
            items.append(item)
        ticket = Ticket(asyncio.get_running_loop().create_future())
        return Admission(tuple(items), tuple(duplicate), ticket), list(fresh.values())

    def admit(self, admission: Admission, fresh: Sequence[Item]) -> None:
        """Queue what is new and have the ticket wait for all that is not durable; raises `Overloaded` beyond the bounds."""
        if fresh and (len(self._queue) + len(fresh) > self._limit or self._bytes > MAX_QUEUED_BYTES):
            raise Overloaded(f"{len(self._queue)} entries wait to be written; append again in a second", retry_after=1)
        for item in fresh:
            self.add(item)
        for item in admission.items:
            if item.index < 0:
                item.tickets.append(admission.ticket)
                admission.ticket.waiting += 1

    def add(self, item: Item) -> None:
        """Queue one."""
        self._queue.append(item)
        self._bytes += item.prepared.size
        self._pending[item.prepared.key] = item

    def take(self, count: int, room: int) -> list[Item]:
        """The next batch: all that waits, up to the caps. They stay known as pending until `durable` or `reject`."""
        batch: list[Item] = []
        while self._queue and len(batch) < count and self._queue[0].prepared.size + 2 <= room:
            item = self._queue.popleft()
            room -= item.prepared.size + 2
            self._bytes -= item.prepared.size
            batch.append(item)
        return batch

    def durable(self, batch: Iterable[Item], leaves: Iterable[bytes], first: int) -> None:
        """A batch was synced: give its receipts."""
        for index, (item, leaf) in enumerate(zip(batch, leaves, strict=True), first):
            item.index, item.leaf = index, leaf
            del self._pending[item.prepared.key]
            for ticket in item.tickets:
                ticket.entry_done()

    def reject(self, batch: Iterable[Item], error: FolkmootError) -> None:
        """A batch was not written: its producers may send it again."""
        for item in batch:
            del self._pending[item.prepared.key]
            for ticket in item.tickets:
                if not ticket.future.done():
                    ticket.future.set_exception(error)
                    ticket.future.exception()  # a caller that went away leaves no warning

    def reject_all(self, error: FolkmootError) -> None:
        """Everything queued."""
        queued = list(self._queue)
        self._queue.clear()
        self._bytes = 0
        self.reject(queued, error)
