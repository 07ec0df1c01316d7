"""From a request that has been read to what shall be done about it: routing, control, and the record of calls.

Called by `server` once per request. Free of I/O and time: a delay or a hang is a field of the `Outcome`.
Looks at keys only to see that there is one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from simulator.decide import Decision, decide
from simulator.http1 import Head
from simulator.model import BadRequest, RequestSha256, Seen
from simulator.observed import Call, Observed
from simulator.scenario import Scenario, ScenarioError, load
from simulator.wire import Route, Wire, route

TAIL = 120
"""Characters of the last user text that an unmatched request's error shows: enough to write the missing rule."""


@dataclass(frozen=True)
class Outcome:
    """What the connection shall do, in this order: wait `delay`, hang or else bill and write, perhaps cut."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hang: float | None = None
    cut: bool = False
    billed: bool = False
    call: Call | None = None
    observed: Observed | None = None
    """The record that `call` belongs to; a reset in between must not count it in the new one."""


class App:
    """One simulated world: a scenario and what has been seen of it."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._observed = Observed()
        self._controls: dict[tuple[str, str], Callable[[bytes], Outcome]] = {
            ("GET", "/healthz"): lambda _: _json(200, {"status": "ok", "scenario": self._scenario.name}),
            ("GET", "/_sim/calls"): lambda _: _json(200, self._observed.calls()),
            ("GET", "/_sim/counts"): lambda _: _json(200, self._observed.counts()),
            ("POST", "/_sim/reset"): self._reset,
            ("PUT", "/_sim/scenario"): self._replace_scenario,
        }

    def handle(self, head: Head, body: bytes) -> Outcome:
        found = route(head.path)
        if found is not None and head.method == "POST":
            return self._model_call(found, head, body)
        control = self._controls.get((head.method, head.path))
        if control is not None:
            return control(body)
        if found is not None or any(path == head.path for _, path in self._controls):
            return _json(405, {"error": {"message": f"{head.method} is not allowed here"}})
        return _json(404, {"error": {"message": f"{head.path}: no such path in this simulator"}})

    def refuse(self, head: Head, status: int, message: str) -> Outcome:
        """For a request whose body could not be read: in the vendor's words where the path names one."""
        found = route(head.path)
        if found is None:
            return _json(status, {"error": {"message": message}})
        sha = _digest(found, found.model, b"")
        call = self._observed.opened(found.wire.NAME, found.model, sha)
        return self._error(found.wire, call, status, message)

    def _model_call(self, found: Route, head: Head, body: bytes) -> Outcome:
        document, problem = _parse_json(body)
        model = found.model or str(document.get("model", ""))
        sha = _digest(found, model, body)
        call = self._observed.opened(found.wire.NAME, model, sha)
        if not _has_key(head):
            return self._error(found.wire, call, 401, "no API key was sent")
        if problem is not None:
            return self._error(found.wire, call, 400, problem)
        try:
            if found.streaming:
                raise BadRequest("streaming is not simulated: ask without it")
            seen = replace(found.wire.parse(document, found.model), request_sha256=sha)
        except BadRequest as error:
            return self._error(found.wire, call, 400, str(error))
        decision = decide(self._scenario, seen, self._observed)
        self._observed.matched(call, decision.rule if decision else None)
        if decision is None:
            return self._error(found.wire, call, 400, _unmatched(self._scenario, seen))
        return self._outcome(found.wire, call, decision)

    def _outcome(self, wire: Wire, call: Call, decision: Decision) -> Outcome:
        fault = decision.fault
        if decision.answer is None:
            if fault is None or fault.status is None:
                return Outcome(0, b"", delay=decision.delay, hang=fault.hang if fault else None, call=call)
            refusal = self._error(wire, call, fault.status, fault.error_message, fault.retry_after)
            return replace(refusal, delay=decision.delay)
        body = json.dumps(wire.render(decision.answer)).encode()
        if fault is not None and fault.garbage:
            body = body[: len(body) // 2] + b"<html>upstream hiccup</html>"
        return Outcome(
            200,
            body,
            _headers(wire, call),
            delay=decision.delay,
            cut=fault is not None and fault.cut,
            billed=True,
            call=call,
            observed=self._observed,
        )

    def _error(self, wire: Wire, call: Call, status: int, message: str, retry_after: float | None = None) -> Outcome:
        headers = _headers(wire, call)
        request_id = headers[wire.REQUEST_ID_HEADER]
        if retry_after is not None:
            headers["retry-after"] = f"{retry_after:g}"
        body = json.dumps(wire.error(status, message, retry_after, request_id)).encode()
        return Outcome(status, body, headers, call=call)

    def _reset(self, _: bytes) -> Outcome:
        self._observed = Observed()
        return _json(200, {"status": "reset"})

    def _replace_scenario(self, body: bytes) -> Outcome:
        try:
            scenario = load(body.decode())
        except UnicodeDecodeError:
            return _json(422, {"problems": ["scenario: not UTF-8"]})
        except ScenarioError as error:
            return _json(422, {"problems": list(error.problems)})
        self._scenario = scenario
        self._observed.forget_progress()
        return _json(200, {"scenario": scenario.name, "rules": len(scenario.rules)})


def _json(status: int, value: Any) -> Outcome:
    body = json.dumps(value, indent=1).encode() + b"\n"
    return Outcome(status, body, {"content-type": "application/json"})


def _headers(wire: Wire, call: Call) -> dict[str, str]:
    return {"content-type": "application/json", wire.REQUEST_ID_HEADER: f"req_{call.request_sha256[:24]}"}


def _digest(found: Route, model: str, body: bytes) -> RequestSha256:
    """Over wire, model and the body's bytes: the body alone does not name Gemini's model."""
    # JSON may hold half a surrogate pair, which UTF-8 cannot.
    named = f"{found.wire.NAME}\n{model}\n".encode(errors="backslashreplace")
    return RequestSha256(hashlib.sha256(named + body).hexdigest())


def _parse_json(body: bytes) -> tuple[Mapping[str, Any], str | None]:
    """The body's object, or what is wrong with it."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}, "the body is not JSON"
    if not isinstance(document, dict):
        return {}, "the body is not a JSON object"
    return document, None


def _has_key(head: Head) -> bool:
    scheme, _, token = head.headers.get("authorization", "").partition(" ")
    bearer = scheme.lower() == "bearer" and bool(token.strip())
    return bearer or head.has_query_key or any(head.headers.get(name) for name in ("x-api-key", "x-goog-api-key"))


def _unmatched(scenario: Scenario, seen: Seen) -> str:
    return (
        f"no rule matches: scenario '{scenario.name}', wire {seen.wire}, model {seen.model}, turn {seen.turn}, "
        f"last user text ends with: {seen.last_user[-TAIL:]!r}"
    )
