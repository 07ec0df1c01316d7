"""Places per provider: bounded, in order, and never lost."""

from __future__ import annotations

import asyncio

import pytest

from folkmoot_runtime.broker.slots import Slots


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_first_come_first_served_within_the_limit() -> None:
    slots, order, release = Slots(), list[int](), asyncio.Event()

    async def work(number: int) -> None:
        async with slots.hold("p", 2):
            order.append(number)
            await release.wait()

    tasks = [asyncio.create_task(work(number)) for number in range(6)]
    await settled()
    assert (order, slots.in_flight("p")) == ([0, 1], 2)
    release.set()
    await asyncio.gather(*tasks)
    assert order == list(range(6))
    assert slots.in_flight("p") == 0


async def test_lanes_are_independent_and_limits_may_change() -> None:
    slots = Slots()
    async with slots.hold("a", 1), slots.hold("b", 1):
        assert (slots.in_flight("a"), slots.in_flight("b"), slots.in_flight("c")) == (1, 1, 0)
        async with slots.hold("a", 2):  # raised while one is held
            assert slots.in_flight("a") == 2


@pytest.mark.parametrize("given_first", [False, True])
async def test_who_gives_up_waiting_takes_no_place_along(given_first: bool) -> None:
    slots, entered = Slots(), list[str]()

    async def work(name: str) -> None:
        async with slots.hold("p", 1):
            entered.append(name)

    holder = slots.hold("p", 1)
    await holder.__aenter__()
    waiter, last = asyncio.create_task(work("waiter")), asyncio.create_task(work("last"))
    await settled()
    if given_first:  # the place is given and the task is cancelled before it could run
        await holder.__aexit__(None, None, None)
        waiter.cancel()
    else:
        waiter.cancel()
        await settled()
        await holder.__aexit__(None, None, None)
    await asyncio.gather(waiter, last, return_exceptions=True)
    assert entered == ["last"]
    assert slots.in_flight("p") == 0
