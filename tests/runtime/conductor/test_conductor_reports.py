"""What the operator hears: soon, whole, rising, and not lost while it was away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

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
