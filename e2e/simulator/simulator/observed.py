"""What this process has seen and answered: the test's oracle for "no paid call twice", and the rules' counters.

Read through GET /_sim/calls and /_sim/counts. In memory, bounded, and without any content or key: a request is
its digest. Written by `app` only, from one event loop, so it needs no lock.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from simulator.faults import Fault
from simulator.model import ConversationKey

MAX_CALLS = 10_000
"""Calls, digests and conversations remembered; the oldest are forgotten first."""


@dataclass
class Call:
    """One call, filled in as it proceeds: a call that hangs is already listed."""

    n: int
    wire: str
    model: str
    request_sha256: str
    rule: str | None = None
    status: int | None = None
    """None while it is under way, and for ever when the connection was closed without an answer."""
    billed: bool = False
    """The model's reply was produced in full: a vendor would charge for it, delivered or not."""
    delivered: bool = False
    """The whole answer was written to a caller who had not gone."""


class Observed:
    """The record of calls, and `decide.Progress`. A reset is a new one, so that calls under way end in the old one."""

    def __init__(self) -> None:
        self._n = 0
        self._calls: deque[Call] = deque(maxlen=MAX_CALLS)
        self._billed_by_rule: Counter[str] = Counter()
        self._billed_by_request: OrderedDict[str, int] = OrderedDict()
        self._matched: Counter[str] = Counter()
        self._unmatched = 0
        self._billed = 0
        self.forget_progress()

    def forget_progress(self) -> None:
        """For a new scenario: rules start afresh, the record of calls stays."""
        self._occurrences: OrderedDict[tuple[str, ConversationKey], int] = OrderedDict()
        self._faults_used: Counter[str] = Counter()

    def opened(self, wire: str, model: str, request_sha256: str) -> Call:
        self._n += 1
        call = Call(self._n, wire, model, request_sha256)
        self._calls.append(call)
        return call

    def matched(self, call: Call, rule: str | None) -> None:
        call.rule = rule
        if rule is None:
            self._unmatched += 1
        else:
            self._matched[rule] += 1

    def billed(self, call: Call) -> None:
        call.billed = True
        self._billed += 1
        self._billed_by_rule[call.rule or ""] += 1
        self._billed_by_request[call.request_sha256] = self._billed_by_request.get(call.request_sha256, 0) + 1
        self._billed_by_request.move_to_end(call.request_sha256)
        if len(self._billed_by_request) > MAX_CALLS:
            self._billed_by_request.popitem(last=False)

    def occurrence(self, rule: str, conversation: ConversationKey) -> int:
        key = (rule, conversation)
        self._occurrences[key] = self._occurrences.get(key, 0) + 1
        self._occurrences.move_to_end(key)
        if len(self._occurrences) > MAX_CALLS:
            self._occurrences.popitem(last=False)
        return self._occurrences[key]

    def next_fault(self, rule: str, faults: Sequence[Fault]) -> Fault | None:
        used = self._faults_used[rule]
        if used >= len(faults):
            return None
        self._faults_used[rule] += 1
        return faults[used]

    def calls(self) -> list[dict[str, Any]]:
        return [asdict(call) for call in self._calls]

    def counts(self) -> dict[str, Any]:
        """`by_rule` and `by_request` count billed calls; a value above 1 in `by_request` is a call paid twice."""
        return {
            "calls": self._n,
            "billed": self._billed,
            "unmatched": self._unmatched,
            "by_rule": dict(self._billed_by_rule),
            "by_request": dict(self._billed_by_request),
            "matched_by_rule": dict(self._matched),
        }
