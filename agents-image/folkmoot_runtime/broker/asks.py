"""What to do with a call that is asked for, given what the journal knows of it. Pure. wiring.md §7, runtime.md §6.2.

Policy for calls in doubt is `repeat-once`: a run whose fate is unknown may be followed by one more, on record; when that is
in doubt too, the call stays refused. Runs that provably were not billed do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from folkmoot_core.calls import CallAnswer
from folkmoot_runtime.broker.journal import Call

MAX_DOUBTS: Final = 2  # runs in doubt that one call may have: the first and its one repetition


@dataclass(frozen=True)
class Replay:
    """Stored: give it out, make no second call."""

    answer: CallAnswer


@dataclass(frozen=True)
class Run:
    """Make run number `number`; `prepared` when its intent is in the journal already."""

    number: int
    prepared: bool


@dataclass(frozen=True)
class Stay:
    """In doubt for good."""


def decide(call: Call | None) -> Replay | Run | Stay:
    """From the row, or None where there is none."""
    if call is None:
        return Run(1, prepared=False)
    if call.answer is not None:
        return Replay(call.answer)
    if call.doubts >= MAX_DOUBTS:
        return Stay()
    if call.state == "PREPARED":
        return Run(call.run, prepared=True)
    return Run(call.run + 1, prepared=False)
