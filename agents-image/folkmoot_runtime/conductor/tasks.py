"""Tasks for agents and their results: one need becomes one task on the bus, answered once, whatever dies in between.

`ask` is called by the driver; `accept` by the mail loop for each result. The task's request_id comes from session and need, so
that a resend after a restart is recognised; a result counts only from the agent that was asked (or, as a failure, from the
router that could not reach it), only once, and only in the shape that was asked for.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any, Final, assert_never

from pydantic import ValidationError

from folkmoot_core import routing
from folkmoot_core.calls import Usage, family_of
from folkmoot_core.canonical import sha256_hex
from folkmoot_core.deliberation import AskAgent
from folkmoot_core.document import TenantDocument
from folkmoot_core.errors import FolkmootError, Invalid, LimitReached, Missing, Unauthorized, Unavailable
from folkmoot_core.messages import MAX_BODY, Envelope, Task, TaskResult
from folkmoot_core.names import CORE
from folkmoot_core.resources.common import seconds
from folkmoot_core.sessions import EVENT_PREVIEW, add_cost, preview
from folkmoot_runtime.bus.interface import Bus
from folkmoot_runtime.conductor.blobs import Artefacts
from folkmoot_runtime.conductor.journal import Journal
from folkmoot_runtime.conductor.notary import Fact, Notary, actor_of
from folkmoot_runtime.conductor.rows import NeedRow

log = logging.getLogger(__name__)
SETTLING: Final = frozenset({"UnknownRecipient", "UnknownKey", "BadSignature"})  # the router may not have heard of it yet
SETTLE_MS: Final = 60_000  # how long such a refusal is not believed
RESEND_SECONDS: Final = 1.0
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 5.0
MAX_COUNT: Final = 10**12  # tokens or calls of one task: their sum over a session must fit into the record too
CANCEL_SECONDS: Final = 3.0  # that telling agents of a cancelled session may take


def request_id(session: str, need: str, suffix: str = "") -> str:
    """Deterministic identity of a message about a need."""
    return sha256_hex(f"{session}\n{need}\n{suffix}".encode())[:40]


class Tasks:
    """`journals` are the sessions at work, by uid."""

    def __init__(self, bus: Bus, tenant: str, journals: Mapping[str, Journal], artefacts: Artefacts, notary: Notary) -> None:
        self._bus = bus
        self._tenant = tenant
        self._journals = journals
        self._artefacts = artefacts
        self._notary = notary
        self._refused: dict[str, asyncio.Event] = {}

    async def ask(self, journal: Journal, need: AskAgent, tokens: int) -> TaskResult:
        """The agent's result, on record. Never raises for what agent, router or bus do: that is a failed result."""
        deadline = min(journal.now_ms() + need.timeout_seconds * 1000, journal.row.deadline_ms)
        row = await journal.ask(need, deadline, tokens)
        if not row.answered:
            try:
                await self._deliver_until_answered(journal, row)
            except (Invalid, LimitReached) as error:
                await self._store(journal, need, _failed(journal, need, error.reason, error.message))
        result = journal.needs[need.id].answer
        assert isinstance(result, TaskResult)  # noqa: S101 - `answered` was awaited, and an AskAgent is answered by nothing else
        await self._notary.put(await self._result_fact(journal, need, result))
        return result

    async def accept(self, envelope: Envelope) -> None:
        """Take a `result` message; what does not belong to an open task of its sender changes nothing."""
        try:
            result = TaskResult.model_validate_json(envelope.body)
        except ValidationError:
            log.warning("result refused", extra={"from": envelope.sender, "reason": "Malformed"})
            return
        session, _, need_id = result.task.partition("/")
        journal = self._journals.get(session)
        row = journal.needs.get(need_id) if journal is not None else None
        if journal is None or row is None or row.answered or journal.row.ending or not isinstance(row.need, AskAgent):
            log.info("result not needed", extra={"from": envelope.sender, "task": result.task})
            return
        if refusal := _refusal(envelope, result, journal, row.need):
            log.warning("result refused", extra={"from": envelope.sender, "task": result.task, "reason": refusal})
            return
        settling = result.reason in SETTLING and journal.now_ms() < row.asked_ms + SETTLE_MS
        if envelope.sender == routing.ROUTER and settling:
            if (event := self._refused.get(result.task)) is not None:
                event.set()
            return
        await self._store(journal, row.need, await self._checked(journal, row.need, result))

    async def record_answered(self, journal: Journal) -> None:
        """Put on record what was answered while nobody waited for it any more (the session was cancelled meanwhile)."""
        for row in list(journal.needs.values()):
            if isinstance(row.need, AskAgent) and isinstance(row.answer, TaskResult):
                await self._notary.put(await self._result_fact(journal, row.need, row.answer))

    async def withdraw(self, journal: Journal) -> None:
        """Tell every agent that still works for this session to stop. Best effort: the session's end does not wait for a bus."""
        open_needs = [row.need for row in journal.needs.values() if row.sent and not row.answered]
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                for need in open_needs:
                    if isinstance(need, AskAgent):
                        await self._cancel(journal, need)
        except (FolkmootError, TimeoutError) as error:
            log.warning("agents not told of a session's end", extra={"session": journal.uid, "error": str(error)})

    async def _deliver_until_answered(self, journal: Journal, row: NeedRow) -> None:
        """Send; send again while the router says it does not know the agent yet; give up at the task's deadline."""
        need = row.need
        assert isinstance(need, AskAgent)  # noqa: S101 - `ask` stores nothing else under this id
        name = f"{journal.uid}/{need.id}"
        left = max((row.deadline_ms - journal.now_ms()) / 1000, 0)
        # At the session's own deadline the session ends, not the task: its runner watches that clock.
        limit = None if row.deadline_ms >= journal.row.deadline_ms else left
        try:
            async with asyncio.timeout(limit):
                while not journal.needs[need.id].answered:
                    refused = self._refused[name] = asyncio.Event()
                    await self._send(journal, row, need)
                    await _first(journal.answered(need.id), refused.wait())
                    if refused.is_set():
                        await asyncio.sleep(RESEND_SECONDS)
        except TimeoutError:
            message = f"agent {need.agent} gave no result within {need.timeout_seconds} s"
            if await self._store(journal, need, _failed(journal, need, "DeadlineExceeded", message)):
                await self._cancel_quietly(journal, need)
        finally:
            self._refused.pop(name, None)

    async def _send(self, journal: Journal, row: NeedRow, need: AskAgent) -> None:
        """On record, then on the bus, then an event. A repetition carries the same request_id and is dropped by the router."""
        body = _task(journal, row, need).model_dump_json()
        if len(body.encode()) > MAX_BODY:
            raise Invalid(f"task {need.id} has {len(body)} bytes; at most {MAX_BODY} travel over the bus", reason="TaskTooLarge")
        await self._notary.put(await self._sent_fact(journal, need, body))
        now = journal.now_ms()
        priority: Any = journal.order.spec.priority.lower()
        ack = _ack_ms(journal)
        message = Envelope(
            request_id=request_id(journal.uid, need.id), conversation=journal.uid, tenant=self._tenant, sender=CORE,
            to=need.agent, kind="task", priority=priority, created_ms=now, deadline_ms=now + ack if ack else 0, body=body,
        )  # fmt: skip
        await self._put_on_bus(message)
        if not journal.needs[need.id].sent:
            await journal.sent(need.id, ("task.sent", {"need": need.id, "agent": need.agent, "task": need.task}))

    async def _put_on_bus(self, envelope: Envelope) -> None:
        wait = FIRST_WAIT
        while True:
            try:
                return await self._bus.send(envelope)
            except (Unavailable, Unauthorized) as error:  # the router may not know of this core yet
                log.warning("waiting for the bus", extra={"request_id": envelope.request_id, "error": error.message})
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    async def _cancel(self, journal: Journal, need: AskAgent) -> None:
        body = json.dumps({"task": f"{journal.uid}/{need.id}", "session": journal.uid})
        message = Envelope(
            request_id=request_id(journal.uid, need.id, "cancel"), ack_for=request_id(journal.uid, need.id),
            conversation=journal.uid, tenant=self._tenant, sender=CORE, to=need.agent, kind="cancel", created_ms=journal.now_ms(), body=body,
        )  # fmt: skip
        await self._bus.send(message)

    async def _cancel_quietly(self, journal: Journal, need: AskAgent) -> None:
        try:
            await self._cancel(journal, need)
        except FolkmootError as error:
            log.warning("agent not told to stop", extra={"session": journal.uid, "need": need.id, "error": error.message})

    async def _store(self, journal: Journal, need: AskAgent, result: TaskResult) -> bool:
        event = {
            "need": need.id, "agent": need.agent, "status": result.status, "reason": result.reason, "error": result.error,
            "provider": result.provider, "model": result.model_observed, "family": result.family, "calls": result.calls,
            "usage": result.usage.model_dump(), "cost": result.cost, "currency": result.currency, "workspace": result.workspace,
            "preview": _preview(result.output),
        }  # fmt: skip
        return await journal.answer(need.id, result, ("task.result", event))

    async def _checked(self, journal: Journal, need: AskAgent, result: TaskResult) -> TaskResult:
        """The result as it will count: bounded, its family looked up rather than believed, its shape and workspace verified."""
        bounded = _bounded(result, journal.document)
        try:
            _check_shape(need, bounded)
            if bounded.workspace is not None:
                await self._artefacts.keep_workspace(journal.uid, bounded.workspace)
        except (Invalid, Missing, LimitReached) as error:
            update = {
                "status": "failed",
                "output": None,
                "workspace": None,
                "reason": "ResultInvalid",
                "error": error.message[:500],
            }
            return bounded.model_copy(update=update)
        return bounded

    async def _sent_fact(self, journal: Journal, need: AskAgent, body: str) -> Fact:
        kept = await self._artefacts.put(journal.uid, body.encode())
        await self._artefacts.keep(journal.uid, [i.digest for i in need.inputs])
        return Fact(
            id=f"{journal.uid}/{need.id}/sent", type="task.sent", actor=actor_of(journal.document), session=journal.uid,
            config=journal.row.document or "", commits_to=kept,
            data={"task": f"{journal.uid}/{need.id}", "gen_ai.agent.name": need.agent, "kind": need.task},
        )  # fmt: skip

    async def _result_fact(self, journal: Journal, need: AskAgent, result: TaskResult) -> Fact:
        kept = await self._artefacts.put(journal.uid, result.model_dump_json().encode())
        data = {
            "task": f"{journal.uid}/{need.id}", "status": result.status, "reason": result.reason, "gen_ai.agent.name": need.agent,
            "gen_ai.provider.name": result.provider, "gen_ai.response.model": result.model_observed, "family": result.family,
            "gen_ai.usage.input_tokens": result.usage.input_tokens, "gen_ai.usage.output_tokens": result.usage.output_tokens,
            "calls": result.calls, "cost": result.cost, "currency": result.currency,
        }  # fmt: skip
        return Fact(
            id=f"{journal.uid}/{need.id}/result", type="task.result", actor=actor_of(journal.document, need.agent),
            session=journal.uid, config=journal.row.document or "", commits_to=kept, data=data,
        )  # fmt: skip


