"""A session's events as lines for people, and what they add up to. PURE: used by `session watch`, `folkmoot dev` and the demo.

The events are those of folkmoot_core.sessions.SessionEvent.public(). Everything in them was said by a machine somewhere
else, so each text is cut and stripped of control characters before it reaches a terminal; an event of a kind that this
version does not know is shown by its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from folkmoot_core.calls import Usage
from folkmoot_core.sessions import ENDED, add_cost, preview

Event = Mapping[str, Any]
MAX_TEXT = 160
_SAID = re.compile(r'"(?:summary|reason)": "((?:[^"\\]|\\.)*)"')
_GOOD = frozenset({"Succeeded", "Approved", "Accepted", "For", "done"})
_BAD = frozenset({"Failed", "Blocked", "Rejected", "Escalated", "failed", "Cancelled"})


class Line(NamedTuple):
    """One line: `style` is a rich style word, or empty."""

    text: str
    style: str = ""


@dataclass
class Share:
    """What one agent's tasks used."""

    agent: str
    model: str = ""
    family: str = ""
    tasks: int = 0
    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: str | None = None
    currency: str | None = None


class Verdict(NamedTuple):
    """One word of the gate, with what it stands on."""

    submission: int
    verdict: str
    shapes: tuple[str, ...]
    findings: tuple[str, ...]
    """"file:line: shape: message", probes' and reviewers' alike"""


@dataclass
class Story:
    """A session so far, gathered from its events in order. `phase` is the newest."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    last: int = 0
    shares: dict[str, Share] = field(default_factory=dict)
    votes: list[tuple[int, str, str, str]] = field(default_factory=list)
    """(submission, agent, vote, reason)"""
    decisions: list[Event] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether the session is over."""
        return self.phase in ENDED

    @property
    def cost(self) -> str | None:
        """Sum over the agents; None when nothing was priced."""
        total: str | None = None
        for share in self.shares.values():
            total = add_cost(total, share.cost)
        return total

    def add(self, event: Event) -> None:
        """Take the next event in; one that was seen already (a stream that was resumed) changes nothing."""
        number = event.get("n", 0)
        if not isinstance(number, int) or number <= self.last:
            return
        self.last = number
        handler = _STORY.get(str(event.get("type")))
        if handler is not None:
            handler(self, event)

    def phase_event(self, event: Event) -> None:
        """The session moved."""
        self.phase, self.reason, self.message = (_text(event.get(k)) for k in ("phase", "reason", "message"))

    def task_result(self, event: Event) -> None:
        """An agent's share."""
        name = _text(event.get("agent"))
        share = self.shares.setdefault(name, Share(name))
        usage = event.get("usage") or {}
        share.usage += Usage(**{k: v for k, v in usage.items() if k in Usage.model_fields and isinstance(v, int) and v >= 0})
        share.tasks += 1
        share.calls += event["calls"] if isinstance(event.get("calls"), int) else 0
        share.cost = add_cost(share.cost, event.get("cost"))
        share.currency = share.currency or event.get("currency")
        share.model = _text(event.get("model")) or share.model
        share.family = _text(event.get("family")) or share.family

    def vote(self, event: Event) -> None:
        """One member's vote on record."""
        number, agent = event.get("submission") or 0, _text(event.get("actor") or event.get("agent"))
        self.votes.append((number, agent, _text(event.get("vote")), _text(event.get("reason"))))

    def decision(self, event: Event) -> None:
        """The votes were counted."""
        self.decisions.append(event)

    def verdict(self, event: Event) -> None:
        """The gate's word."""
        shapes = tuple(_text(s) for s in event.get("shapes") or ())
        self.verdicts.append(Verdict(event.get("submission") or 0, _text(event.get("verdict")), shapes, findings(event)))


_STORY: dict[str, Callable[[Story, Event], None]] = {
    "session.phase": Story.phase_event, "task.result": Story.task_result, "council.vote": Story.vote,
    "council.decision": Story.decision, "gate.verdict": Story.verdict,
}  # fmt: skip


def findings(event: Event) -> tuple[str, ...]:
    """What a verdict stands on, one text each."""
    found = event.get("findings")
    return tuple(_text(item, 2 * MAX_TEXT) for item in found) if isinstance(found, list | tuple) else ()


def line(event: Event) -> str:
    """What to print for one event, without style; empty where there is nothing to say."""
    return "\n".join(shown.text for shown in lines(event))


def lines(event: Event) -> list[Line]:
    """What to print for one event."""
    kind = str(event.get("type"))
    handler = _LINES.get(kind)
    shown = handler(event) if handler is not None else [Line(f"{_text(kind):<10}")]
    stamp = clock(event.get("time"))
    return [
        Line(f"{stamp}  {line.text}" if i == 0 else f"{' ' * len(stamp)}  {line.text}", line.style)
        for i, line in enumerate(shown)
    ]


def clock(time: object) -> str:
    """Local time of day of an RFC 3339 text."""
    try:
        return datetime.fromisoformat(str(time)).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return "--:--:--"


def summary(story: Story) -> list[list[str]]:
    """Rows of the table of cost per agent, with a sum."""
    rows = [
        [s.agent, s.model, str(s.tasks), str(s.calls), _count(s.usage), money(s.cost, s.currency)] for s in story.shares.values()
    ]
    usage = sum((s.usage for s in story.shares.values()), Usage())
    currency = next((s.currency for s in story.shares.values() if s.currency), None)
    total = ["all", "", str(sum(s.tasks for s in story.shares.values())), str(sum(s.calls for s in story.shares.values()))]
    return [*rows, [*total, _count(usage), money(story.cost, currency)]]


