"""AuditReady and AuditAnchored: each thing a core can say of its log, and what time alone changes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.plan import audit_conditions
from folkmoot_core.resources.audit import TimestampAuthoritySpec, Timestamps

LOG = {"origin": "folkmoot/x", "vkey": "v", "state": "Open", "size": 10, "entries": 12}
AT = "2026-11-01T12:00:00Z"
NOW = audit_conditions.moment(AT) or 0.0
AUTHORITY = TimestampAuthoritySpec(name="tsa", url="https://tsa.example", certificates="x")
DOWN = LOG | {"anchored": AT, "unanchored": "tsa: no answer within 12 s"}
ASKED = Timestamps(authorities=(AUTHORITY,))


@pytest.mark.parametrize(
    ("audit", "fork", "status", "reason"),
    [
        ({}, "", "Unknown", "NotReported"),
        (LOG, "", "True", "LogAnswers"),
        (LOG | {"state": "Closed"}, "", "True", "LogClosed"),
        (LOG | {"reason": "TermsNotKnown", "message": "m"}, "", "Unknown", "TermsNotKnown"),
        (LOG | {"reason": "WitnessUnavailable", "message": "no cosignature of cluster"}, "", "False", "WitnessUnavailable"),
        (LOG | {"reason": "ClockSetBack", "message": "m"}, "", "False", "ClockSetBack"),
        (LOG | {"reason": "Ready"}, "", "False", "NotPublished"),
        (LOG | {"reason": "LogDamaged"}, "", "False", "LogDamaged"),
        (LOG | {"state": "Frozen", "reason": "ForkDetected", "message": "witness cluster"}, "", "False", "ForkDetected"),
        (LOG | {"state": "Frozen"}, "", "False", "LogFrozen"),
        (LOG | {"state": "Frozen", "reason": "not one word"}, "", "False", "LogFrozen"),
        (LOG | {"fork": "two checkpoints over 10 entries"}, "", "False", "ForkDetected"),
        (LOG, "the witness was shown another history", "False", "ForkDetected"),
        ({}, "the witness was shown another history", "False", "ForkDetected"),
    ],
)
def test_ready(audit: dict[str, Any], fork: str, status: str, reason: str) -> None:
    found = audit_conditions.ready(audit, fork)
    assert (found.type, found.status, found.reason) == ("AuditReady", status, reason)
    assert fork in found.message
    assert str(audit.get("message", "") if status == "False" else "") in found.message


@pytest.mark.parametrize(
    ("audit", "timestamps", "passed", "status", "reason"),
    [
        (LOG, Timestamps(), 0, "Unknown", "NotConfigured"),
        ({}, ASKED, 0, "Unknown", "NotReported"),
        (LOG, ASKED, 0, "False", "NotTimestampedYet"),
        (LOG | {"anchored": "yesterday"}, ASKED, 0, "False", "NotTimestampedYet"),
        (LOG | {"anchored": AT, "anchoredSize": 10}, ASKED, -900, "True", "Timestamped"),
        (LOG | {"anchored": AT, "anchoredSize": 10}, ASKED, -901, "False", "TimeAhead"),
        (DOWN | {"anchoredSize": 9}, ASKED, 900, "True", "Timestamped"),
        (DOWN | {"anchoredSize": 9}, ASKED, 901, "False", "AnchorLate"),
        (DOWN | {"anchoredSize": 10}, ASKED, 90_000, "True", "Timestamped"),
        (LOG | {"anchored": AT, "anchoredSize": 9}, ASKED, 90_000, "True", "Timestamped"),
        (LOG | {"anchored": AT, "size": 268}, ASKED, 3600, "True", "Timestamped"),
        (LOG | {"anchored": AT, "size": 269}, ASKED, 3600, "False", "AnchorLate"),
        (DOWN | {"anchoredSize": 9}, Timestamps(authorities=(AUTHORITY,), every_seconds=3600), 36_000, "True", "Timestamped"),
        (DOWN, Timestamps(authorities=(AUTHORITY,), every_seconds=3600), 36_001, "False", "AnchorLate"),
    ],
)  # fmt: skip
def test_anchored(audit: dict[str, Any], timestamps: Timestamps, passed: float, status: str, reason: str) -> None:
    found, _ = audit_conditions.anchored(audit, timestamps, NOW + passed)
    assert (found.type, found.status, found.reason) == ("AuditAnchored", status, reason)
    assert str(audit.get("unanchored", "") if status == "False" else "") in found.message


@given(st.integers(1, 86400), st.integers(0, 900_000))
def test_it_is_looked_at_again_when_time_alone_could_change_it(every: int, passed: int) -> None:
    timestamps = Timestamps(authorities=(AUTHORITY,), every_seconds=every)
    audit = DOWN | {"anchoredSize": 9}
    found, again = audit_conditions.anchored(audit, timestamps, NOW + passed)
    if found.status == "True" and again is not None:
        assert audit_conditions.anchored(audit, timestamps, NOW + passed + again)[0].status == "True"
        assert audit_conditions.anchored(audit, timestamps, NOW + passed + again + 1)[0].reason == "AnchorLate"
    else:
        assert passed >= audit_conditions.late_after(timestamps)


@given(
    st.dictionaries(st.sampled_from(["origin", "vkey", "state", "reason", "message", "fork", "anchored"]), st.text(max_size=300))
)
def test_whatever_a_core_says_is_a_condition(audit: dict[str, str]) -> None:
    assert audit_conditions.ready(audit).type == "AuditReady"
    assert audit_conditions.anchored(audit, ASKED, NOW)[0].type == "AuditAnchored"


@pytest.mark.parametrize("text", ["", "x", "2026-11-01T12:00:00", "9999999-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"])
def test_a_time_that_is_none(text: str) -> None:
    assert audit_conditions.moment(text) is None
