"""A log held against the law map: for each clause the evidence found, and the gap in words. Used by `folkmoot ledger coverage`.

`Coverage.see` is what `audit.verify_log` tells each entry; nothing here is proved unless that verification held. It reads no
clock: the end of the time that is looked at is the last entry's, or what the caller says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from folkmoot_core.ledger.findings import Report
from folkmoot_core.ledger.law import CLAUSES, FLOOR_DAYS, Check, Clause
from folkmoot_core.ledger.scan import Entry, text

SILENCE = 900.0  # seconds without any entry that count as silence: three heartbeats missed
MAX_SHOWN = 5  # examples in a sentence
MAX_OPEN = 200_000  # sessions or calls that are followed at a time; a log with more is said to be too wide
ACTIONS = frozenset({
    "session.start", "session.end", "session.cancelled", "task.sent", "task.result", "council.plan", "council.vote", "council.decision",
    "gate.submission", "gate.probe", "gate.check", "gate.review", "gate.verdict", "model.call.intent", "model.call.outcome",
    "tool.call.intent", "tool.call.outcome",
})  # fmt: skip
REFUSED = frozenset({"Refused", "Rejected", "Revise", "refused", "denied"})


@dataclass
class Spread:
    """How often something was found, and where."""

    count: int = 0
    first: int = -1
    last: int = -1

    def add(self, index: int) -> None:
        """Once more, at this entry."""
        self.count += 1
        self.first = index if self.first < 0 else self.first
        self.last = index


@dataclass(frozen=True)
class Setting:
    """What the caller knows beside the log."""

    retention_days: int | None = None
    silence: float = SILENCE
    biometric: bool = False
    until: datetime | None = None
    """The present, for a live log: silence may last until now."""


@dataclass(frozen=True)
class Answer:
    """One clause's: `status` is `supported`, `gap` or `not applicable`."""

    clause: Clause
    status: str
    evidence: dict[str, Spread]
    found: tuple[str, ...]
    gaps: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "clause": self.clause.id, "asks": self.clause.asks, "supports": self.clause.supports, "status": self.status,
            "evidence": {k: {"count": s.count, "first": s.first, "last": s.last} for k, s in self.evidence.items()},
            "found": list(self.found), "gaps": list(self.gaps),
        }  # fmt: skip


