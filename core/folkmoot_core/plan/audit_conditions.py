"""`AuditReady` and `AuditAnchored` of a Tenant, from what its core reported of its log (`status.audit`). Pure: `now` comes in.

What a core says is its own: reasons that are not ours become `NotPublished`, and no message moves by itself (the age of the newest
timestamp is `status.audit.anchored`, which `kubectl get` shows as an age).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from folkmoot_core.conditions import Condition, false, true, unknown
from folkmoot_core.resources.audit import Timestamps

READY: Final = "AuditReady"
ANCHORED: Final = "AuditAnchored"
HELD: Final = frozenset({"ForkDetected", "WitnessUnavailable", "ClockSetBack", "PolicyNotMet", "VolumeFull", "LogDamaged"})
END_OF_TIME: Final = 253402300800.0  # the year 10000
HEARTBEAT_SECONDS: Final = 300  # the ledger's; heartbeats alone are not timestamped, and do not count here
LATE_TIMES: Final = 10  # cadences that may be missed before it is called late
LATE_SECONDS: Final = 900  # and never sooner than this: reports of numbers alone are minutes apart


def ready(audit: Mapping[str, Any], fork: str = "") -> Condition:
    """Whether the log answers and publishes. `fork`: what somebody else knows of another history of it."""
    message = str(audit.get("message") or "")
    reason = str(audit.get("reason") or "")
    if why := fork or str(audit.get("fork") or ""):
        return false(
            READY,
            "ForkDetected",
            f"{why}. Nothing more is believed of this log until a person has decided: docs/ledger-failures.md",
        )
    if not audit.get("vkey"):
        return unknown(READY, "NotReported", "the core has not reported its log")
    if audit.get("state") == "Frozen":
        return false(READY, reason if reason in HELD else "LogFrozen", message or "the log is frozen until a person has decided")
    if audit.get("state") == "Closed":
        return true(READY, "LogClosed", "the log is sealed; it can be read")
    if reason == "TermsNotKnown":
        return unknown(READY, "TermsNotKnown", message or "the core does not know yet which witness fences its log")
    if reason:
        return false(READY, reason if reason in HELD else "NotPublished", message or "no checkpoint is published")
    return true(READY, "LogAnswers")


def anchored(audit: Mapping[str, Any], timestamps: Timestamps, now: float) -> tuple[Condition, float | None]:
    """Whether somebody outside says when the log was written; and in how many seconds that may become untrue by itself."""
    if not timestamps.authorities:
        return unknown(ANCHORED, "NotConfigured", "spec.audit.timestamps names no authority: nobody outside says when"), None
    if not audit.get("vkey"):
        return unknown(ANCHORED, "NotReported", "the core has not reported its log"), None
    at, trouble = moment(str(audit.get("anchored") or "")), str(audit.get("unanchored") or "")
    if at is None:
        return false(ANCHORED, "NotTimestampedYet", trouble or "no authority has timestamped this log yet"), None
    limit, passed = late_after(timestamps), now - at
    if -passed > LATE_SECONDS:  # it would not be late for as long as it likes
        message = "the newest timestamp names a time that has not come (status.audit.anchored): look at the authority's clock, and at ours"
        return false(ANCHORED, "TimeAhead", message), None
    size, covered = int(audit.get("size") or 0), int(audit.get("anchoredSize") or 0)
    missed = size - covered - int(passed / HEARTBEAT_SECONDS) > timestamps.every_entries
    if passed > limit and (missed or (trouble and covered < size)):
        why = trouble or "the ledger gives no reason"
        return false(
            ANCHORED, "AnchorLate", f"the newest timestamp is older than {limit} s and does not cover the log: {why}"
        ), None
    left = limit - passed
    return true(ANCHORED, "Timestamped", "status.audit.anchored has the time of the newest timestamp"), left if left > 0 else None


def late_after(timestamps: Timestamps) -> int:
    """Seconds after which a timestamp that does not cover the log is called late."""
    return max(LATE_TIMES * timestamps.every_seconds, LATE_SECONDS)


def moment(text: str) -> float | None:
    """Epoch seconds of an RFC 3339 time with its offset, from 1970 to 9999, or None."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    at = found.timestamp() if found.tzinfo is not None else -1.0
    return at if 0 <= at < END_OF_TIME else None
