"""One leader: taken over only after expiry, lost in good time, given back at a clean end. Time is virtual."""

from __future__ import annotations

import asyncio

import pytest

from folkmoot_core.errors import Unavailable
from folkmoot_operator.fake_kube import FakeKube
from folkmoot_operator.kinds import LEASE
from folkmoot_operator.leader import NAME, Elector, LeaderLost

pytestmark = pytest.mark.looptime(start=0)


def elector(kube, name):
    return Elector(kube, "ns", name, lambda: f"t{asyncio.get_running_loop().time():.6f}")


@pytest.fixture
def kube():
    return FakeKube(namespaces=False)


async def hold(candidate):
    """Acquire, then keep; how it ended."""
    await candidate.acquire()
    await candidate.keep()


async def test_the_second_waits_until_the_first_is_silent_for_the_whole_duration(kube):
    first, second = elector(kube, "one"), elector(kube, "two")
    task = asyncio.create_task(hold(first))
    await asyncio.sleep(1)
    other = asyncio.create_task(hold(second))
    await asyncio.sleep(60)
    assert first.leading.is_set()
    assert not second.leading.is_set()
    task.cancel()  # killed: nothing is given back
    died = asyncio.get_running_loop().time()
    await second.leading.wait()
    waited = asyncio.get_running_loop().time() - died
    assert 13 <= waited <= 20
    assert kube.peek(LEASE, NAME, "ns")["spec"]["holderIdentity"] == "two"
    assert kube.peek(LEASE, NAME, "ns")["spec"]["leaseTransitions"] == 1
    other.cancel()


async def test_a_leader_that_cannot_renew_gives_up_before_anybody_may_take_over(kube):
    first = elector(kube, "one")
    task = asyncio.create_task(hold(first))
    await asyncio.sleep(5)
    kube.fail("update", Unavailable("down"), LEASE, times=10**6)
    silent = asyncio.get_running_loop().time()
    with pytest.raises(LeaderLost):
        await asyncio.wait_for(task, 100)
    assert asyncio.get_running_loop().time() - silent <= 12.5  # before the 15 s after which another may lead


async def test_a_short_outage_is_survived(kube):
    first = elector(kube, "one")
    task = asyncio.create_task(hold(first))
    await asyncio.sleep(5)
    kube.fail("update", Unavailable("down"), LEASE, times=3)
    await asyncio.sleep(60)
    assert not task.done()
    task.cancel()


async def test_a_lease_in_other_hands_is_lost_at_once(kube):
    first = elector(kube, "one")
    task = asyncio.create_task(hold(first))
    await asyncio.sleep(5)
    lease = kube.peek(LEASE, NAME, "ns")
    await kube.update(LEASE, {**lease, "spec": {**lease["spec"], "holderIdentity": "two"}})
    with pytest.raises(LeaderLost, match="two"):
        await asyncio.wait_for(task, 100)


async def test_two_at_once_make_one_leader(kube):
    both = [elector(kube, "one"), elector(kube, "two")]
    tasks = [asyncio.create_task(hold(candidate)) for candidate in both]
    await asyncio.sleep(30)
    assert sum(candidate.leading.is_set() for candidate in both) == 1
    for task in tasks:
        task.cancel()


async def test_a_clean_end_hands_over_at_once(kube):
    first, second = elector(kube, "one"), elector(kube, "two")
    task = asyncio.create_task(hold(first))
    other = asyncio.create_task(hold(second))
    await asyncio.sleep(5)
    task.cancel()
    await first.release()
    began = asyncio.get_running_loop().time()
    await second.leading.wait()
    assert asyncio.get_running_loop().time() - began <= 2.1
    other.cancel()
