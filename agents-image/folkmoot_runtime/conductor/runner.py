"""One session from its acceptance to its end: wait for its turn, open it, let it be decided, close it.

Started by the service for every session that has not ended, also after a restart; each step looks at what is stored and does
what is missing. Two clocks end it from outside: a cancel, and its limits (wall clock from acceptance, tokens).
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from folkmoot_core.council import DeliberationContext
from folkmoot_core.deliberation import Deliberation, Outcome
from folkmoot_core.document import AgentEntry, TenantDocument
from folkmoot_core.errors import FolkmootError, Missing
from folkmoot_core.sessions import Ending, closing_note, preview
from folkmoot_runtime.conductor import rows
from folkmoot_runtime.conductor.blobs import Artefacts
from folkmoot_runtime.conductor.driver import Driver
from folkmoot_runtime.conductor.journal import Journal
from folkmoot_runtime.conductor.notary import Fact, Notary, actor_of
from folkmoot_runtime.conductor.store import Store
from folkmoot_runtime.conductor.tasks import Tasks

log = logging.getLogger(__name__)
MAX_RESULT: Final = 4 * 1024 * 1024  # characters of a text result that are kept


@dataclass(frozen=True)
class Protocols:
    """The two pure deliberations: for a Council target and for an Agent target."""

    council: Callable[[DeliberationContext], Deliberation]
    agent: Callable[[DeliberationContext], Deliberation]


@dataclass(frozen=True)
class Opening:
    """What a session is opened with: frozen from then on."""

    document: TenantDocument
    previous: str = ""
    previous_commit: str = ""


@dataclass(frozen=True)
class Parts:
    """What runners share."""

    store: Store
    artefacts: Artefacts
    notary: Notary
    tasks: Tasks
    driver: Driver
    protocols: Protocols


class Runner:
    """`turn` returns what to open the session with, once it may be opened."""

    def __init__(self, parts: Parts, journal: Journal, turn: Callable[[], Awaitable[Opening]]) -> None:
        self._parts = parts
        self._journal = journal
        self._turn = turn

    async def run(self) -> None:
        """To the end; safe to call again after it raised. Raises `Conflict` while the ledger refuses the session's entries."""
        journal = self._journal
        if journal.row.document is not None:
            await self._recall()
        ending = journal.row.ending
        if ending is None:
            ending = await self._decide()
            await journal.update(ending=ending.model_dump_json())
        await self._close(ending)

    async def _decide(self) -> Ending:
        """How it ends: by its own deliberation, or by whatever stops it first."""
        journal = self._journal
        work = asyncio.ensure_future(self._work())
        stops = {asyncio.ensure_future(journal.cancelled.wait()), asyncio.ensure_future(journal.over_budget.wait())}
        left = max((journal.row.deadline_ms - journal.now_ms()) / 1000, 0)
        try:
            await asyncio.wait({work, *stops}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            stopped = self._stopped()
            if stopped is not None:
                return stopped
            return _ending_of(work, journal) if work.done() else _limit("wall clock", journal.order.spec.budget.wall_clock)
        finally:
            for task in (work, *stops):
                task.cancel()
            await asyncio.gather(work, *stops, return_exceptions=True)

    def _stopped(self) -> Ending | None:
        journal = self._journal
        if journal.cancelled.is_set():
            why = journal.row.cancelled or ""
            return Ending(phase="Cancelled", reason=why or "Cancelled", message="the session was cancelled")
        if journal.over_budget.is_set():
            return _limit("tokens", f"{journal.order.spec.budget.tokens}; {journal.state.tokens} were used")
        return None

    async def _work(self) -> Outcome:
        journal, order = self._journal, self._journal.order
        if journal.row.document is None:
            await self._freeze(await self._turn())
        if not journal.state.started_ms:
            await self._open()
        assert journal.document is not None  # noqa: S101 - frozen or recalled above
        context = DeliberationContext(
            session=order, document=journal.document, workspace=journal.row.inputs.workspace, inputs=journal.row.inputs.refs,
            previous_note=journal.row.previous,
        )  # fmt: skip
        protocols = self._parts.protocols
        start = protocols.council if order.spec.target.kind == "Council" else protocols.agent
        return await self._parts.driver.drive(journal, start(context))

    async def _recall(self) -> None:
        document = await self._parts.store.run(rows.get_document, self._journal.row.document)
        if document is None:
            raise Missing(f"session {self._journal.uid}: the document it was opened under is gone from the database")
        self._journal.document = document

    async def _freeze(self, opening: Opening) -> None:
        self._journal.document = opening.document
        await self._journal.update(
            document=opening.document.digest(), previous=opening.previous, previous_commit=opening.previous_commit
        )

    async def _open(self) -> None:
        """The handshake, on record before anybody works: who takes part with which identity and commitment, under which
        configuration, continuing what."""
        journal, document = self._journal, self._journal.document
        assert document is not None  # noqa: S101 - frozen just before
        order, row = journal.order, journal.row
        kept = await self._keep(rows.order_json(order).encode())
        inputs = [ref.digest for ref in row.inputs.refs]
        await self._parts.artefacts.keep(journal.uid, inputs)
        actors = [
            {"name": a.name, "seed": a.identity.seed, "commitment": a.identity.commitment}
            for a in _participants(document, journal)
        ]
        data: dict[str, Any] = {
            "name": order.name, "target": order.spec.target.model_dump(), "actors": actors, "document": row.document or "",
            "deadline_ms": row.deadline_ms, "tokens": order.spec.budget.tokens,
        }  # fmt: skip
        if order.spec.continues is not None:
            data["continues"] = {"name": order.spec.continues.name, "note": row.previous_commit}
        index = await self._record("session.start", "start", data, kept)
        await journal.phase("Running", "Running", f"{order.spec.target.kind} {order.spec.target.name} works on it", ledger=index)

    async def _close(self, ending: Ending) -> None:
        """Put the end on record, then show it."""
        journal, parts = self._journal, self._parts
        await parts.tasks.withdraw(journal)
        await parts.tasks.record_answered(journal)
        outcome = ending.outcome
        result = await self._result(outcome)
        note = closing_note(journal.order, journal.state, ending)
        closing = {"note": note.model_dump(mode="json"), "result": result, "workspace": outcome.workspace if outcome else None}
        kept = await self._keep(json.dumps(closing, sort_keys=True).encode())
        if ending.phase == "Cancelled":
            await self._record("session.cancelled", "cancelled", {"reason": ending.reason})
        state = journal.state
        data = {
            "phase": ending.phase, "reason": ending.reason, "gen_ai.usage.input_tokens": state.usage.input_tokens,
            "gen_ai.usage.output_tokens": state.usage.output_tokens, "cost": state.cost, "currency": state.currency,
            "verdict": outcome.verdict if outcome else "", "first": state.ledger_first, "last": state.ledger_last,
        }  # fmt: skip
        index = await self._record("session.end", "end", data, kept)
        commitment = await parts.notary.commitment(f"{journal.uid}/end")
        now = journal.now_ms()
        await journal.update(
            ("session.phase", {"phase": ending.phase, "reason": ending.reason, "message": ending.message[:1024], "ledger": index,
                               "result_digest": result, **_decided(outcome)}),
            note=note.model_dump_json(), note_commit=commitment, finished_ms=now,
        )  # fmt: skip

    async def _result(self, outcome: Outcome | None) -> str:
        """Digest of what was decided, kept: the workspace where there is one, else the text."""
        if outcome is None:
            return ""
        if outcome.workspace is not None:
            await self._parts.artefacts.keep(self._journal.uid, (outcome.workspace,))
        text = await self._keep(outcome.result[:MAX_RESULT].encode(errors="replace")) if outcome.result else ""
        return outcome.workspace or text

    async def _keep(self, content: bytes) -> str:
        return await self._parts.artefacts.put(self._journal.uid, content)

    async def _record(self, kind: Any, name: str, data: dict[str, Any], commits_to: str = "") -> int:
        journal = self._journal
        return await self._parts.notary.put(
            Fact(
                id=f"{journal.uid}/{name}", type=kind, actor=actor_of(journal.document), data=data, session=journal.uid,
                config=journal.row.document or "", commits_to=commits_to,
            )
        )  # fmt: skip


def _ending_of(work: asyncio.Future[Outcome], journal: Journal) -> Ending:
    """The deliberation's own end. What it raises is an end too: a session never hangs on an error."""
    try:
        outcome = work.result()
    except FolkmootError as error:
        return Ending(phase="Failed", reason=error.reason, message=error.message)
    except (OSError, sqlite3.Error):  # our own disk, not the session: it is tried again
        raise
    except Exception as error:  # the edge: a protocol's bug ends its session, recorded, and no other
        log.exception("deliberation failed", extra={"session": journal.uid})
        return Ending(phase="Failed", reason="InternalError", message=f"the deliberation raised {type(error).__name__}")
    return Ending(phase=outcome.phase, reason=outcome.reason or outcome.phase, message=outcome.message, outcome=outcome)


def _limit(what: str, limit: str) -> Ending:
    return Ending(phase="Failed", reason="LimitReached", message=f"the session's budget is used up: {what} {limit}")


def _decided(outcome: Outcome | None) -> dict[str, Any]:
    if outcome is None:
        return {}
    shapes = sorted({f.shape for f in outcome.findings if f.shape and f.severity != "Informational"})
    return {
        "result_preview": preview(outcome.result), "gate_verdict": outcome.verdict, "gate_submission": outcome.submission,
        "gate_shapes": shapes, "votes_for": outcome.votes_for, "votes_against": outcome.votes_against,
        "dissent": list(outcome.dissent),
    }  # fmt: skip


def _participants(document: TenantDocument, journal: Journal) -> list[AgentEntry]:
    """Agents that this session can reach: the target, or the council's coordinator, members, alternates' and gate's reviewers."""
    target = journal.order.spec.target
    named = {target.name}
    council = next((c.spec for c in document.councils if c.name == target.name), None)
    if target.kind == "Council" and council is not None:
        named = {council.coordinator.agent_ref.name, *(m.agent_ref.name for m in council.members)}
        wanted = council.gate_policy_ref.name if council.gate_policy_ref else ""
        for policy in (g.spec for g in document.gates if g.name == wanted):
            named |= {r.agent_ref.name for r in (*policy.structural.reviewers, *policy.adversarial.reviewers)}
    return [a for a in document.agents if a.name in named]
