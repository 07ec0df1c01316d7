"""A crash at every transaction, before and after it is on disk: the same outcome, nothing asked again whose answer was stored."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from typing import Any

import pytest

pytestmark = pytest.mark.looptime


def stored_answers(world: Any) -> set[str]:
    """Tasks whose answer is in the database file right now."""
    with sqlite3.connect(world.directory / "conductor.sqlite") as db:
        try:
            return {f"{session}/{need}" for session, need in db.execute("SELECT session, id FROM needs WHERE answer IS NOT NULL")}
        except sqlite3.OperationalError:
            return set()  # not even the tables are there yet
        finally:
            db.rollback()


def sent_tasks(world: Any) -> list[str]:
    """Every task that the conductor put on the bus, repetitions included."""
    return [json.loads(e.body)["task"] for e in world.sent if e.kind == "task"]


async def until_crash_or_end(world: Any, conductor: Any, store: Any) -> bool:
    """Whether it crashed before the session ended."""
    ended = asyncio.create_task(world.ended(conductor))
    crashed = asyncio.create_task(store.crashed.wait())
    await asyncio.wait({ended, crashed}, return_when=asyncio.FIRST_COMPLETED)
    for task in (ended, crashed):
        task.cancel()
    await asyncio.gather(ended, crashed, return_exceptions=True)
    return store.crashed.is_set()


async def one_life(world: Any, make: Any, at: int, *, after: bool) -> bool:
    """Run with a crash at transaction `at`; the operator repeats what it was not answered. Whether it crashed."""
    store = world.store(at, after=after)
    try:
        async with world.running(store) as conductor:
            await conductor.documents.put(make.document())
            await conductor.sessions.accept(make.order())
            return await until_crash_or_end(world, conductor, store)
    except make.crash:
        return True


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_every_transaction_may_be_the_last(world: Any, make: Any, tmp_path: Any, after: bool) -> None:
    """One crash per run, at each transaction in turn, until a run is too short to reach it."""
    seen: set[str] = set()
    for at in range(1, 400):
        again = type(world)(tmp_path / f"{at}")
        crashed = await one_life(again, make, at, after=after)
        answered, sent = stored_answers(again), len(sent_tasks(again))
        async with again.running() as conductor:
            await conductor.documents.put(make.document())
            await conductor.sessions.accept(make.order())
            report = await again.ended(conductor)
        assert not answered & set(sent_tasks(again)[sent:])
        for agent in again.agents.values():
            assert len(agent.worked) == len(set(agent.worked))
        assert (report.phase, report.reason, report.result_preview) == ("Succeeded", "Decided", "plan done: vote done; vote done")
        assert (report.input_tokens, report.votes_for, report.cost) == (21, 2, "0.03")
        types = again.ledger.types(make.uid)
        assert sorted(types) == sorted(
            ["session.start", "council.plan", "council.decision", "gate.verdict", "session.end"]
            + ["task.sent", "task.result"] * 3
        )
        assert (types[0], types[-1]) == ("session.start", "session.end")
        seen.add(report.phase)
        await again.aclose()
        if not crashed:
            break
    else:
        pytest.fail("the session never fitted into 400 transactions")
    assert at > 40
    assert seen == {"Succeeded"}


@pytest.mark.parametrize("every", [3, 7, 11])
async def test_crashing_again_and_again_still_ends(world: Any, make: Any, every: int) -> None:
    """A process that lives for a few transactions only gets the session through, a little in each life."""
    lives = 0
    budget = least = 34  # transactions: what reading back takes, and a step
    while await one_life(world, make, budget, after=bool(lives % 2)):
        lives += 1
        budget = least + every * (lives % 3)
        assert lives < 60
    async with world.running() as conductor:
        report = await world.ended(conductor)
    assert report.phase == "Succeeded"
    assert lives > 0
    for agent in world.agents.values():
        assert len(agent.worked) == len(set(agent.worked))