@dataclass
class Coverage:
    """Sees each entry once, in order."""

    setting: Setting = Setting()
    kinds: dict[str, Spread] = field(default_factory=dict)
    configured: Spread = field(default_factory=Spread)
    unconfigured: Spread = field(default_factory=Spread)
    unknown_config: Spread = field(default_factory=Spread)
    committed: Spread = field(default_factory=Spread)
    refused: Spread = field(default_factory=Spread)
    without: Counter[str] = field(default_factory=Counter)
    """Kinds of actions that carry no configuration."""
    silences: list[tuple[int, float]] = field(default_factory=list)
    silent: int = 0
    anchor_gap: float = 0.0
    jumps: int = 0
    _digests: set[str] = field(default_factory=set)
    _sessions: dict[str, int] = field(default_factory=dict)
    _unstarted: Spread = field(default_factory=Spread)
    _calls: dict[str, int] = field(default_factory=dict)
    _time: datetime | None = None
    _anchored: datetime | None = None
    _next: int | None = None

    def see(self, index: int, entry: Entry, leaf: bytes) -> None:
        """The next entry."""
        kind = entry.kind
        self.kinds.setdefault(kind, Spread()).add(index)
        self.jumps += self._next is not None and index != self._next
        self._next = index + 1
        self._clock(index, entry, kind)
        if kind == "config.changed":
            self._digests |= {digest for digest in (text(entry.config), text(entry.facts.get("document"))) if digest}
        if kind in ACTIONS:
            self._action(index, entry, kind)
        if entry.commitment:
            self.committed.add(index)
        if not REFUSED.isdisjoint(
            {text(entry.facts.get("verdict")), text(entry.facts.get("folkmoot.outcome")), text(entry.facts.get("state"))}
        ):
            self.refused.add(index)

    def _clock(self, index: int, entry: Entry, kind: str) -> None:
        now = moment(entry.ce.recordedtime)
        if now is None:
            return
        if self._time is not None and (gone := (now - self._time).total_seconds()) > self.setting.silence:
            self._silence(index, gone)
        if kind == "anchor":
            since = self._anchored or self._time
            self.anchor_gap = max(self.anchor_gap, (now - since).total_seconds() if since else 0.0)
            self._anchored = now
        self._time = now

    def _silence(self, index: int, seconds: float) -> None:
        self.silent += 1
        if len(self.silences) < MAX_SHOWN:
            self.silences.append((index, seconds))

    def _action(self, index: int, entry: Entry, kind: str) -> None:
        digest = text(entry.config)
        if not digest:
            self.unconfigured.add(index)
            self.without[kind] += 1
        elif digest in self._digests:
            self.configured.add(index)
        else:
            self.unknown_config.add(index)
        if kind == "session.start" and len(self._sessions) < MAX_OPEN:
            self._sessions[entry.session] = index
        elif (
            kind in ("session.end", "session.cancelled")
            and self._sessions.pop(entry.session, None) is None
            and kind == "session.end"
        ):
            self._unstarted.add(index)
        call = _call(entry)
        if kind.endswith(".call.intent") and len(self._calls) < MAX_OPEN:
            self._calls[call] = index
        elif kind.endswith(".call.outcome"):
            self._calls.pop(call, None)

    # -- answers ----------------------------------------------------------------------------------------------------------

    def answers(self, report: Report) -> list[Answer]:
        """Each clause's, for a log whose verification gave this report."""
        return [self._answer(clause, report) for clause in CLAUSES]

    def _answer(self, clause: Clause, report: Report) -> Answer:
        if clause.only == "biometric" and not self.setting.biometric:
            return Answer(clause, "not applicable", {}, ("asked of remote biometric identification alone (Annex III, 1(a))",), ())
        evidence = {kind: self.kinds[kind] for kind in clause.kinds if kind in self.kinds}
        found: list[str] = []
        gaps: list[str] = []
        if not evidence and clause.kinds and clause.expected:
            gaps.append(f"no entry of any of these kinds: {', '.join(clause.kinds)}")
        for name in clause.checks:
            self._look(name, report, found, gaps)
        if clause.open:
            gaps.append(clause.open)
        return Answer(clause, "gap" if gaps else "supported", evidence, tuple(found), tuple(gaps))

    def _look(self, name: Check, report: Report, found: list[str], gaps: list[str]) -> None:
        _CHECKS[name](self, report, found, gaps)

    def _sequence(self, report: Report, found: list[str], gaps: list[str]) -> None:
        if not report.ok:
            gaps.append("the log does not verify: nothing below counts as evidence; see folkmoot verify")
        if self.jumps:
            gaps.append(f"entries could not be read at {self.jumps} places")
        elif report.checkpoint is not None:
            found.append(f"positions {report.pruned} to {report.checkpoint.size - 1} without a gap")

    def _heartbeat(self, report: Report, found: list[str], gaps: list[str]) -> None:
        silences, count = list(self.silences), self.silent
        open_ = "log.closed" not in self.kinds
        if self.setting.until is not None and self._time is not None and open_:
            gone = (self.setting.until - self._time).total_seconds()
            if gone > self.setting.silence:
                silences, count = [*silences, (self._next or 0, gone)], count + 1
        if count:
            shown = ", ".join(f"{seconds / 60:.0f} min before entry {index}" for index, seconds in silences[:MAX_SHOWN])
            gaps.append(f"{count} silences longer than {self.setting.silence / 60:.0f} min while the log was open: {shown}")
        else:
            found.append(f"no silence longer than {self.setting.silence / 60:.0f} min while the log was open")

    def _configuration(self, report: Report, found: list[str], gaps: list[str]) -> None:
        found.append(f"{self.configured.count} actions under a configuration that a config.changed entry introduced")
        if self.unknown_config.count:
            gaps.append(
                f"{self.unknown_config.count} actions carry a configuration that no config.changed entry before them introduced, "
                f"the first in entry {self.unknown_config.first}" + (" (it may be pruned)" if report.pruned else "")
            )
        if self.unconfigured.count:
            kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(self.without.items()))
            gaps.append(
                f"{self.unconfigured.count} actions carry no configuration, the first in entry {self.unconfigured.first}: {kinds}"
            )

    def _paired(self, report: Report, found: list[str], gaps: list[str]) -> None:
        started = self.kinds.get("session.start", Spread()).count
        found.append(f"{started - len(self._sessions)} of {started} sessions started and ended")
        if self._sessions:
            first = sorted(self._sessions.values())[:MAX_SHOWN]
            gaps.append(f"{len(self._sessions)} sessions have no end (they may still run), begun in entries {_list(first)}")
        if self._unstarted.count:
            gaps.append(f"{self._unstarted.count} sessions have an end and no start, the first in entry {self._unstarted.first}")

    def _retention(self, report: Report, found: list[str], gaps: list[str]) -> None:
        days = self.setting.retention_days
        if days is None:
            gaps.append("the log does not say how long it is kept: give the tenant's setting with --retention-days")
        elif days < FLOOR_DAYS:
            gaps.append(f"kept for {days} days; six months are {FLOOR_DAYS} days at most")
        else:
            found.append(f"kept for {days} days, at least {FLOOR_DAYS}")
        found.append(f"entries below {report.pruned} are pruned, as an entry says" if report.pruned else "nothing is pruned")

    def _keys(self, report: Report, found: list[str], gaps: list[str]) -> None:
        rotated = self.kinds.get("log.key.rotated", Spread()).count
        if "log.opened" not in self.kinds:
            gaps.append("entry 0, which names the log's keys, is not here")
        found.append(f"keys changed {rotated} times" if rotated else "the log's keys are those of its opening")

    def _anchors(self, report: Report, found: list[str], gaps: list[str]) -> None:
        count = self.kinds.get("anchor", Spread()).count
        if not count:
            gaps.append("no timestamp by a third party: when things happened rests on the cluster's clocks")
            return
        found.append(f"{count} timestamps, at most {self.anchor_gap:.0f} s apart; {len(report.anchors)} verified here")
        if not report.anchors:
            gaps.append("none of the timestamps was verified here")

    def _outcomes(self, report: Report, found: list[str], gaps: list[str]) -> None:
        called = sum(self.kinds.get(kind, Spread()).count for kind in ("model.call.intent", "tool.call.intent"))
        found.append(f"{called - len(self._calls)} of {called} announced calls have an outcome")
        if self._calls:
            gaps.append(
                f"{len(self._calls)} calls have no outcome, announced in entries {_list(sorted(self._calls.values())[:MAX_SHOWN])}"
            )

    def _commitments(self, report: Report, found: list[str], gaps: list[str]) -> None:
        found.append(
            f"{self.committed.count} entries commit to content, {report.erased} of these erased since, by {len(report.erasures)} erasures"
        )

    def _refusals(self, report: Report, found: list[str], gaps: list[str]) -> None:
        found.append(f"{self.refused.count} refusals")

    def _reads(self, report: Report, found: list[str], gaps: list[str]) -> None:
        counts = [self.kinds.get(kind, Spread()).count for kind in ("evidence.read", "evidence.exported")]
        found.append(f"{counts[0]} minutes with reads, {counts[1]} exports")

    def _holds(self, report: Report, found: list[str], gaps: list[str]) -> None:
        counts = [self.kinds.get(kind, Spread()).count for kind in ("legal.hold", "legal.hold.released")]
        found.append(f"{counts[0]} legal holds, {counts[1]} released")

    def _by_people(self, report: Report, found: list[str], gaps: list[str]) -> None:
        gaps.append("no entry of a decision by a person: this version records none")

    def _nothing(self, report: Report, found: list[str], gaps: list[str]) -> None:
        """A clause about documents."""


_CHECKS: dict[Check, Callable[[Coverage, Report, list[str], list[str]], None]] = {
    "sequence": Coverage._sequence, "heartbeat": Coverage._heartbeat, "configuration": Coverage._configuration,
    "sessions": Coverage._paired, "retention": Coverage._retention, "keys": Coverage._keys, "anchors": Coverage._anchors,
    "outcomes": Coverage._outcomes, "commitments": Coverage._commitments, "refusals": Coverage._refusals,
    "reads": Coverage._reads, "holds": Coverage._holds, "by-people": Coverage._by_people, "none": Coverage._nothing,
}  # fmt: skip


def moment(stamp: str) -> datetime | None:
    """An entry's time, or None for what is none."""
    try:
        found = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _call(entry: Entry) -> str:
    facts = entry.facts
    if "folkmoot.call_key" in facts:
        return f"{facts['folkmoot.call_key']}/{facts.get('folkmoot.run')}"
    return f"{facts.get('task')}/{facts.get('call')}/{text(facts.get('gen_ai.tool.call.id'))}"


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
