"""No start under a clock that was set back: what it recorded and signed would be in an order that did not happen. ledger.md §5.4.

The log's own times are held against the clock: the newest entry's `recordedtime`, and when the last checkpoint was signed. A
person who knows that the clock was wrong *then* and is right *now* says so in the file `clock`, and the log says so in an entry.
Who can write that file can write the whole volume; what it allows is limited to times that the log already holds.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Final

from folkmoot_core.entries import rfc3339
from folkmoot_core.errors import FolkmootError
from folkmoot_core.ledger import cosignature, note

FILE: Final = "clock"  # on the volume: up to which time the log's times are known to be wrong
TOLERANCE: Final = 10.0  # seconds: a step of NTP, the clock of another node
MAX_BYTES: Final = 100


class ClockSetBack(FolkmootError):
    """The clock says less than the log's own times."""

    reason = "ClockSetBack"


def refuse_set_back(directory: Path, last: bytes | None, published: bytes | None, origin: str, *, now: float) -> str:
    """Raises `ClockSetBack`, unless a person has said that the log's times are the wrong ones: then until when, else ''.

    `last` is the newest entry, None where it does not matter any more."""
    recorded = json.loads(last)["ce"]["recordedtime"] if last is not None else ""
    newest = {
        f"{directory}: its newest entry was recorded": _seconds(recorded) if recorded else 0.0,
        f"{directory}/checkpoint was signed": float(signed_at(published, origin)),
    }
    accepted = _accepted(directory / FILE)
    what, latest = max(newest.items(), key=lambda item: item[1])
    if latest <= max(now + TOLERANCE, _seconds(accepted) if accepted else 0.0):
        return accepted
    raise ClockSetBack(
        f"{what} at {rfc3339(latest)}, and the clock says {rfc3339(now)}: it was set back. Set it right, and the ledger starts. If it "
        f"is right now and was wrong then, write {rfc3339(latest)}, and nothing else, into the file {directory / FILE}: the log then "
        "goes on, says so in an entry, and removes the file"
    )


def signed_at(published: bytes | None, origin: str) -> int:
    """When a published checkpoint was signed, by the log's own ML-DSA-44 line; 0 where there is none."""
    if published is None:
        return 0
    lines = [line for line in note.split(published)[1] if line.name == origin]
    return max(
        (cosignature.timestamp(line.payload) for line in lines if len(line.payload) == note.SIGNATURE_BYTES[note.MLDSA44]),
        default=0,
    )


def _accepted(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
    try:
        return rfc3339(_seconds(text))
    except (ValueError, OverflowError):
        raise ClockSetBack(
            f"{path} says {text!r}; expected a time like {rfc3339(0)}, and nothing else. Correct it, or remove it"
        ) from None


def _seconds(stamp: str) -> float:
    found = datetime.fromisoformat(stamp)
    if found.tzinfo is None:
        raise ValueError(stamp)
    return found.timestamp()