def _task(journal: Journal, row: NeedRow, need: AskAgent) -> Task:
    """Made from what is stored alone, so that a resend has the same body."""
    return Task(
        task=f"{journal.uid}/{need.id}", session=journal.uid, session_name=journal.order.name, kind=need.task, prompt=need.prompt,
        inputs=need.inputs, workspace=need.workspace, output=need.output, max_tokens=max(1, row.tokens),
        deadline_ms=row.deadline_ms,
    )  # fmt: skip


def _refusal(envelope: Envelope, result: TaskResult, journal: Journal, need: AskAgent) -> str:
    """Why this message is no answer to this need, or ''."""
    if result.session not in (journal.uid, ""):
        return "OtherSession"
    if envelope.sender == routing.ROUTER:
        return "" if result.status == "failed" else "RouterAnswers"
    return "" if envelope.sender == need.agent else "OtherAgent"


def _check_shape(need: AskAgent, result: TaskResult) -> None:
    if result.status == "failed":
        return
    if need.output is None and not isinstance(result.output, str):
        raise Invalid(f"task {need.id}: expected text, found {type(result.output).__name__}")
    if need.output is not None and not isinstance(result.output, dict):
        raise Invalid(f"task {need.id}: expected an object of schema {need.output.name}, found {type(result.output).__name__}")


