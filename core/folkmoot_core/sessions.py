"""A session as the sum of its events: pure state, what keeps it waiting, how it ends, the note it leaves to the next.

The conductor appends events (numbered from 1 per session) and folds them with `apply`; the same fold rebuilds the state after
a restart, makes the SessionReport and is what a person following the session sees. Events carry no content beyond a short
preview. Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from folkmoot_core.calls import Usage
from folkmoot_core.deliberation import Outcome
from folkmoot_core.document import SessionOrder, SessionPhase, SessionReport, TenantDocument
from folkmoot_core.entries import rfc3339

PREVIEW_BYTES: Final = 1024  # of a result, in reports and status
EVENT_PREVIEW: Final = 300  # characters of one task's output, in events
ENDED: Final = frozenset({"Succeeded", "Failed", "Cancelled"})
MAX_NOTE: Final = 8 * 1024  # characters of a closing note as the next session reads it
_COST = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SessionEvent(_Frozen):
    """One step. Types: session.accepted, session.order, session.phase, task.sent, task.result, check.result, probes.result,
    and the entry types of notes (council.plan, council.vote, gate.verdict…)."""

    n: int
    time_ms: int
    type: str
    data: dict[str, Any]

    def public(self) -> dict[str, Any]:
        """The form that a person follows: `{"n", "time", "type", …}`."""
        return {**self.data, "n": self.n, "time": rfc3339(self.time_ms / 1000), "type": self.type}


class SessionState(_Frozen):
    """What the events up to `last` add up to. `last` is also the report's sequence: it rises with every change."""

    last: int = 0
    generation: int = 0
    phase: SessionPhase = "Pending"
    reason: str = ""
    message: str = ""
    started_ms: int = 0
    finished_ms: int = 0
    usage: Usage = Usage()
    cost: str | None = None
    currency: str | None = None
    result_digest: str = ""
    result_preview: str = ""
    gate_verdict: str = ""
    gate_submission: int = 0
    gate_shapes: tuple[str, ...] = ()
    votes_for: int = 0
    votes_against: int = 0
    dissent: tuple[str, ...] = ()
    ledger_first: int | None = None
    ledger_last: int | None = None

    @property
    def ended(self) -> bool:
        """Whether there will be no further event."""
        return self.phase in ENDED

    @property
    def tokens(self) -> int:
        """Input and output so far: what `budget.tokens` limits."""
        return self.usage.input_tokens + self.usage.output_tokens


class Ending(_Frozen):
    """How a session is going to end. It is shown only once `session.end` is durable in the ledger: no receipt, no effect."""

    phase: Literal["Succeeded", "Failed", "Cancelled"]
    reason: str
    message: str
    outcome: Outcome | None = None  # None: it was ended from outside (cancel, limit) before it decided


class ClosingNote(_Frozen):
    """What a session leaves behind; `continues` bridges it into the next one's opening."""

    session: str  # uid
    name: str
    phase: str
    reason: str
    summary: str
    unfinished: tuple[str, ...] = ()
    usage: Usage = Usage()
    cost: str | None = None
    currency: str | None = None
    ledger: int | None = None  # index of the last entry before session.end

    def text(self) -> str:
        """As the next session's agents read it, at most 8 KiB."""
        lines = [f"Session {self.name} ended {self.phase} ({self.reason}).", f"Summary: {self.summary or 'none'}"]
        lines += [f"Unfinished: {item}" for item in self.unfinished]
        lines.append(f"Final ledger index: {'none' if self.ledger is None else self.ledger}")
        return "\n".join(lines)[:MAX_NOTE]


class Waiting(NamedTuple):
    """Why a session is not opened yet."""

    reason: str
    message: str


def apply(state: SessionState, event: SessionEvent) -> SessionState:
    """The next state. Events come in order, each once; an event of an unknown type only moves `last`."""
    change: dict[str, Any] = {"last": event.n}
    handler = _HANDLERS.get(event.type)
    if handler is not None:
        change.update(handler(state, event))
    index = event.data.get("ledger")
    if isinstance(index, int):
        change["ledger_first"] = index if state.ledger_first is None else min(state.ledger_first, index)
        change["ledger_last"] = index if state.ledger_last is None else max(state.ledger_last, index)
    return state.model_copy(update=change)


def fold(events: Iterable[SessionEvent]) -> SessionState:
    """State from scratch."""
    state = SessionState()
    for event in events:
        state = apply(state, event)
    return state


def report(state: SessionState, order: SessionOrder) -> SessionReport:
    """What the operator, and people, are told."""
    return SessionReport(
        uid=order.uid, name=order.name, generation=state.generation, sequence=state.last, phase=state.phase, reason=state.reason,
        message=state.message, started=_time(state.started_ms), finished=_time(state.finished_ms),
        result_digest=state.result_digest,
        result_preview=state.result_preview, result_ref=f"/v1/artifacts/{state.result_digest}" if state.result_digest else "",
        gate_verdict=state.gate_verdict, gate_submission=state.gate_submission, gate_shapes=state.gate_shapes,
        votes_for=state.votes_for, votes_against=state.votes_against, votes_dissent=len(state.dissent),
        input_tokens=state.usage.input_tokens, output_tokens=state.usage.output_tokens,
        cached_input_tokens=state.usage.cached_input_tokens, cost=state.cost, currency=state.currency,
        ledger_first=state.ledger_first, ledger_last=state.ledger_last,
    )  # fmt: skip


