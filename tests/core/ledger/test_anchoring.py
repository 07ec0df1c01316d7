"""The cadence of timestamps, in virtual time: every growth is signed in time, silence is not, and a dead authority is left alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.ledger import anchoring
from folkmoot_core.ledger.anchoring import ALL, FIRST_WAIT, HOURS, LONGEST_WAIT, SPACING, Cadence, Standing

CADENCE = Cadence(256, 60)


def entry(kind: str) -> bytes:
    return json.dumps(
        {"ce": {"type": f"dev.folkmoot.audit.{kind}.v1"}, "data": {"type": "dev.folkmoot.audit.anchor.v1"}}
    ).encode()


@dataclass
class World:
    """A log, an authority that is up or down, and what came of asking it each second, the answer's entry included."""

    up: bool = True
    now: float = 0.0
    entries: list[bool] = field(default_factory=lambda: [True])
    """Whether each counts."""
    standing: Standing = field(default_factory=Standing)
    asked: list[float] = field(default_factory=list)
    signed: list[tuple[float, int]] = field(default_factory=list)

    def second(self, demand: bool = False) -> None:
        self.now += 1
        size = len(self.entries)
        newest = next((position for position in reversed(range(size)) if self.entries[position]), -1)
        wanted = anchoring.due(self.standing, size, self.now, CADENCE) and anchoring.grown(self.standing, newest)
        if not (wanted or (demand and anchoring.demanded(self.standing, size))):
            return
        self.asked.append(self.now)
        if self.up:
            self.standing = anchoring.succeeded(size, self.now)
            self.signed.append((self.now, size))
            self.entries.append(False)  # the entry about it
        else:
            self.standing = anchoring.failed(self.standing, self.now)

    def seconds(self, count: int, grow: int = 0) -> None:
        for _ in range(count):
            self.entries += [True] * grow
            self.second()


def test_a_log_is_timestamped_when_it_is_born_and_then_only_while_it_grows() -> None:
    world = World()
    world.seconds(10_000)
    assert world.signed == [(1.0, 1)]


def test_heartbeats_and_anchors_alone_are_no_growth() -> None:
    world = World()
    for _ in range(100):
        world.entries.append(False)
        world.seconds(300)
    assert len(world.signed) == 1
    world.entries.append(True)
    world.second()
    assert len(world.signed) == 2
    assert [kind for kind in ("anchor", "anchor.failed", "heartbeat") if anchoring.counts(entry(kind))] == []
    assert all(anchoring.counts(entry(kind)) for kind in ("evidence.read", "gate.verdict", "log.closed", "anchor.x"))
    assert all(anchoring.counts(raw) for raw in (b"", b"{}", b"[" * 100_000, b'{"ce":{"type":[]}}'))


def test_slow_growth_is_signed_every_minute_and_fast_growth_every_so_many_entries() -> None:
    slow = World()
    slow.seconds(600, grow=1)
    assert [b - a for (a, _), (b, _) in zip(slow.signed, slow.signed[1:], strict=False)] == [60] * (len(slow.signed) - 1)
    fast = World()
    fast.seconds(600, grow=20)
    assert {b - a for (a, _), (b, _) in zip(fast.signed, fast.signed[1:], strict=False)} == {13}
    flood = World()
    flood.seconds(100, grow=1000)
    assert {b - a for (a, _), (b, _) in zip(flood.signed, flood.signed[1:], strict=False)} == {SPACING}


def test_one_that_is_away_is_asked_ever_more_seldom_and_one_token_catches_up() -> None:
    world = World(up=False)
    world.seconds(20_000, grow=1)
    gaps = [b - a for a, b in zip(world.asked, world.asked[1:], strict=False)]
    assert gaps[:4] == [FIRST_WAIT * 2**n for n in range(4)]
    assert max(gaps) == LONGEST_WAIT
    world.up = True
    size = len(world.entries)
    world.seconds(int(LONGEST_WAIT), grow=0)
    assert world.signed[0][1] == size
    assert len(world.signed) == 1
    assert world.standing.failures == 0


def test_a_demand_is_met_at_once_unless_there_is_nothing_new() -> None:
    world = World(up=False)
    world.seconds(100)
    world.up = True
    world.second(demand=True)
    assert world.signed == [(101.0, 1)]
    world.second(demand=True)
    assert world.signed[1:] == [(102.0, 2)]  # the entry about the first: a person asked for it
    world.entries.pop()
    world.second(demand=True)
    assert len(world.signed) == 2


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 400), st.integers(1, 90)), max_size=40))
def test_what_was_recorded_is_signed_within_the_cadence_while_the_authority_answers(steps: list[tuple[bool, int, int]]) -> None:
    world = World()
    waiting_since: float | None = None
    for up, grow, seconds in steps:
        world.up = up
        for second in range(seconds):
            world.entries += [True] * (grow if second == 0 else 0)
            world.second()
            counted = any(world.entries[world.standing.size :])
            fresh = world.up and counted and not world.standing.failures
            waiting_since = (waiting_since if waiting_since is not None else world.now) if fresh else None
            assert waiting_since is None or world.now - waiting_since <= CADENCE.seconds
            pending = len(world.entries) - world.standing.size
            assert not (fresh and pending >= CADENCE.entries and world.now - world.standing.at >= SPACING)
    assert all(b - a >= SPACING for a, b in zip(world.asked, world.asked[1:], strict=False))
    assert [size for _, size in world.signed] == sorted({size for _, size in world.signed})


@pytest.mark.parametrize("spacing", [1.0, 60.0, 4000.0])
def test_the_newest_tokens_are_kept_and_the_older_ones_thinned_out(spacing: float) -> None:
    tokens = [(n + 1, n * spacing) for n in range(30_000)]
    gone = anchoring.surplus(tokens)
    kept = [token for token in tokens if token[0] not in gone]
    assert kept[-ALL:] == tokens[-ALL:]
    assert not anchoring.surplus(kept)
    oldest_all = tokens[-ALL][1]
    assert {int(when // 3600) for _, when in kept} >= {
        int(when // 3600) for _, when in tokens if when >= oldest_all - HOURS * 3600
    }
    assert {int(when // 86_400) for _, when in kept} == {int(when // 86_400) for _, when in tokens}


def test_however_many_come_there_is_a_bound() -> None:
    tokens: list[tuple[int, float]] = []
    for n in range(120_000):
        tokens.append((n + 1, n * 600.0))
        if len(tokens) > ALL + HOURS + 2000:
            gone = anchoring.surplus(tokens)
            tokens = [token for token in tokens if token[0] not in gone]
    assert len(tokens) <= ALL + HOURS + 120_000 * 600 // 86_400 + 2000
