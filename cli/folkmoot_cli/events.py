"""A session's events as lines for people: used by `session watch` and `dev`. Pure; unknown events are shown by their type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Event = dict[str, Any]
MAX_TEXT = 160


def line(event: Event) -> str:
    """One event as `HH:MM:SS what happened`, with continuation lines where there is more to say."""
    handler = _LINES.get(str(event.get("type")))
    text = handler(event) if handler else str(event.get("type"))
    return f"{str(event.get('time', ''))[11:19]}  {text}" if text else ""


def _phase(e: Event) -> str:
    why = f" ({e['reason']})" if e.get("reason") else ""
    message = f": {_short(e['message'])}" if e.get("message") else ""
    return f"session {e.get('phase', '')}{why}{message}"


def _sent(e: Event) -> str:
    return f"→ {e.get('agent', '')}: {e.get('need', e.get('id', ''))}"


def _result(e: Event) -> str:
    usage = e.get("usage") or {}
    tokens = f"{usage.get('input_tokens', 0)}+{usage.get('output_tokens', 0)} tokens"
    cost = f", {e['cost']} {e.get('currency') or ''}".rstrip() if e.get("cost") else ""
    failed = f" failed: {e.get('reason', '')} {_short(e.get('error', ''))}" if e.get("status") == "failed" else ""
    head = f"← {e.get('agent', '')}: {e.get('need', e.get('id', ''))} [{e.get('model', e.get('model_observed', ''))}, {tokens}{cost}]{failed}"
    return head + (f"\n          {_short(e['preview'])}" if e.get("preview") else "")


def _check(e: Event) -> str:
    if e.get("timed_out"):
        return f"check {e.get('name', '')}: timed out"
    return f"check {e.get('name', '')}: exit code {e.get('exit_code')}"


def _plan(e: Event) -> str:
    return f"plan: {e.get('author', '')} is the author. {_short(e.get('summary', ''))}"


def _vote(e: Event) -> str:
    return (
        f"vote {e.get('submission', '')}: {e.get('actor', e.get('agent', ''))} {e.get('vote', '')}. {_short(e.get('reason', ''))}"
    )


def _decision(e: Event) -> str:
    dissent = f", dissent: {', '.join(e['dissent'])}" if e.get("dissent") else ""
    return f"council: {e.get('decision', '')} ({e.get('for', 0)} for, {e.get('against', 0)} against{dissent})"


def _review(e: Event) -> str:
    return f"review {e.get('submission', '')}: {e.get('actor', '')} ({e.get('side', '')}) {e.get('verdict', '')}. {_short(e.get('summary', ''))}"


def _verdict(e: Event) -> str:
    shapes = f", shapes: {', '.join(e['shapes'])}" if e.get("shapes") else ""
    findings = "".join(f"\n          {_short(f)}" for f in e.get("findings", ()))
    return f"gate on submission {e.get('submission', '')}: {e.get('verdict', '')}{shapes}{findings}"


def _short(text: object) -> str:
    flat = " ".join(str(text).split())
    return flat if len(flat) <= MAX_TEXT else flat[: MAX_TEXT - 1] + "…"


_LINES: dict[str, Callable[[Event], str]] = {
    "session.accepted": lambda e: "session accepted",
    "session.order": lambda e: "",
    "session.phase": _phase,
    "task.sent": _sent,
    "task.result": _result,
    "check.result": _check,
    "probes.result": lambda e: (
        f"probes: {e.get('count', len(e.get('shapes', ())))} findings {', '.join(e.get('shapes', ()))}".rstrip()
    ),
    "council.plan": _plan,
    "council.vote": _vote,
    "council.decision": _decision,
    "gate.review": _review,
    "gate.verdict": _verdict,
    "gate.submission": lambda e: f"submission {e.get('submission', '')} by {e.get('actor', '')}",
    "gate.probe": lambda e: "",
    "gate.check": lambda e: "",
}