def _bounded(result: TaskResult, document: TenantDocument | None) -> TaskResult:
    usage = result.usage
    sane = all(value <= MAX_COUNT for value in (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, result.calls))
    update = {
        "usage": usage if sane else Usage(), "calls": result.calls if sane else 0, "error": preview(result.error, 500),
        "reason": result.reason[:64], "provider": result.provider[:63], "model_observed": preview(result.model_observed, 128),
        "family": _family(result, document), "cost": add_cost(None, result.cost),
        "currency": (result.currency or "")[:3] or None,
    }  # fmt: skip
    return result.model_copy(update=update)


def _family(result: TaskResult, document: TenantDocument | None) -> str:
    """From the observed model and the tenant's own provider entry: an agent cannot claim to be of another family."""
    provider = next((p for p in document.providers if p.name == result.provider), None) if document else None
    if provider is None or not result.model_observed:
        return ""
    declared = next((m.family for m in provider.models if m.name == result.model_observed), None)
    return family_of(result.model_observed, declared, provider_type=provider.type)


def _failed(journal: Journal, need: AskAgent, reason: str, message: str) -> TaskResult:
    return TaskResult(task=f"{journal.uid}/{need.id}", session=journal.uid, status="failed", reason=reason, error=message)


def _ack_ms(journal: Journal) -> int:
    """The council's own ACK deadline; 0 for an Agent target: the priority's default."""
    order, document = journal.order, journal.document
    council = next((c.spec for c in document.councils if c.name == order.spec.target.name), None) if document else None
    if council is None or order.spec.target.kind != "Council":
        return 0
    match order.spec.priority:
        case "Critical":
            return seconds(council.timing.critical) * 1000
        case "Routine":
            return seconds(council.timing.routine) * 1000
        case other:
            assert_never(other)


def _preview(output: Any) -> str:
    text = output if isinstance(output, str) else "" if output is None else json.dumps(output, ensure_ascii=False)
    return preview(text, EVENT_PREVIEW)


async def _first(*waits: Any) -> None:
    """Wait for the first, and leave none of the others behind."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