SUMMARY_COLUMNS = ("AGENT", "MODEL OBSERVED", "TASKS", "CALLS", "TOKENS IN+OUT (CACHED)", "COST")


def money(cost: str | None, currency: str | None) -> str:
    """A cost, or that there was no price."""
    return f"{Decimal(cost):.4f} {currency or ''}".rstrip() if cost else "not priced"


def _phase(event: Event) -> list[Line]:
    phase, reason, message = (_text(event.get(k)) for k in ("phase", "reason", "message"))
    why = f" ({reason})" if reason and reason != phase else ""
    return [Line(f"session    {phase}{why}{': ' + message if message else ''}", _style(phase) or "bold")]


def _sent(event: Event) -> list[Line]:
    return [Line(f"task       {_text(event.get('agent'))} ← {_text(event.get('need'))}", "dim")]


def _result(event: Event) -> list[Line]:
    agent, need, status = (_text(event.get(k)) for k in ("agent", "need", "status"))
    if status == "failed":
        return [Line(f"failed     {agent}: {need}: {_text(event.get('error') or event.get('reason'))}", "red")]
    usage = event.get("usage") or {}
    tokens = f"{usage.get('input_tokens', 0)}+{usage.get('output_tokens', 0)} tokens"
    first = (
        f"answer     {agent} → {need} ({_text(event.get('model'))}, {tokens}, {money(event.get('cost'), event.get('currency'))})"
    )
    words = _text(_said(str(event.get("preview") or "")))
    return [Line(first), *([Line(f"             “{words}”", "dim")] if words else [])]


def _plan(event: Event) -> list[Line]:
    members = ", ".join(_text(m) for m in event.get("members") or ())
    return [Line(f"plan       {_text(event.get('author'))} works; the council is {members}", "cyan")]


def _submission(event: Event) -> list[Line]:
    return [Line(f"submission {event.get('submission')} by {_text(event.get('actor'))}", "cyan")]


def _vote(event: Event) -> list[Line]:
    vote, reason = _text(event.get("vote")), _text(event.get("reason"))
    head = f"vote       {_text(event.get('actor') or event.get('agent'))}: {vote}{f' – {reason}' if reason else ''}"
    return [Line(head, "green" if vote == "For" else "yellow")]


def _decision(event: Event) -> list[Line]:
    dissent = ", ".join(_text(d) for d in event.get("dissent") or ())
    counts = f"{event.get('for', 0)} for, {event.get('against', 0)} against, {event.get('abstained', 0)} abstained"
    decision = _text(event.get("decision"))
    return [Line(f"council    {decision}: {counts}; dissent on record: {dissent or 'none'}", _style(decision) or "bold")]


def _probes(event: Event) -> list[Line]:
    if error := _text(event.get("error")):
        return [Line(f"probes     could not run: {error}", "red")]
    shapes = ", ".join(_text(s) for s in event.get("shapes") or ())
    return [Line(f"probes     found {shapes or 'nothing'}", "yellow" if shapes else "")]


def _check(event: Event) -> list[Line]:
    name = _text(event.get("check") or event.get("name") or event.get("need"))
    if event.get("timed_out"):
        return [Line(f"check      {name}: timed out", "red")]
    code = event.get("exit_code")
    said = f"exit code {code}" if code is not None else f"could not run: {_text(event.get('error'))}"
    return [Line(f"check      {name}: {said}", "green" if code == 0 else "red")]


def _review(event: Event) -> list[Line]:
    who, side, verdict, summary = (_text(event.get(k)) for k in ("actor", "side", "verdict", "summary"))
    return [Line(f"review     {who} ({side}): {verdict}{f' – {summary}' if summary else ''}", _style(verdict) or "yellow")]


def _verdict(event: Event) -> list[Line]:
    verdict, shapes = _text(event.get("verdict")), ", ".join(_text(s) for s in event.get("shapes") or ())
    head = f"GATE       {verdict} (submission {event.get('submission')}){': ' + shapes if shapes else ''}"
    return [
        Line(head, f"bold {_style(verdict) or 'yellow'}"),
        *(Line(f"             {text}", "yellow") for text in findings(event)),
    ]


def _accepted(_: Event) -> list[Line]:
    return [Line("session    accepted by the conductor", "dim")]


def _nothing(_: Event) -> list[Line]:
    return []


_LINES: dict[str, Callable[[Event], list[Line]]] = {
    "session.accepted": _accepted, "session.order": _nothing, "session.phase": _phase, "session.start": _nothing,
    "session.end": _nothing, "task.sent": _sent, "task.result": _result, "council.plan": _plan, "gate.submission": _submission,
    "council.vote": _vote, "council.decision": _decision, "probes.result": _probes, "gate.probe": _nothing,
    "check.result": _check, "gate.check": _nothing, "gate.review": _review, "gate.verdict": _verdict,
}  # fmt: skip


def _style(word: str) -> str:
    return "green" if word in _GOOD else "red" if word in _BAD else ""


def _count(usage: Usage) -> str:
    cached = f" ({usage.cached_input_tokens})" if usage.cached_input_tokens else ""
    return f"{usage.input_tokens}+{usage.output_tokens}{cached}"


def _text(value: object, limit: int = MAX_TEXT) -> str:
    return " ".join(preview(str(value), limit * 4).split())[:limit] if value is not None else ""


def _said(text: str) -> str:
    """What a person reads of a preview: structured output's summary or reason, else the text. A preview may be cut anywhere."""
    if not text.startswith("{"):
        return text
    found = _SAID.search(text)
    try:
        return str(json.loads(f'"{found.group(1)}"')) if found else ""
    except ValueError:
        return ""
