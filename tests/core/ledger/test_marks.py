"""The operator's memory of a log: an honest log never looks forked whatever happens to its reports, a rolled-back one always does."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.document import LogReport
from folkmoot_core.errors import Invalid, LimitReached
from folkmoot_core.ledger import marks
from folkmoot_core.ledger.marks import Mark, Marks

ORIGIN = "folkmoot/a"
LATER = 10_000
NOTHING = Marks()


def root(size: int, history: str = "true") -> str:
    return hashlib.sha256(f"{history} {size}".encode()).hexdigest() if size else ""


def said(size: int, asked: int, history: str = "true", origin: str = ORIGIN) -> LogReport:
    return LogReport(origin=origin, size=size, root=root(size, history), asked=asked)


def weighed(reports: list[LogReport], start: Marks = NOTHING) -> Marks:
    for report in reports:
        start = marks.weigh(start, report, LATER)
    return start


def fork(found: Marks, origin: str = ORIGIN) -> str:
    mark = found.of(origin)
    return mark.fork if mark else ""


GROWTH = st.lists(st.integers(0, 5), min_size=1, max_size=12)


@given(growth=GROWTH, data=st.data())
def test_an_honest_log_is_never_called_forked(growth: list[int], data: st.DataObject) -> None:
    """Reports lost, repeated, late and in any order: the log only grew, so nothing in them contradicts it."""
    sizes = [sum(growth[: n + 1]) for n in range(len(growth))]
    reports = [said(size, asked) for asked, size in enumerate(sizes)]
    arrived = data.draw(st.lists(st.sampled_from(reports), max_size=20))
    found = weighed(arrived)
    assert fork(found) == ""
    top = max((report.size for report in arrived), default=0)
    mark = found.of(ORIGIN)
    assert (mark.size if mark else 0) == top


@given(growth=GROWTH, back=st.integers(1, 20), rest=GROWTH)
def test_a_log_that_was_rolled_back_is_called_forked(growth: list[int], back: int, rest: list[int]) -> None:
    """Whatever the new history is: its first report below the mark, or beside it with another root, says so; and it stays said."""
    size = sum(growth) + 2
    found = weighed([said(size, 100)])
    smaller = max(0, size - back)
    forked = weighed([said(smaller, 101, "other")], found)
    assert "rolled back" in fork(forked)
    after = [said(size + sum(rest[: n + 1]), 102 + n, "other") for n in range(len(rest))]
    assert weighed([*after, said(size, 100)], forked) == forked


@given(size=st.integers(1, 50), asked=st.integers(0, 200))
def test_two_roots_of_one_size_are_a_fork_in_any_order(size: int, asked: int) -> None:
    for reports in ([said(size, 100), said(size, asked, "other")], [said(size, asked, "other"), said(size, 100)]):
        assert "two checkpoints" in fork(weighed(reports))


def test_a_report_that_was_under_way_for_long_is_no_fork() -> None:
    found = weighed([said(9, 50), said(7, 49), said(7, 50)])
    assert found == Marks((Mark(ORIGIN, 9, root(9), 50),))


def test_a_clock_that_is_ahead_makes_no_later_report_late() -> None:
    found = marks.weigh(Marks(), said(9, 9_999_999), 100)
    assert "rolled back" in fork(marks.weigh(found, said(4, 101), 101))


def test_another_origin_is_another_log_and_the_first_is_remembered() -> None:
    found = weighed([said(9, 50), said(2, 51, origin="folkmoot/b")])
    assert [mark.origin for mark in found.logs] == [ORIGIN, "folkmoot/b"]
    forked = weighed([said(3, 52)], found)
    assert fork(forked)
    assert not fork(forked, "folkmoot/b")


def test_the_number_of_logs_is_bounded_and_none_makes_room() -> None:
    full = weighed([said(1, n, origin=f"folkmoot/{n}") for n in range(marks.MAX_LOGS)])
    with pytest.raises(LimitReached):
        weighed([said(1, 99, origin="folkmoot/one more")], full)
    assert weighed([said(2, 99, origin="folkmoot/3")], full).of("folkmoot/0") is not None


def test_a_log_without_a_checkpoint_is_not_remembered() -> None:
    assert weighed([said(0, 1)]) == Marks()


@pytest.mark.parametrize("wrong", ["", "00", "Z" * 64, "AA" * 32])
def test_a_root_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(Invalid):
        marks.weigh(Marks(), LogReport(origin=ORIGIN, size=3, root=wrong), LATER)


def test_the_first_accusation_stays() -> None:
    found = weighed([said(9, 50)])
    once = marks.accuse(found, ORIGIN, "the witness knows another history")
    assert marks.accuse(once, ORIGIN, "another reason") == once
    with pytest.raises(Invalid):
        marks.accuse(found, "folkmoot/never reported", "why")


@given(
    st.lists(
        st.builds(Mark, st.text(max_size=20), st.integers(1, 2**53 - 1), st.just(root(1)), st.integers(0, 2**40), st.text()),
        max_size=5,
    )
)
def test_what_is_written_is_read_back(logs: list[Mark]) -> None:
    assert marks.read(Marks(tuple(logs)).text()) == Marks(tuple(logs))


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", '[{"origin": "a"}]', Marks((Mark("a", 0, root(1), 1),)).text(), Marks((Mark("a", 1, "x", 1),)).text()],
)
def test_what_somebody_else_wrote_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        marks.read(text)


def test_marks_of_one_log_do_not_share_state() -> None:
    first = weighed([said(1, 1)])
    weighed([said(2, 2)], first)
    assert first == Marks((replace(Mark(ORIGIN, 1, root(1), 1)),))
