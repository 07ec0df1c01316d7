"""When a log is timestamped, by which of its authorities, and which timestamps are kept. ledger.md §3.5; no clock, no I/O.

The rule for one authority, numbered here and at the steps: 1. only growth is timestamped: something was recorded since its newest
token that is more than an `anchor` entry or a heartbeat, or a silent log would be timestamped for ever; 2. it is due after so many
entries or so many seconds, whichever comes first, and never sooner than `SPACING` after its last token, however fast a log grows;
3. where a person demands it, any checkpoint larger than the last one signed will do, at once; 4. an authority that failed is asked
again after `FIRST_WAIT`, twice that after the next failure, and so on up to `LONGEST_WAIT`; 5. what is timestamped is the newest
checkpoint: after an outage or a restart one token catches up with all that was missed.

Of the tokens, all of the newest `ALL` are kept, one an hour of those before, as many as a year has hours, and one a day of the rest:
a token speaks for every entry below it, so that what was thinned out costs precision in the past and no evidence.
Times are seconds of a clock that never goes back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from folkmoot_core.entries import TYPE_PREFIX

SPACING: Final = 5.0
FIRST_WAIT: Final = 5.0
LONGEST_WAIT: Final = 900.0
ALL: Final = 2000  # more than verification looks at (anchored.NEWEST)
HOURS: Final = 366 * 24
QUIET: Final = frozenset(f"{TYPE_PREFIX}{kind}.v1" for kind in ("anchor", "anchor.failed", "heartbeat"))


@dataclass(frozen=True)
class Cadence:
    """How often a log is timestamped while it grows."""

    entries: int
    seconds: float


@dataclass(frozen=True)
class Standing:
    """One authority: how far it has signed, and how it has behaved since."""

    size: int = 0
    """Entries below its newest token; 0: it has none."""
    at: float = float("-inf")
    """When that token came."""
    failures: int = 0
    """In a row."""
    retry_at: float = float("-inf")


def due(standing: Standing, size: int, now: float, cadence: Cadence) -> bool:
    """Whether it is time to ask, if there was growth (`grown`). `size` is the newest checkpoint's."""
    if size <= standing.size or now < standing.retry_at or now < standing.at + SPACING:
        return False
    return size - standing.size >= cadence.entries or now - standing.at >= cadence.seconds  # 2


def grown(standing: Standing, newest: int) -> bool:
    """Whether there is something to timestamp; `newest` is the position of the last entry that counts, -1 for none. 1"""
    return newest >= standing.size


def demanded(standing: Standing, size: int) -> bool:
    """Whether it is asked on a person's demand. 3"""
    return size > standing.size


def counts(entry: bytes) -> bool:
    """Whether an entry is growth. What cannot be read is: then it is timestamped once too often."""
    try:
        return json.loads(entry)["ce"]["type"] not in QUIET
    except (ValueError, KeyError, TypeError, RecursionError):
        return True


def succeeded(size: int, now: float) -> Standing:
    """After a token over `size` entries that verified."""
    return Standing(size, now)


def failed(standing: Standing, now: float) -> Standing:
    """After an answer that is no token, or none. 4"""
    wait = min(FIRST_WAIT * 2.0 ** min(standing.failures, 30), LONGEST_WAIT)
    return replace(standing, failures=standing.failures + 1, retry_at=now + wait)


def surplus(tokens: Iterable[tuple[int, float]]) -> set[int]:
    """Of one authority's tokens, as size and epoch seconds, the sizes that are not kept."""
    gone: set[int] = set()
    hours: set[int] = set()
    days: set[int] = set()
    for rank, (size, when) in enumerate(sorted(tokens, reverse=True)):
        hour, day = int(when // 3600), int(when // 86_400)
        if rank < ALL:
            continue
        if len(hours) < HOURS and hour not in hours:
            hours.add(hour)
            days.add(day)
        elif day not in days:
            days.add(day)
        else:
            gone.add(size)
    return gone
