"""All sessions of the tenant: accepted, given their turn, cancelled, found again after a restart. And the tenant document.

The doors call it; it starts one runner per session that has not ended. At most `limit` are open at once; the others wait in
the order of acceptance, Critical ones first. What keeps a session waiting is said in its report and looked at again whenever
a document arrives or a session ends.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import sqlite3
import uuid
from collections.abc import Callable
from typing import Final

from folkmoot_core.document import SessionOrder, SessionReport
from folkmoot_core.errors import Conflict, Invalid, Missing, Unavailable
from folkmoot_core.ledger import retention
from folkmoot_core.resources.common import seconds
from folkmoot_core.sessions import SessionState, Waiting, fold, holds_back, report, waits_for
from folkmoot_runtime.conductor import rows
from folkmoot_runtime.conductor.documents import Documents
from folkmoot_runtime.conductor.feed import Feed
from folkmoot_runtime.conductor.inputs import store_inputs
from folkmoot_runtime.conductor.journal import Draft, Journal
from folkmoot_runtime.conductor.rows import SessionRow
from folkmoot_runtime.conductor.runner import Opening, Parts, Runner
from folkmoot_runtime.conductor.sealed_rows import assign_subject

log = logging.getLogger(__name__)
SEAL_PATIENCE: Final = 15.0  # and that sealing waits for all of them
CANCEL_PATIENCE: Final = 2.0  # seconds that a cancel waits for the end before it answers with what there is
LISTED: Final = 500  # sessions in a list
UPLOAD_SECONDS: Final = 24 * 3600  # how long an artefact may lie about that no session refers to
FIRST_RETRY: Final = 5.0  # seconds before a broken runner is started again; doubles
LONGEST_RETRY: Final = 300.0
HOUSEKEEPING: Final = 3600.0
_UID = re.compile(r"[A-Za-z0-9-]{8,64}")
_OWNER_SPACE = uuid.UUID("6a0f3f2e-93c1-5c1d-9d0e-5f0c9a4b7a10")  # for uids of sessions without a Kubernetes object


class Sessions:
    """`journals` (shared with Tasks) are the sessions that have not ended. `clock` gives epoch seconds."""

    def __init__(  # noqa: PLR0913 - its collaborators, made by the assembly alone
        self,
        parts: Parts,
        documents: Documents,
        journals: dict[str, Journal],
        feed: Feed,
        clock: Callable[[], float],
        limit: int = 8,
    ) -> None:
        self._parts = parts
        self._documents = documents
        self._journals = journals
        self._feed = feed
        self._clock = clock
        self._limit = limit
        self._runners: dict[str, asyncio.Task[None]] = {}
        self._turns: dict[str, asyncio.Future[Opening]] = {}
        self._look = asyncio.Event()
        self._accepting = asyncio.Lock()
        self._sealed = False
        self._running = False

    async def load(self) -> None:
        """Read back what has not ended; nothing works on it before `run`."""
        store = self._parts.store
        self._sealed = await store.run(rows.get_meta, "sealed") is not None
        for row in await store.run(rows.unfinished_sessions):
            self._journals[row.order.uid] = await self._load(row)

    async def run(self) -> None:
        """Resume, then give turns until cancelled. Cancelling it stops the work without ending any session."""
        self._running = True
        for journal in self._journals.values():
            self._launch(journal)
        self._documents.on_change(self._look.set)
        try:
            while True:
                self._look.clear()
                await self._give_turns()
                await self._look.wait()
        finally:
            self._running = False
            tasks = list(self._runners.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def tidy_forever(self) -> None:
        """Every hour, forget what is past its time."""
        while True:
            await asyncio.sleep(HOUSEKEEPING)
            await self.tidy()

    async def tidy(self) -> None:
        """Forget sessions that ended before the tenant's retention period, and artefacts that no session refers to. Legal holds
        keep what they are on. Without a document nobody knows the period, and everything stays."""
        now, document = self._clock(), self._documents.current
        if document is None:
            return
        before = now - retention.kept_seconds(document.audit)
        forgotten = await self._parts.store.run(rows.forget_sessions, int(before * 1000))
        swept = await self._parts.artefacts.sweep(now - UPLOAD_SECONDS)
        log.info("tidied", extra={"sessions": forgotten, "artefacts": swept})

    async def accept(self, order: SessionOrder, origin: str = "operator") -> SessionReport:
        """Take an order; the same uid again changes nothing. Raises `Invalid` for inputs that cannot be used."""
        if not _UID.fullmatch(order.uid):
            raise Invalid(f"session uid {order.uid[:80]!r}: expected 8 to 64 of A-Z, a-z, 0-9 and '-'")
        async with self._accepting:
            row = await self._parts.store.run(rows.get_session, order.uid)
            if row is not None:
                return await self._accept_again(order, row)
            if self._sealed:
                raise Conflict("the tenant's log is sealed: no session is accepted any more", reason="Sealed")
            return await self._accept_new(order, origin)

    async def accept_from_owner(self, order: SessionOrder) -> SessionReport:
        """A session without Kubernetes object. Its uid is derived, so that it can never be that of an object."""
        return await self.accept(order.model_copy(update={"uid": str(uuid.uuid5(_OWNER_SPACE, order.uid))}), "owner")

    async def cancel(self, uid: str, why: str = "Cancelled") -> SessionReport:
        """Stop a session; answers once it has ended, or after two seconds with what there is."""
        journal = self._journals.get(uid)
        if journal is None:
            return await self.report(uid)
        if journal.row.cancelled is None and journal.row.ending is None:
            await journal.update(("session.cancelling", {"reason": why}), cancelled=why)
        runner = self._runners.get(uid)
        if runner is not None:
            await asyncio.wait({runner}, timeout=CANCEL_PATIENCE)
        return journal.report()

    async def seal(self) -> int:
        """Accept nothing more, end what runs as Cancelled, close the log; its final size. Repeatable until it succeeds."""
        self._sealed = True
        await self._parts.store.run(rows.set_meta, "sealed", "1")
        await asyncio.gather(*(self.cancel(uid, "Sealed") for uid in list(self._journals)))
        if self._runners:
            await asyncio.wait(set(self._runners.values()), timeout=SEAL_PATIENCE)
        if self._journals:
            raise Unavailable(f"{len(self._journals)} sessions have not ended yet; ask again", retry_after=2)
        return await self._parts.notary.ledger.close_log()

    async def report(self, name: str) -> SessionReport:
        """By name (the newest of it) or uid; raises `Missing`."""
        row = await self.find(name)
        return self._journals[row.order.uid].report() if row.order.uid in self._journals else await self._report_of(row)

    async def find(self, name: str) -> SessionRow:
        """The stored row; raises `Missing`."""
        row = await self._parts.store.run(rows.find_session, name)
        if row is None:
            raise Missing(f"session {name[:253]!r} is not known to the conductor")
        return row

    async def all_reports(self) -> list[SessionReport]:
        """The newest sessions, newest first."""
        found = await self._parts.store.run(rows.recent_sessions, LISTED)
        return [
            self._journals[r.order.uid].report() if r.order.uid in self._journals else await self._report_of(r) for r in found
        ]

    def open_reports(self) -> list[SessionReport]:
        """The operator's sessions that have not ended."""
        return [j.report() for j in self._journals.values() if j.row.origin == "operator"]

    def at_work(self, uid: str) -> Journal:
        """The journal of a session that is open; raises `Missing` when there is none or it has ended."""
        journal = self._journals.get(uid)
        if journal is None or journal.row.ending is not None:
            raise Missing(f"session {uid[:64]!r} is not at work here")
        return journal

    async def hold(self, journal: Journal, agent: str) -> None:
        """Wait while the tenant, the target or this agent is suspended."""
        while (document := self._documents.current) is not None and (why := holds_back(document, journal.order, agent)):
            if journal.state.message != why.message:
                await journal.phase("Running", why.reason, why.message)
            await self._documents.next_change()
        if journal.state.reason == "Suspended":
            await journal.phase("Running", "Resumed", "the session goes on")

    # -- acceptance -------------------------------------------------------------------------------------------------
    async def _accept_new(self, order: SessionOrder, origin: str) -> SessionReport:
        spec, fresh, asked = order.spec, secrets.token_hex(16), int(self._clock() * 1000)
        continues = spec.continues.name if spec.continues else None
        await self._parts.store.run(assign_subject, order.uid, spec.subject, continues, fresh, asked)
        inputs = await store_inputs(order, self._parts.artefacts)
        now = int(self._clock() * 1000)
        deadline = now + seconds(order.spec.budget.wall_clock) * 1000
        drafts: list[Draft] = [
            ("session.accepted", {"name": order.name, "generation": order.generation}),
            ("session.phase", {"phase": "Pending", "reason": "Accepted", "message": "accepted; waits for its turn"}),
        ]

        def store(db: sqlite3.Connection) -> SessionRow | None:
            if rows.insert_session(db, order, inputs, origin, now, deadline):
                rows.append_events(db, order.uid, now, drafts)
            return rows.get_session(db, order.uid)

        row = await self._parts.store.run(store)
        assert row is not None  # noqa: S101 - inserted just now
        journal = await self._load(row)
        self._journals[order.uid] = journal
        if self._running:
            self._launch(journal)
        self._feed.changed(order.uid)
        return journal.report()

    async def _accept_again(self, order: SessionOrder, row: SessionRow) -> SessionReport:
        journal = self._journals.get(order.uid)
        if journal is None or journal.row.ending is not None:
            ended = journal.report() if journal is not None else await self._report_of(row)
            return ended.model_copy(update={"generation": max(order.generation, ended.generation)})
        if order.generation > journal.state.generation:
            # An open session keeps what it was opened with; one that still waits takes the new order (its inputs came first).
            columns = {"body": rows.order_json(order)} if journal.row.document is None else {}
            draft = ("session.order", {"generation": order.generation})
            await (journal.update(draft, **columns) if columns else journal.commit(draft))
            self._look.set()
        return journal.report()

    # -- turns --------------------------------------------------------------------------------------------------------
    def _launch(self, journal: Journal) -> None:
        uid = journal.uid
        turn: asyncio.Future[Opening] = asyncio.get_running_loop().create_future()
        self._turns[uid] = turn

        async def wait() -> Opening:
            return await turn

        self._runners[uid] = asyncio.create_task(self._run(journal, Runner(self._parts, journal, wait)), name=f"session {uid}")
        self._look.set()

    async def _run(self, journal: Journal, runner: Runner) -> None:
        """The edge of one session. What ends its runner otherwise than by its end (a full disk, a closed log) is recorded and
        tried again: every step of a runner looks at what is stored first."""
        wait = FIRST_RETRY
        try:
            while True:
                try:
                    await runner.run()
                    break
                except Exception:
                    log.exception("session cannot go on; it is tried again", extra={"session": journal.uid, "seconds": wait})
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_RETRY)
        finally:
            self._runners.pop(journal.uid, None)
            self._turns.pop(journal.uid, None)
            self._look.set()
        self._journals.pop(journal.uid, None)
        log.info("session ended", extra={"session": journal.uid, "phase": journal.state.phase, "reason": journal.state.reason})

    async def _give_turns(self) -> None:
        waiting = [
            j for uid, j in self._journals.items() if j.row.document is None and j.row.ending is None and uid in self._turns
        ]
        waiting = [j for j in waiting if not self._turns[j.uid].done() and not j.cancelled.is_set()]
        waiting.sort(key=lambda j: (j.order.spec.priority != "Critical", j.row.number))
        free = self._limit - (len(self._runners) - len(waiting))
        for journal in waiting:
            why, opening = await self._may_open(journal, free)
            turn = self._turns.get(journal.uid)
            if opening is not None and turn is not None and not turn.done():
                free -= 1
                turn.set_result(opening)
            elif why is not None and (journal.state.reason, journal.state.message) != why and not journal.row.ending:
                await journal.phase("Pending", why.reason, why.message)

    async def _may_open(self, journal: Journal, free: int) -> tuple[Waiting | None, Opening | None]:
        document, continues = self._documents.current, journal.order.spec.continues
        previous = await self._parts.store.run(rows.find_session, continues.name) if continues else None
        if previous is not None and previous.order.uid == journal.uid:
            previous = None
        why = waits_for(journal.order, document, await self._state_of(previous) if previous else None)
        if why is None and free <= 0:
            why = Waiting("Queued", f"{self._limit} sessions are open; it is opened when one of them ends")
        if why is not None or document is None:
            return why, None
        note = previous.note.text() if previous and previous.note else ""
        return None, Opening(document, note, (previous.note_commit or "") if previous else "")

    # -- what is stored -----------------------------------------------------------------------------------------------
    async def _load(self, row: SessionRow) -> Journal:
        return await Journal.load(self._parts.store, row, self._clock, self._feed.changed)

    async def _state_of(self, row: SessionRow) -> SessionState:
        journal = self._journals.get(row.order.uid)
        return journal.state if journal else fold(await self._parts.store.run(rows.get_events, row.order.uid))

    async def _report_of(self, row: SessionRow) -> SessionReport:
        return report(await self._state_of(row), row.order)
