"""Alive means that the watch brings back what was written, not that a port answers. Time is virtual."""

from __future__ import annotations

import asyncio

import pytest

from folkmoot_core.errors import Unavailable
from folkmoot_operator.cache import Cache
from folkmoot_operator.fake_kube import FakeKube
from folkmoot_operator.health import Health
from folkmoot_operator.kinds import CONFIG_MAP, key_of
from folkmoot_operator.metrics import Metrics

pytestmark = pytest.mark.looptime(start=0)


@pytest.fixture
async def rig():
    kube, cache = FakeKube(namespaces=False), Cache()
    health = Health(kube, cache, Metrics(), "ns", "Pod-0")
    watching = [True]

    def seen(_event, kind, obj):
        if watching[0] and kind == CONFIG_MAP and key_of(obj) == health.key:
            health.seen(obj)

    kube.watch(seen)
    cache.filled.set()
    task = asyncio.create_task(health.run())
    yield kube, health, watching
    task.cancel()


async def test_well_while_heartbeats_come_back(rig):
    kube, health, _ = rig
    await asyncio.sleep(3600)
    assert health.unwell() == ""
    assert len(kube.writes) > 100


async def test_a_watch_that_falls_silent_is_noticed_and_one_that_recovers_is_well(rig):
    _, health, watching = rig
    await asyncio.sleep(100)
    watching[0] = False
    await asyncio.sleep(150)
    assert health.unwell() == ""
    await asyncio.sleep(100)
    assert "has not come back" in health.unwell()


async def test_an_api_server_that_is_away_is_no_reason_to_die(rig):
    kube, health, _ = rig
    await asyncio.sleep(100)
    kube.fail("apply", Unavailable("down"), times=10**6)
    await asyncio.sleep(3600)
    assert health.unwell() == ""


async def test_ready_needs_the_cache_and_the_endpoint_but_no_leadership(rig):
    _, health, _ = rig
    assert not health.ready()
    health.endpoint_up = True
    assert health.ready()


async def test_the_canary_goes_with_its_replica(rig):
    kube, health, _ = rig
    await asyncio.sleep(1)
    assert kube.peek(CONFIG_MAP, "folkmoot-canary-pod-0", "ns")
    await health.remove()
    assert kube.peek(CONFIG_MAP, "folkmoot-canary-pod-0", "ns") is None
