"""How long a log and its content are kept, and up to which entry reading may end. Pure: time and the log's facts come in.

tlog-tiles: "a log MAY have a minimum index; bundles and tiles whose end is at or below it need not be served". We stop serving
entry bundles and keep serving tiles (hashes alone), so that every proof about every entry still works. ledger.md §1.7, §4.4.

The rule, in this order; the numbers are at the steps: 1. never under 184 days (six months, whatever a document says: AI Act
Articles 19(1) and 26(6)); 2. nothing moves while a legal hold is in force, of whatever scope; 3. only entries below the published
checkpoint, so that what is denied is covered by a signature that readers have; 4. the minimum index is the first entry that was
recorded inside the period, and never goes back; 5. it is rounded down to whole bundles, because only those are denied; 6. the
move is an entry, `retention.pruned`, durable before anything is denied. The caller still owes 6.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from folkmoot_core.document import AuditEntry
from folkmoot_core.entries import TYPE_PREFIX
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.tiles import ENTRIES, WIDTH, Tile

FLOOR_DAYS: Final = 184  # 1
DAY: Final = 86_400
HELD: Final = f"{TYPE_PREFIX}legal.hold.v1"
RELEASED: Final = f"{TYPE_PREFIX}legal.hold.released.v1"
PRUNED: Final = f"{TYPE_PREFIX}retention.pruned.v1"
MARKS: Final = (b"legal.hold", b"retention.pruned")  # what an entry that matters here has somewhere in its bytes
_MAX_HOLDS: Final = 10_000


class State(NamedTuple):
    """What the log itself says, up to `scanned` entries."""

    scanned: int = 0
    minimum: int = 0
    holds: frozenset[str] = frozenset()


def kept_days(audit: AuditEntry) -> int:
    """Days that the tenant's log and content are kept."""
    return max(FLOOR_DAYS, audit.retention_days)  # 1


def kept_seconds(audit: AuditEntry) -> int:
    """The same in seconds."""
    return kept_days(audit) * DAY


def follow(state: State, entry: bytes) -> State:
    """The state after the next entry. Only the conductor's holds and the ledger's own prunings count; anything else moves
    `scanned` alone."""
    moved = state._replace(scanned=state.scanned + 1)
    if not any(mark in entry for mark in MARKS):
        return moved
    kind, producer, data = _parts(entry)
    hold = data.get("hold")
    if kind in (HELD, RELEASED) and producer == "core/conductor" and isinstance(hold, str):
        if kind == RELEASED:
            return moved._replace(holds=state.holds - {hold})
        if len(state.holds) >= _MAX_HOLDS:
            raise Invalid(f"more than {_MAX_HOLDS} legal holds are in force; release some")
        return moved._replace(holds=state.holds | {hold})
    minimum = data.get("minimum")
    if kind == PRUNED and producer == "core/ledger" and type(minimum) is int and state.minimum <= minimum <= state.scanned:
        return moved._replace(minimum=minimum)
    return moved


def minimum_index(state: State, published: int, now: float, days: int) -> Generator[int, float, int]:
    """Where the minimum index may move to; the present one where it may not. Yields positions and is sent the epoch seconds at
    which the ledger recorded them. Times rise with positions but for a clock that was set back: the search is by halves, and then
    every entry of the last bundle that would be denied is looked at, and the one before it as long as one is inside the period."""
    if state.holds:  # 2
        return state.minimum
    cutoff = now - max(FLOOR_DAYS, days) * DAY  # 1
    low, high = state.minimum, published  # 3
    while low < high:
        middle = (low + high) // 2
        if (yield middle) < cutoff:
            low = middle + 1
        else:
            high = middle
    minimum = low // WIDTH * WIDTH  # 5
    while minimum > state.minimum:
        inside = False
        for position in range(minimum - WIDTH, minimum):
            inside = (yield position) >= cutoff or inside
        if not inside:
            break
        minimum -= WIDTH  # 4
    return max(minimum, state.minimum)  # 4


def denied(minimum: int, tile: Tile) -> bool:
    """Whether a bundle ends at or below the minimum index. Tiles never are denied."""
    return tile.level == ENTRIES and tile.index * WIDTH + tile.width <= minimum


def recorded_time(entry: bytes) -> float:
    """Epoch seconds of an entry's `recordedtime`; raises `Invalid` for bytes that are no entry."""
    try:
        text = json.loads(entry)["ce"]["recordedtime"]
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Invalid("stored bytes are no ledger entry with a time of recording") from error


def _parts(entry: bytes) -> tuple[str, str, dict[str, object]]:
    try:
        value = json.loads(entry)
        kind, producer, data = value["ce"]["type"], value["obs"]["id"], value["data"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", "", {}
    return str(kind), str(producer), data if isinstance(data, dict) else {}
