"""One session's durable record in memory: its row, its state, its needs, and who waits for the next event.

Every change goes through `commit`: the change and its events are one transaction, and only what is on disk is folded into
the state and shown. Used by service, runner, tasks and the event stream; it decides nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from folkmoot_core.deliberation import Need
from folkmoot_core.document import SessionOrder, SessionReport, TenantDocument
from folkmoot_core.sessions import SessionEvent, SessionState, apply, fold, report
from folkmoot_runtime.conductor import rows
from folkmoot_runtime.conductor.rows import NeedRow, SessionRow, StoredAnswer
from folkmoot_runtime.conductor.store import Store

Draft = tuple[str, dict[str, Any]]
Change = Callable[[sqlite3.Connection], object]
Watcher = Callable[[str], None]
Clock = Callable[[], float]


class Journal:
    """`changed` is called with the uid after every commit. `clock` gives epoch seconds."""

    def __init__(  # noqa: PLR0913 - what a session is made of; `load` is how it is made
        self, store: Store, row: SessionRow, state: SessionState, needs: Mapping[str, NeedRow], clock: Clock, changed: Watcher
    ) -> None:
        self.row = row
        self.state = state
        self.needs = dict(needs)
        self.cancelled = asyncio.Event()
        self.over_budget = asyncio.Event()
        self.document: TenantDocument | None = None  # the one it was opened under
        self._store = store
        self._clock = clock
        self._changed = changed
        self._lock = asyncio.Lock()
        self._answers: dict[str, asyncio.Event] = {}
        if row.cancelled is not None:
            self.cancelled.set()
        self._check_budget()

    @classmethod
    async def load(cls, store: Store, row: SessionRow, clock: Clock, changed: Watcher) -> Journal:
        """Read everything back after a restart; also right after acceptance."""
        state = fold(await store.run(rows.get_events, row.order.uid))
        return cls(store, row, state, await store.run(rows.get_needs, row.order.uid), clock, changed)

    @property
    def uid(self) -> str:
        """The session's uid."""
        return self.row.order.uid

    @property
    def order(self) -> SessionOrder:
        """What was ordered."""
        return self.row.order

    def now_ms(self) -> int:
        """Epoch milliseconds."""
        return int(self._clock() * 1000)

    def report(self) -> SessionReport:
        """What the operator is told."""
        return report(self.state, self.row.order)

    def tokens_left(self) -> int:
        """What the budget still allows; 0 when it is used up."""
        return max(0, self.order.spec.budget.tokens - self.state.tokens)

    async def commit(self, *drafts: Draft, change: Change | None = None, need: str = "") -> bool:
        """Write `change` and the events together. A change that returns False undoes nothing and adds no event. `need` is
        the one that the change touches.

        Shielded: a cancelled caller leaves memory and disk in step.
        """
        return await asyncio.shield(asyncio.ensure_future(self._commit(drafts, change, need)))

    async def phase(self, phase: str, reason: str, message: str, change: Change | None = None, **more: Any) -> None:
        """Commit a change of phase."""
        await self.commit(("session.phase", {"phase": phase, "reason": reason, "message": message, **more}), change=change)

    async def update(self, *drafts: Draft, **columns: str | int | None) -> None:
        """Set columns of the session's row, with events."""
        await self.commit(*drafts, change=lambda db: rows.update_session(db, self.uid, **columns))

    async def ask(self, need: Need, deadline_ms: int, tokens: int = 0) -> NeedRow:
        """The stored need of this id, stored now if it is new. What was asked first is what counts."""
        if need.id not in self.needs:
            row = NeedRow(need, self.now_ms(), deadline_ms, tokens)
            await self.commit(change=lambda db: rows.insert_need(db, self.uid, row), need=need.id)
        return self.needs[need.id]

    async def sent(self, need_id: str, *drafts: Draft) -> None:
        """The task of this need is on the bus."""
        now = self.now_ms()
        await self.commit(*drafts, change=lambda db: rows.mark_sent(db, self.uid, need_id, now), need=need_id)

    async def answer(self, need_id: str, answer: StoredAnswer, *drafts: Draft) -> bool:
        """Store an answer with its events; False, and nothing else, when there is one already."""
        now = self.now_ms()
        return await self.commit(*drafts, change=lambda db: rows.put_answer(db, self.uid, need_id, answer, now), need=need_id)

    async def answered(self, need_id: str) -> None:
        """Wait until the need has an answer."""
        while not self.needs[need_id].answered:
            event = self._answers.setdefault(need_id, asyncio.Event())
            await event.wait()

    async def _commit(self, drafts: tuple[Draft, ...], change: Change | None, need: str) -> bool:
        async with self._lock:
            now = self.now_ms()

            def work(db: sqlite3.Connection) -> tuple[list[SessionEvent], SessionRow | None, NeedRow | None] | None:
                if change is not None and change(db) is False:
                    return None
                events = rows.append_events(db, self.uid, now, drafts)
                return events, rows.get_session(db, self.uid), rows.get_need(db, self.uid, need) if need else None

            written = await self._store.run(work)
            if written is None:
                return False
            events, row, stored = written
            self.row = row or self.row
            if stored is not None:
                self.needs[need] = stored
            for event in events:
                self.state = apply(self.state, event)
            self._wake()
            if events:
                self._changed(self.uid)
            return True

    def _wake(self) -> None:
        if self.row.cancelled is not None:
            self.cancelled.set()
        self._check_budget()
        for need_id, event in list(self._answers.items()):
            if self.needs[need_id].answered:
                event.set()
                del self._answers[need_id]

    def _check_budget(self) -> None:
        if self.state.tokens > self.order.spec.budget.tokens:
            self.over_budget.set()
