"""The queue: no key twice at once, none lost, changes before the resync, backoff within its bounds. Time is virtual."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot_operator.queue import BASE_DELAY, MAX_DELAY, Again, Priority, Queue, Retry, work

pytestmark = pytest.mark.looptime(start=0)


async def test_a_key_that_is_pending_is_there_once():
    queue = Queue[str]()
    for _ in range(5):
        queue.add("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    assert len(queue) == 0


async def test_a_key_that_is_running_runs_once_more_and_never_twice_at_once():
    queue = Queue[str]()
    running, most, runs = 0, 0, 0

    async def reconcile(_key):
        nonlocal running, most, runs
        running, runs = running + 1, runs + 1
        most = max(most, running)
        if runs == 1:
            queue.add("a")
            queue.add("a")
        await asyncio.sleep(1)
        running -= 1
        return Again()

    queue.add("a")
    task = asyncio.create_task(work(queue, reconcile, 8))
    await asyncio.sleep(10)
    task.cancel()
    assert (runs, most) == (2, 1)


async def test_changes_go_before_the_resync_which_still_ends():
    queue = Queue[str]()
    for n in range(20):
        queue.add(f"resync-{n}", Priority.RESYNC)
    for n in range(20):
        queue.add(f"change-{n}")
    order = []
    while len(queue):
        key = await queue.get()
        order.append(key)
        queue.done(key)
    assert sum(key.startswith("change") for key in order[:20]) >= 17
    assert any(key.startswith("resync") for key in order[:10])


async def test_a_resync_key_that_changes_is_promoted():
    queue = Queue[str]()
    queue.add("other", Priority.RESYNC)
    queue.add("a", Priority.RESYNC)
    queue.add("a")
    assert await queue.get() == "a"
    assert len(queue) == 1


async def test_of_several_wishes_to_come_back_the_earliest_stands():
    queue = Queue[str]()
    loop = asyncio.get_running_loop()
    queue.add_after("a", 100)
    queue.add_after("a", 10)
    queue.add_after("a", 50)
    assert await queue.get() == "a"
    assert loop.time() == pytest.approx(10)
    queue.done("a")
    await asyncio.sleep(200)
    assert queue.idle


@pytest.mark.looptime(False)
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(), failures=st.integers(1, 40))
def test_backoff_stays_within_its_bounds_and_starts_anew_after_a_success(seed, failures):
    async def scenario():
        queue = Queue[str](rng=random.Random(seed))
        delays = [queue.retry("a") for _ in range(failures)]
        for n, delay in enumerate(delays):
            assert BASE_DELAY <= delay <= min(MAX_DELAY, BASE_DELAY * 2 ** (n + 1))
        assert queue.retry("a", minimum=400) >= 400
        queue.forget("a")
        assert queue.retry("a") <= BASE_DELAY * 2

    asyncio.run(scenario())


async def test_failing_keys_are_retried_and_stop_nobody(caplog):
    queue = Queue[str]()
    runs = {"bad": 0, "wish": 0, "good": 0}

    async def reconcile(key):
        runs[key] += 1
        if key == "bad" and runs[key] < 4:
            raise RuntimeError("boom")
        if key == "wish" and runs[key] < 3:
            raise Retry(7)
        return Again(after=100) if key == "good" and runs[key] < 3 else Again()

    for key in runs:
        queue.add(key)
    task = asyncio.create_task(work(queue, reconcile, 2))
    await asyncio.sleep(1000)
    task.cancel()
    assert runs == {"bad": 4, "wish": 3, "good": 3}
    assert sum(record.message == "reconcile failed" for record in caplog.records) == 3


@pytest.mark.looptime(False)
@settings(max_examples=40, deadline=None)
@given(adds=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60), workers=st.integers(1, 4))
def test_nothing_that_was_asked_for_is_lost(adds, workers):
    """After the last `add` of a key there is always one more run that began later."""

    async def scenario():
        queue = Queue[int]()
        clock = 0
        added, began = {}, {}

        async def reconcile(key):
            nonlocal clock
            clock += 1
            began[key] = clock
            await asyncio.sleep(0)
            return Again()

        task = asyncio.create_task(work(queue, reconcile, workers))
        for key, low in adds:
            clock += 1
            added[key] = clock
            queue.add(key, Priority.RESYNC if low else Priority.CHANGED)
            if low:
                await asyncio.sleep(0)
        while not queue.idle:
            await asyncio.sleep(0)
        task.cancel()
        assert all(began[key] > when for key, when in added.items())

    asyncio.run(scenario())
