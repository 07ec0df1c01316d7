"""What the operator remembers of a tenant's logs outside their volumes, and what a report means against that. wiring.md §7. Pure.

The second fence behind the witness: at anchor cadence size and root of the published checkpoint go to an object in the operator's
namespace. The operator's `fence` reads and writes it; this module decides.

Obligations of `weigh`, numbered at the steps: 1. a log's mark only ever grows; 2. one size has one root, in whatever order reports
arrive; 3. a smaller size is a fork only if it was asked for later than the mark's: a report that was under way for long is none;
4. what was once called a fork stays one for that log, and so does its mark; 5. another origin is another log, whose predecessors are
not forgotten: their number is bounded, and none makes room. The caller still owes: that the report is that tenant's core's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from pydantic import TypeAdapter, ValidationError

from folkmoot_core.canonical import canonical_json
from folkmoot_core.document import LogReport
from folkmoot_core.errors import Invalid, LimitReached

MAX_LOGS: Final = 16  # of one tenant; the witness has the same bound
MAX_WHY: Final = 1024
_ROOT: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Mark:
    """The largest published checkpoint that was seen of one log. `asked`: when its core said so, epoch seconds."""

    origin: str
    size: int
    root: str
    asked: int
    fork: str = ""
    """Why its history is not one; empty: it is."""


_MARKS: Final = TypeAdapter(tuple[Mark, ...])


@dataclass(frozen=True)
class Marks:
    """One tenant's logs, the oldest first."""

    logs: tuple[Mark, ...] = ()

    def of(self, origin: str) -> Mark | None:
        """The mark of a log."""
        return next((mark for mark in self.logs if mark.origin == origin), None)

    def text(self) -> str:
        """As the object holds it."""
        return canonical_json([vars(mark) for mark in self.logs]).decode()

    def _with(self, mark: Mark) -> Marks:
        if self.of(mark.origin) is not None:
            return Marks(tuple(mark if known.origin == mark.origin else known for known in self.logs))
        if len(self.logs) >= MAX_LOGS:  # 5
            raise LimitReached(
                f"the tenant has had {MAX_LOGS} logs already; one more is not fenced: look why its volume is lost so often"
            )
        return Marks((*self.logs, mark))


def read(text: str) -> Marks:
    """The marks in an object's text; raises `Invalid`."""
    try:
        logs = _MARKS.validate_json(text)
    except ValidationError as error:
        raise Invalid("marks of a tenant's logs: expected a JSON list of origin, size, root, asked, fork") from error
    for mark in logs:
        if mark.size <= 0 or not _ROOT.fullmatch(mark.root):
            raise Invalid(f"marks of a tenant's logs: {mark.origin[:80]!r} has no size and root")
    return Marks(logs)


def weigh(marks: Marks, report: LogReport, now: int) -> Marks:
    """The marks after a report that arrived at `now`; equal ones where it says nothing new. Raises `Invalid` for a report that is
    none, `LimitReached` for one log too many."""
    if report.size < 0 or (report.size > 0 and not _ROOT.fullmatch(report.root)):
        raise Invalid(f"log {report.origin[:80]!r}: a published checkpoint over {report.size} entries needs the hex of its root")
    asked = min(report.asked, now)  # a core's clock that is ahead must not make later reports look late
    mark = marks.of(report.origin)
    if mark is None:
        return marks._with(Mark(report.origin, report.size, report.root, asked)) if report.size else marks
    if mark.fork:  # 4
        return marks
    if report.size == mark.size and report.root != mark.root:  # 2
        return accuse(
            marks, report.origin, f"it has published two checkpoints over {mark.size} entries, {mark.root} and {report.root}"
        )
    if report.size < mark.size and asked > mark.asked:  # 3
        return accuse(
            marks, report.origin, f"it had published {mark.size} entries and shows {report.size}: the volume was rolled back"
        )
    if report.size > mark.size:  # 1
        return marks._with(replace(mark, size=report.size, root=report.root, asked=max(asked, mark.asked)))
    return marks


def accuse(marks: Marks, origin: str, why: str) -> Marks:
    """The same with that log called forked, by this module or by whoever else can prove it. The first reason stays."""
    mark = marks.of(origin)
    if mark is None:
        raise Invalid(f"log {origin[:80]!r}: expected one that was reported before")
    return marks if mark.fork else marks._with(replace(mark, fork=why[:MAX_WHY]))
