"""Conditions: nothing moves by itself, kstatus can read them, messages are bounded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot_core import conditions
from folkmoot_core.conditions import Condition, false, merge, summarize, true, unknown
from folkmoot_core.errors import Invalid

FIRST, LATER = "2026-01-01T00:00:00Z", "2026-06-01T00:00:00Z"


def test_the_time_moves_only_when_the_status_does() -> None:
    stored = merge(None, [true("Ready", "A")], generation=1, now=FIRST)
    same = merge(stored, [true("Ready", "B", "other words")], generation=2, now=LATER)
    assert same[0]["lastTransitionTime"] == FIRST
    assert (same[0]["reason"], same[0]["message"], same[0]["observedGeneration"]) == ("B", "other words", 2)
    moved = merge(same, [false("Ready", "C", "no")], generation=2, now=LATER)
    assert moved[0]["lastTransitionTime"] == LATER


def test_what_is_not_computed_stays_and_what_is_dropped_goes() -> None:
    stored = merge(None, [true("Ready", "A"), true("Conflict", "B")], generation=1, now=FIRST)
    kept = merge(stored, [true("Accepted", "A")], generation=2, now=LATER, drop=["Conflict"])
    assert [(c["type"], c["observedGeneration"]) for c in kept] == [("Accepted", 2), ("Ready", 1)]


def test_of_two_of_one_type_the_later_wins() -> None:
    merged = merge(None, [true("Accepted", "A"), false("Accepted", "Refused", "no")], generation=1, now=FIRST)
    assert [(c["type"], c["status"]) for c in merged] == [("Accepted", "False")]


CONDITIONS = st.builds(
    Condition,
    type=st.sampled_from(["Ready", "Accepted", "Stalled"]), status=st.sampled_from(["True", "False", "Unknown"]),
    reason=st.sampled_from(["A", "Bc"]), message=st.text(max_size=20),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(CONDITIONS, max_size=6), st.lists(CONDITIONS, max_size=6), st.integers(0, 9))
def test_merging_again_changes_nothing(stored: list[Condition], computed: list[Condition], generation: int) -> None:
    before = merge(None, stored, generation=1, now=FIRST)
    once = merge(before, computed, generation=generation, now=LATER)
    assert merge(once, computed, generation=generation, now="2027-01-01T00:00:00Z") == once


def test_ready_when_all_it_needs_is() -> None:
    found = {
        c.type: c.status for c in summarize([true("Accepted", "A"), true("ResolvedRefs", "B")], ["Accepted", "ResolvedRefs"])
    }
    assert found == {"Ready": "True", "Reconciling": "False", "Stalled": "False"}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (false("Accepted", "InvalidSpec", "wrong"), {"Ready": "False", "Reconciling": "False", "Stalled": "True"}),
        (false("Accepted", "PodsNotReady", "soon"), {"Ready": "False", "Reconciling": "True", "Stalled": "False"}),
        (unknown("Accepted", "NotReported", "soon"), {"Ready": "False", "Reconciling": "True", "Stalled": "False"}),
    ],
)
def test_not_ready_says_whether_waiting_helps(condition: Condition, expected: dict[str, str]) -> None:
    found = summarize([condition], ["Accepted"])
    assert {c.type: c.status for c in found} == expected
    assert found[0].reason == condition.reason
    assert found[0].message == condition.message


def test_what_is_not_known_yet_is_waited_for() -> None:
    found = summarize([], ["NamespaceReady"])
    assert (found[0].status, found[1].type, found[1].status) == ("False", "Reconciling", "True")
    assert "NamespaceReady" in found[0].message


def test_reasons_are_one_word() -> None:
    with pytest.raises(Invalid, match="CamelCase"):
        true("Ready", "not a word")


def test_messages_are_bounded_in_bytes() -> None:
    long = merge(None, [false("Ready", "A", "ä" * 5000)], generation=1, now=FIRST)[0]["message"]
    assert len(long.encode()) <= conditions.MAX_MESSAGE
    assert long.endswith("…")


def test_lookups() -> None:
    stored = merge(None, [true("Ready", "A")], generation=1, now=FIRST)
    assert conditions.is_true(stored, "Ready")
    assert not conditions.is_true(stored, "Accepted")
    assert not conditions.is_true(None, "Ready")
    assert conditions.get(stored, "Ready") == stored[0]
