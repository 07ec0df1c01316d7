"""What the operator hears: soon, whole, rising, and not lost while it was away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from folkmoot_core.document import LogReport
from folkmoot_core.entries import Actor, new_entry
from folkmoot_core.errors import Unavailable
from folkmoot_runtime.conductor import logwatch
from folkmoot_runtime.conductor.logwatch import MOVE_SECONDS
from folkmoot_runtime.conductor.reports import _fork

pytestmark = pytest.mark.looptime


async def test_a_session_is_reported_to_its_end(world: Any, make: Any) -> None:
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        ended = await world.ended(conductor)
        await world.until(lambda: any(s.phase == "Succeeded" for r in world.operator.reports for s in r.sessions), 5)
    reports = world.operator.reports
    assert [r.sequence for r in reports] == sorted({r.sequence for r in reports})
    assert reports[-1].document_digest == make.document().digest()
    assert reports[-1].vkey == world.ledger.log.vkey
    assert reports[-1].origin == world.ledger.log.origin
    assert [s for r in reports for s in r.sessions][-1] == ended


async def test_an_operator_that_was_away_hears_it_all_later(world: Any, make: Any) -> None:
    world.operator.away = True
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        await world.ended(conductor)
        await asyncio.sleep(600)
    assert not world.operator.reports
    async with world.running():
        await asyncio.sleep(5)
        world.operator.away = False
        await world.until(lambda: world.operator.reports, 60)
        first = world.operator.reports[-1]
        assert [(s.name, s.phase) for s in first.sessions] == [("review", "Succeeded")]
        await asyncio.sleep(130)
        assert len(world.operator.reports) >= 3  # every minute, though nothing changed
        assert not world.operator.reports[-1].sessions
    before = first.sequence
    async with world.running():
        await world.until(lambda: world.operator.reports[-1].sequence > before, 5)
        assert not world.operator.reports[-1].sessions  # acknowledged before the restart


async def test_what_happens_together_is_reported_together(world: Any, make: Any) -> None:
    world.replies["ana"] = lambda task: None
    async with world.running() as conductor:
        await asyncio.sleep(1)
        sent = len(world.operator.reports)
        await conductor.documents.put(make.document())
        for n in range(5):
            await conductor.sessions.accept(make.order(f"session-{n}", f"s{n}", "Agent", "ana"))
        await asyncio.sleep(1)
    later = world.operator.reports[sent:]
    assert len(later) <= 2
    assert {s.name for r in later for s in r.sessions} == {f"s{n}" for n in range(5)}


async def test_agents_are_alive_and_bound(world: Any, make: Any) -> None:
    document = make.document()
    ana = document.agents[0].identity.commitment

    def last(name: str) -> Any:
        return next(a for a in world.operator.reports[-1].agents if a.name == name)

    async with world.running() as conductor:
        await conductor.documents.put(document)
        await asyncio.sleep(1)
        assert (last("ana").alive, last("ana").identity_bound) == (False, False)
        conductor.presence.seen("ana", ana, "f" * 64)
        conductor.presence.seen("ben", "0" * 64)
        conductor.reporter.agents_changed()
        await asyncio.sleep(1)
        assert (last("ana").alive, last("ana").identity_bound, last("ana").key_fingerprint) == (True, True, "f" * 64)
        assert (last("ben").alive, last("ben").identity_bound) == (True, False)
        assert last("cyd").alive is False
        await asyncio.sleep(130)
        assert (last("ana").alive, last("ana").identity_bound) == (False, False)
        conductor.presence.seen("stranger", ana)
        assert {a.name for a in world.operator.reports[-1].agents} == set(make.agents)


def logs(world: Any) -> list[LogReport]:
    return [report.log for report in world.operator.reports if report.log is not None]


async def grow(world: Any, number: int) -> None:
    await world.ledger.append(
        new_entry("session.start", Actor(kind="service", id="conductor"), id=f"fact-{number:06d}", data={}, now=world.clock())
    )


async def test_the_log_is_in_the_reports(world: Any, make: Any) -> None:
    async with world.running():
        await world.until(lambda: logs(world), 10)
        first = logs(world)[-1]
        assert (first.origin, first.size, first.state) == (world.ledger.log.origin, world.ledger.log.size, "Open")
        assert first.asked == int(world.clock()) or first.asked == int(world.clock()) - 1
        assert world.operator.reports[-1].vkey == first.vkeys[0]


async def test_numbers_that_move_are_told_together_and_anything_else_soon(world: Any, make: Any) -> None:
    async with world.running():
        await world.until(lambda: logs(world), 10)
        sent = len(world.operator.reports)
        for number in range(50):
            await grow(world, number)
            await asyncio.sleep(1)
        assert 1 <= len(world.operator.reports) - sent <= 50 / MOVE_SECONDS + 2
        world.ledger.frozen = ("VolumeFull", "no room")
        await world.until(lambda: logs(world)[-1].reason == "VolumeFull", 10)


async def test_a_ledger_that_is_away_leaves_its_part_out(world: Any, make: Any) -> None:
    world.ledger.failing = Unavailable("away")
    async with world.running():
        await world.until(lambda: world.operator.reports, 10)
        assert not logs(world)
        world.ledger.failing = None
        await world.until(lambda: logs(world), 20)


async def test_a_log_of_which_the_operator_remembers_another_history_is_frozen(world: Any, make: Any) -> None:
    world.operator.fork = "it had published 9 entries and shows 4"
    async with world.running():
        await world.until(lambda: world.ledger.frozen, 20)
        assert world.ledger.frozen == ("ForkDetected", "it had published 9 entries and shows 4")
        await world.until(lambda: logs(world)[-1].state == "Frozen", 20)
        said = len(world.operator.reports)
        await asyncio.sleep(130)
        assert len(world.operator.reports) > said  # a report that was answered so was taken: the next ones follow as ever


async def test_the_freeze_is_tried_until_the_ledger_says_that_it_is(world: Any, make: Any) -> None:
    async with world.running() as conductor:
        await world.until(lambda: logs(world), 10)
        world.ledger.failing = Unavailable("away")
        conductor.watch.forked("another history")
        await asyncio.sleep(60)
        assert world.ledger.frozen is None
        world.ledger.failing = None
        await world.until(lambda: world.ledger.frozen, 20)


def test_what_is_news() -> None:
    before = LogReport(origin="o", size=4, root="a", entries=5, asked=100)
    assert logwatch.news(None, before)
    assert not logwatch.news(before, before.model_copy(update={"asked": 1000}))
    assert not logwatch.news(before, before.model_copy(update={"asked": 129, "size": 5}))
    assert logwatch.news(before, before.model_copy(update={"asked": 130, "size": 5}))
    assert logwatch.news(before, before.model_copy(update={"asked": 101, "witnessed": ("cluster",)}))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"type": "ForkDetected", "detail": "rolled back"}', "rolled back"),
        (b'{"type": "ForkDetected"}', ""),
        (b'{"type": "Conflict", "detail": "x"}', ""),
        (b"[]", ""),
        (b"\xff", ""),
    ],
)
def test_only_the_operators_word_about_a_fork_is_one(content: bytes, why: str) -> None:
    assert _fork(content) == why
