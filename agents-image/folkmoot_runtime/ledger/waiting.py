"""Entries between their arrival and their receipt: the bounded queue, who waits for what, and what is in flight by key."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from folkmoot_core.entries import Receipt
from folkmoot_core.errors import Conflict, FolkmootError, Overloaded
from folkmoot_core.ledger.envelope import Prepared

MAX_QUEUED = 8192  # entries waiting for their batch
MAX_QUEUED_BYTES = 16 << 20


class Ticket:
    """One append call, waiting for its entries."""

    __slots__ = ("future", "waiting")

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future
        self.waiting = 0

    def entry_done(self) -> None:
        """One of its entries is durable."""
        self.waiting -= 1
        if self.waiting == 0 and not self.future.done():
            self.future.set_result(None)


class Item:
    """One entry, queued, in flight or (with an index) durable. Made for each entry, so it is small."""

    __slots__ = ("index", "leaf", "others", "prepared", "ticket")

    def __init__(self, prepared: Prepared, index: int = -1, leaf: bytes = b"") -> None:
        self.prepared = prepared
        self.index = index
        self.leaf = leaf
        self.ticket: Ticket | None = None
        self.others: list[Ticket] | None = None  # further calls that sent the same

    def waits(self, ticket: Ticket) -> None:
        """A call waits for it."""
        ticket.waiting += 1
        if self.ticket is None:
            self.ticket = ticket
        elif self.others is None:
            self.others = [ticket]
        else:
            self.others.append(ticket)

    def tickets(self) -> list[Ticket]:
        """Who waits."""
        return ([self.ticket] if self.ticket is not None else []) + (self.others or [])


class Admission:
    """One append call's items; `duplicate[i]` when the i-th was there before."""

    __slots__ = ("duplicate", "items", "ticket")

    def __init__(self, items: Sequence[Item], duplicate: Sequence[bool], ticket: Ticket) -> None:
        self.items = items
        self.duplicate = duplicate
        self.ticket = ticket

    async def durable(self) -> None:
        """Waits until all are durable; raises what their batch was refused with."""
        if self.ticket.waiting:
            await self.ticket.future

    async def receipts(self) -> list[Receipt]:
        """The receipts, when all are durable."""
        await self.durable()
        return [Receipt(index=i.index, leaf=i.leaf.hex(), duplicate=d) for i, d in zip(self.items, self.duplicate, strict=True)]


class Durable(Protocol):
    """What is already in the log."""

    def suspects(self, keys: Sequence[bytes]) -> list[int]:
        """Which of these idempotency keys may be there, by their place; all others certainly are not."""

    def find(self, key: bytes) -> Item | None:
        """The entry with this key."""


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
        keys = [one.key for one in prepared]
        suspects = durable.suspects(keys)
        if not suspects and self._pending.keys().isdisjoint(keys) and len(set(keys)) == len(keys):
            new = [Item(one) for one in prepared]  # the usual case
            return Admission(new, [False] * len(new), Ticket(asyncio.get_running_loop().create_future())), new
        known = {keys[place]: item for place in suspects if (item := durable.find(keys[place])) is not None}
        items: list[Item] = []
        fresh: dict[bytes, Item] = {}
        duplicate: list[bool] = []
        for one in prepared:
            item = fresh.get(one.key) or self._pending.get(one.key) or known.get(one.key)
            duplicate.append(item is not None)
            if item is None:
                item = fresh[one.key] = Item(one)
            elif item.prepared.fact != one.fact:
                raise Conflict(f"entry {one.id}: its producer used this id for other content; an id names one fact for ever",
                               reason="IdReused")  # fmt: skip
            items.append(item)
        ticket = Ticket(asyncio.get_running_loop().create_future())
        return Admission(items, duplicate, ticket), list(fresh.values())

    def admit(self, admission: Admission, fresh: Sequence[Item]) -> None:
        """Queue what is new and have the ticket wait for all that is not durable; raises `Overloaded` beyond the bounds."""
        if fresh and (len(self._queue) + len(fresh) > self._limit or self._bytes > MAX_QUEUED_BYTES):
            raise Overloaded(f"{len(self._queue)} entries wait to be written; append again in a second", retry_after=1)
        for item in fresh:
            self.add(item)
        ticket = admission.ticket
        for item in admission.items:
            if item.index < 0:
                item.waits(ticket)

    def add(self, item: Item) -> None:
        """Queue one."""
        prepared = item.prepared
        self._queue.append(item)
        self._bytes += prepared.size
        self._pending[prepared.key] = item

    def take(self, count: int, room: int) -> list[Item]:
        """The next batch: all that waits, up to the caps. They stay known as pending until `durable` or `reject`."""
        batch: list[Item] = []
        queue, left = self._queue, room
        while queue and len(batch) < count and (size := queue[0].prepared.size) + 2 <= left:
            left -= size + 2
            batch.append(queue.popleft())
        self._bytes -= room - left - 2 * len(batch)
        return batch

    def durable(self, batch: Iterable[Item], leaves: Iterable[bytes], first: int) -> None:
        """A batch was synced: give its receipts."""
        pending = self._pending
        for index, (item, leaf) in enumerate(zip(batch, leaves, strict=True), first):
            item.index, item.leaf = index, leaf
            del pending[item.prepared.key]
            if item.ticket is not None:
                item.ticket.entry_done()
            if item.others is not None:
                for ticket in item.others:
                    ticket.entry_done()

    def reject(self, batch: Iterable[Item], error: FolkmootError) -> None:
        """A batch was not written: its producers may send it again."""
        for item in batch:
            del self._pending[item.prepared.key]
            for ticket in item.tickets():
                if not ticket.future.done():
                    ticket.future.set_exception(error)
                    ticket.future.exception()  # a caller that went away leaves no warning

    def reject_all(self, error: FolkmootError) -> None:
        """Everything queued."""
        queued = list(self._queue)
        self._queue.clear()
        self._bytes = 0
        self.reject(queued, error)