def waits_for(order: SessionOrder, document: TenantDocument | None, previous: SessionState | None) -> Waiting | None:
    """Why this session cannot be opened now, or None. `previous` is the state of the session it continues, where known."""
    if document is None:
        return Waiting("NoConfiguration", "the conductor has no tenant document yet; the operator sends one")
    if document.suspended:
        return Waiting("Suspended", f"Tenant {document.tenant} is suspended; set spec.suspend to false to go on")
    target = order.spec.target
    found = _target_suspended(order, document)
    if found is None:
        return Waiting(
            "TargetNotFound", f"{target.kind} {target.name} is not in the tenant's configuration; create it or wait for it"
        )
    if found:
        return Waiting("Suspended", f"{target.kind} {target.name} is suspended; set its spec.suspend to false to go on")
    if order.spec.continues is None:
        return None
    name = order.spec.continues.name
    if previous is None:
        return Waiting("PreviousNotFound", f"Session {name}, which this one continues, is not known to the conductor")
    if not previous.ended:
        return Waiting("PreviousNotFinished", f"Session {name}, which this one continues, is still {previous.phase}")
    return None


def holds_back(document: TenantDocument, order: SessionOrder, agent: str) -> Waiting | None:
    """Why a running session may not give `agent` a task now, or None. What is already under way is not taken back."""
    if document.suspended:
        return Waiting("Suspended", f"Tenant {document.tenant} is suspended; the session goes on when it is resumed")
    if _target_suspended(order, document):
        return Waiting("Suspended", f"{order.spec.target.kind} {order.spec.target.name} is suspended")
    entry = next((a for a in document.agents if a.name == agent), None)
    if entry is not None and (entry.suspended or entry.spec.suspend):
        return Waiting("Suspended", f"Agent {agent} is suspended; the session goes on when it is resumed")
    return None


def closing_note(order: SessionOrder, state: SessionState, ending: Ending) -> ClosingNote:
    """The note of a session that ends with `ending`; `state` is that before the end."""
    outcome = ending.outcome
    summary = preview(outcome.result if outcome and outcome.result else ending.message)
    unfinished = outcome.unfinished if outcome else (preview(order.spec.task, 200),)
    return ClosingNote(
        session=order.uid, name=order.name, phase=ending.phase, reason=ending.reason, summary=summary,
        unfinished=tuple(preview(item) for item in unfinished[:20]), usage=state.usage, cost=state.cost, currency=state.currency,
        ledger=state.ledger_last,
    )  # fmt: skip


def preview(text: str, limit: int = PREVIEW_BYTES) -> str:
    """The beginning of a text as at most `limit` bytes of UTF-8, without control characters but LF and TAB."""
    shown = "".join(c for c in text[:limit] if c in "\n\t" or unicodedata.category(c)[0] != "C")
    return shown.encode()[:limit].decode(errors="ignore")


def add_cost(total: str | None, more: str | None) -> str | None:
    """Sum of two decimal texts; None is "not priced" and adds nothing, and so does what is no plain decimal: an agent may send
    `1E+999999`, which is finite and a million digits long."""
    values = [Decimal(text) for text in (total, more) if text and _COST.fullmatch(text)]
    return format(sum(values, Decimal(0)), "f") if values else None


def _target_suspended(order: SessionOrder, document: TenantDocument) -> bool | None:
    """Whether the target is suspended; None when it is not there."""
    target = order.spec.target
    if target.kind == "Agent":
        return next((a.suspended or a.spec.suspend for a in document.agents if a.name == target.name), None)
    return next((c.spec.suspend for c in document.councils if c.name == target.name), None)


def _time(milliseconds: int) -> str:
    return rfc3339(milliseconds / 1000) if milliseconds else ""


def _on_order(_: SessionState, event: SessionEvent) -> dict[str, Any]:
    return {"generation": event.data["generation"]}


def _on_phase(state: SessionState, event: SessionEvent) -> dict[str, Any]:
    data = event.data
    change: dict[str, Any] = {"phase": data["phase"], "reason": data.get("reason", ""), "message": data.get("message", "")}
    if data["phase"] == "Running" and not state.started_ms:
        change["started_ms"] = event.time_ms
    if data["phase"] in ENDED:
        change["finished_ms"] = event.time_ms
        change.update({key: data[key] for key in _RESULT_FIELDS if key in data})
        change.update({key: tuple(data[key]) for key in ("gate_shapes", "dissent") if key in data})
    return change


_RESULT_FIELDS = ("result_digest", "result_preview", "gate_verdict", "gate_submission", "votes_for", "votes_against")


def _on_task_result(state: SessionState, event: SessionEvent) -> dict[str, Any]:
    used = Usage.model_validate(event.data.get("usage", {}))
    return {
        "usage": state.usage + used, "cost": add_cost(state.cost, event.data.get("cost")),
        "currency": state.currency or event.data.get("currency"),
    }  # fmt: skip


def _on_decision(_: SessionState, event: SessionEvent) -> dict[str, Any]:
    data = event.data
    return {"votes_for": data.get("for", 0), "votes_against": data.get("against", 0), "dissent": tuple(data.get("dissent", ()))}


def _on_verdict(_: SessionState, event: SessionEvent) -> dict[str, Any]:
    data = event.data
    return {
        "gate_verdict": data.get("verdict", ""), "gate_submission": data.get("submission", 0),
        "gate_shapes": tuple(data.get("shapes", ())),
    }  # fmt: skip


_HANDLERS = {
    "session.accepted": _on_order, "session.order": _on_order, "session.phase": _on_phase, "task.result": _on_task_result,
    "council.decision": _on_decision, "gate.verdict": _on_verdict,
}  # fmt: skip
