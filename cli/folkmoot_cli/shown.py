"""Sessions as rows and pages for people, from the object's status or the conductor's report. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from folkmoot_cli.output import table
from folkmoot_core.document import SessionReport
from folkmoot_core.errors import Invalid

COLUMNS = (
    ("NAME", "name"), ("TARGET", "target"), ("PHASE", "phase"), ("GATE", "gate"), ("COST", "cost"), ("DURATION", "duration"),
    ("AGE", "age"),
)  # fmt: skip
Raw = Mapping[str, Any]


def object_row(raw: Raw, now: datetime) -> dict[str, Any]:
    """One line of `session list` from a Session object."""
    meta, status = raw.get("metadata") or {}, raw.get("status") or {}
    target, usage = (raw.get("spec") or {}).get("target") or {}, status.get("usage") or {}
    return {
        "namespace": meta.get("namespace"), "name": meta.get("name"), "target": f"{target.get('kind')}/{target.get('name')}",
        "phase": status.get("phase"), "gate": (status.get("gate") or {}).get("verdict"),
        "cost": _cost(usage.get("cost"), usage.get("currency")),
        "duration": _span(status.get("startTime"), status.get("completionTime"), now),
        "age": _span(meta.get("creationTimestamp"), None, now),
    }  # fmt: skip


def report_row(report: SessionReport, now: datetime) -> dict[str, Any]:
    """The same from a conductor's report, which knows no object."""
    return {
        "name": report.name, "target": None, "phase": report.phase, "gate": report.gate_verdict,
        "cost": _cost(report.cost, report.currency),
        "duration": _span(report.started, report.finished, now), "age": _span(report.started, None, now),
    }  # fmt: skip


def session(raw: Raw) -> str:
    """`session show`: what was asked, what came of it, and every condition that is not as it should be."""
    meta, spec, status = raw.get("metadata") or {}, raw.get("spec") or {}, raw.get("status") or {}
    target = spec.get("target") or {}
    result, gate, votes, usage, ledger = (status.get(k) or {} for k in ("result", "gate", "votes", "usage", "ledger"))
    rows = [
        ("Session", f"{meta.get('namespace')}/{meta.get('name')}"),
        ("Target", f"{target.get('kind')}/{target.get('name')}"),
        ("Task", _clip(str(spec.get("task", "")), 300)),
        ("Phase", _phase(status)),
        ("Gate", _gate(gate.get("verdict"), gate.get("submission"), gate.get("shapes") or ())),
        ("Votes", _votes(votes.get("for"), votes.get("against"), votes.get("dissent"))),
        ("Usage", _usage(usage.get("inputTokens"), usage.get("outputTokens"), usage.get("cachedInputTokens"))),
        ("Cost", _cost(usage.get("cost"), usage.get("currency"))),
        ("Ledger", _ledger(ledger.get("first"), ledger.get("last"))),
        ("Result", result.get("digest")),
    ]
    conditions = [c for c in status.get("conditions") or () if c.get("type") in EXPLAINED]
    page = _page(rows) + (f"\n{result['preview'].rstrip()}\n" if result.get("preview") else "")
    if not conditions:
        return page
    shown = [
        {"t": c.get("type"), "s": c.get("status"), "r": c.get("reason"), "m": _clip(c.get("message", ""), 200)}
        for c in conditions
    ]
    return page + "\n" + table(shown, (("CONDITION", "t"), ("STATUS", "s"), ("REASON", "r"), ("MESSAGE", "m")))


EXPLAINED = ("Ready", "Accepted", "ResolvedRefs", "Succeeded", "GatePassed", "BudgetBlocked", "Stalled")


def report(given: SessionReport) -> str:
    """The same from the conductor's report: how a followed session ended."""
    rows = [
        ("Session", given.name),
        ("Phase", f"{given.phase}{f' ({given.reason})' if given.reason else ''}{f': {given.message}' if given.message else ''}"),
        ("Gate", _gate(given.gate_verdict, given.gate_submission, given.gate_shapes)),
        ("Votes", _votes(given.votes_for, given.votes_against, given.votes_dissent)),
        ("Usage", _usage(given.input_tokens, given.output_tokens, given.cached_input_tokens)),
        ("Cost", _cost(given.cost, given.currency)),
        ("Ledger", _ledger(given.ledger_first, given.ledger_last)),
        ("Result", given.result_digest),
    ]
    return _page(rows) + (f"\n{given.result_preview.rstrip()}\n" if given.result_preview else "")


def waits_for(raw: Raw) -> str:
    """Why the conductor does not know a session yet. Raises `Invalid` for what will not heal by waiting."""
    name = (raw.get("metadata") or {}).get("name")
    conditions = {c.get("type"): c for c in (raw.get("status") or {}).get("conditions") or ()}
    accepted = conditions.get("Accepted", {})
    if accepted.get("status") == "False":
        raise Invalid(f"session {name} is not accepted: {accepted.get('reason')}: {accepted.get('message')}")
    for kind in ("ResolvedRefs", "Ready"):
        if conditions.get(kind, {}).get("status") == "False":
            return f"session {name} waits: {conditions[kind].get('reason')}: {conditions[kind].get('message')}"
    return f"session {name} waits for the operator to hand it to its tenant's conductor"


def _page(rows: list[tuple[str, Any]]) -> str:
    return "".join(f"{label + ':':<10}{value}\n" for label, value in rows if value not in (None, "", "-"))


def _phase(status: Raw) -> str:
    phase = str(status.get("phase") or "Pending")
    return (
        phase
        + (f" ({status['reason']})" if status.get("reason") else "")
        + (f": {status['message']}" if status.get("message") else "")
    )


def _gate(verdict: Any, submission: Any, shapes: Any) -> str:
    if not verdict:
        return ""
    return f"{verdict}, submission {submission}" + (f" ({', '.join(map(str, shapes))})" if shapes else "")


def _votes(yes: Any, no: Any, dissent: Any) -> str:
    return "" if not yes and not no else f"{yes or 0} for, {no or 0} against, {dissent or 0} dissenting"


def _usage(read: Any, written: Any, cached: Any) -> str:
    return "" if not read and not written else f"{read or 0} tokens in ({cached or 0} cached), {written or 0} out"


def _cost(cost: Any, currency: Any) -> str:
    return f"{cost} {currency or ''}".strip() if cost else ""


def _ledger(first: Any, last: Any) -> str:
    return "" if first is None else f"entries {first} to {last}"


def _span(start: Any, end: Any, now: datetime) -> str:
    """Like kubectl's ages: 42s, 7m, 3h, 5d."""
    if not start:
        return ""
    try:
        last = datetime.fromisoformat(str(end)) if end else now
        seconds = max(0, int((last - datetime.fromisoformat(str(start))).total_seconds()))
    except (ValueError, TypeError):
        return ""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size * 2:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
