"""Up to which entry reading may end: never under 184 days, never under a hold, never back, whole bundles alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.document import AuditEntry
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import retention
from folkmoot_core.ledger.retention import DAY, State, follow
from folkmoot_core.ledger.tiles import ENTRIES, Tile


def entry(kind: str, producer: str, **data: Any) -> bytes:
    ce = {"type": f"dev.folkmoot.audit.{kind}.v1", "recordedtime": "2026-01-02T03:04:05.500000Z"}
    return json.dumps({"ce": ce, "obs": {"id": producer}, "data": data}).encode()


def found(times: list[float], state: State, published: int, now: float, days: int) -> int:
    search = retention.minimum_index(state, published, now, days)
    try:
        position = next(search)
        while True:
            assert state.minimum <= position < published
            position = search.send(times[position])
    except StopIteration as end:
        return int(end.value)


@pytest.mark.parametrize(("wanted", "kept"), [(0, 184), (1, 184), (183, 184), (184, 184), (366, 366), (4000, 4000)])
def test_the_floor_holds_whatever_a_document_says(wanted: int, kept: int) -> None:
    audit = AuditEntry(retention_days=wanted)
    assert (retention.kept_days(audit), retention.kept_seconds(audit)) == (kept, kept * DAY)
    times = [float(n * DAY) for n in range(2000)]
    assert found(times, State(), 2000, 1999.0 * DAY, wanted) == max(1999 - kept, 0) // 256 * 256


@given(
    st.lists(st.integers(0, 400), min_size=0, max_size=1500), st.integers(0, 500), st.integers(0, 5), st.integers(1, 400),
    st.integers(0, 1500),
)  # fmt: skip
def test_the_minimum_index(ages: list[int], today: int, before: int, days: int, published: int) -> None:
    times, size = [float(age * DAY) for age in sorted(ages)], min(published, len(ages))
    state = State(size, min(before * 256, size // 256 * 256))
    minimum = found(times, state, size, today * DAY, days)
    cutoff = (today - max(days, 184)) * DAY
    assert minimum % 256 == 0
    assert state.minimum <= minimum <= max(size, state.minimum)
    assert all(time < cutoff for time in times[state.minimum : minimum])
    if minimum + 256 <= size:  # and no bundle too few
        assert any(time >= cutoff for time in times[minimum : minimum + 256])
    assert found(times, state._replace(holds=frozenset({"h"})), size, today * DAY, days) == state.minimum


def test_a_clock_that_was_set_back_denies_nothing_inside_the_period() -> None:
    times = [0.0] * 512 + [400.0 * DAY] * 256 + [0.0] * 256
    times[500] = 399.0 * DAY
    assert found(times, State(), 1024, 500.0 * DAY, 184) in (0, 256)
    assert all(time < 316 * DAY for time in times[: found(times, State(), 1024, 500.0 * DAY, 184)])


def test_holds_and_prunings_are_read_from_the_log() -> None:
    state = State()
    for raw in (
        entry("legal.hold", "core/conductor", hold="h1"), entry("legal.hold", "core/conductor", hold="h2"),
        entry("legal.hold", "agents/ana", hold="h3"), entry("legal.hold.released", "core/conductor", hold="h1"),
        entry("legal.hold.released", "broker", hold="h2"), entry("session.end", "core/conductor", hold="h2", note="legal.hold"),
    ):  # fmt: skip
        state = follow(state, raw)
    assert state == State(6, 0, frozenset({"h2"}))
    at = state._replace(scanned=1000, minimum=256)
    assert follow(at, entry("retention.pruned", "core/ledger", minimum=512)).minimum == 512
    for kind, producer, minimum in (
        ("retention.pruned", "core/conductor", 512), ("retention.pruned", "core/ledger", 0), ("retention.pruned", "core/ledger", 2000),
        ("retention.pruned", "core/ledger", "512"), ("retention.pruned", "core/ledger", True), ("heartbeat", "core/ledger", 512),
    ):  # fmt: skip
        assert follow(at, entry(kind, producer, minimum=minimum)) == at._replace(scanned=1001)
    many = State(holds=frozenset(map(str, range(10_000))))
    with pytest.raises(Invalid, match="holds"):
        follow(many, entry("legal.hold", "core/conductor", hold="one more"))


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.text(max_size=5), st.lists, max_leaves=5).map(lambda v: json.dumps(v).encode())
)
def test_bytes_that_are_no_entry_move_nothing_else(raw: bytes) -> None:
    assert follow(State(5, 0), b"legal.hold" + raw) == State(6, 0)
    assert follow(State(5, 0), raw) == State(6, 0)
    with pytest.raises(Invalid):
        retention.recorded_time(raw)


def test_the_time_of_an_entry() -> None:
    assert retention.recorded_time(entry("heartbeat", "core/ledger")) == 1767323045.5


def test_bundles_are_denied_and_tiles_never() -> None:
    assert [retention.denied(512, Tile(ENTRIES, n)) for n in (0, 1, 2)] == [True, True, False]
    assert retention.denied(512, Tile(ENTRIES, 1, 3))  # part of what is denied
    assert not retention.denied(0, Tile(ENTRIES, 0, 1))
    assert not any(retention.denied(512, Tile(level, 0)) for level in (0, 1, 5))
