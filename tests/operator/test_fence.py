"""The memory of logs outside their volumes: what is written when, through whichever replica, and what a fork leads to."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot_core import names
from folkmoot_core.document import LogReport, Report
from folkmoot_core.errors import Conflict, Unavailable
from folkmoot_core.ledger import marks
from folkmoot_core.ledger.note import Ed25519Signer
from folkmoot_operator.cache import Cache
from folkmoot_operator.fake_kube import FakeKube
from folkmoot_operator.fence import ANCHOR_SECONDS, Fence
from folkmoot_operator.kinds import CONFIG_MAP, NAMESPACE, TENANT, Key
from folkmoot_operator.report import ReportWriter
from folkmoot_operator.witness_client import SeenLog

SYSTEM = "folkmoot-system"
NS = "folkmoot-acme"
ORIGIN = "folkmoot/one"


class World:
    """A server, a Tenant, a clock, and replicas of the operator."""

    def __init__(self):
        self.kube, self.now = FakeKube(), 1000.0

    async def begin(self):
        for name in (SYSTEM, NS):
            await self.kube.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.tenant = await self.kube.create(TENANT, {"metadata": {"name": "acme"}, "spec": {}})
        self.kube.calls.clear()
        return self

    @property
    def uid(self):
        return self.tenant["metadata"]["uid"]

    def replica(self):
        return Fence(self.kube, SYSTEM, epoch=lambda: self.now)

    def stored(self):
        found = self.kube.peek(CONFIG_MAP, names.log_memory(self.uid), SYSTEM)
        return marks.read(found["data"]["logs"]) if found else None

    def writes(self):
        return [verb for verb, kind, _ in self.kube.writes if kind == CONFIG_MAP]


@pytest.fixture
async def world():
    return await World().begin()


def report(size, asked, history="true", origin=ORIGIN, **other):
    root = hashlib.sha256(f"{history} {size}".encode()).hexdigest() if size else ""
    vkey = Ed25519Signer.from_seed(origin, b"l" * 32).verifier().vkey()
    return LogReport(origin=origin, vkeys=(vkey,), size=size, root=root, asked=asked, **other)


async def test_a_growing_log_is_written_down_a_minute_apart(world):
    fence = world.replica()
    assert await fence.check(world.tenant, report(0, 1)) == ""
    assert world.stored() is None
    assert await fence.check(world.tenant, report(5, 2)) == ""
    assert world.stored().of(ORIGIN).size == 5
    for step in range(1, 10):
        world.now += 10
        await fence.check(world.tenant, report(5 + step, 2 + step))
    assert world.writes() == ["create", "patch"]
    assert world.stored().of(ORIGIN).size == 11
    for asked in range(30, 33):
        world.now += ANCHOR_SECONDS
        await fence.check(world.tenant, report(14, asked))
    assert world.writes() == ["create", "patch", "patch"]  # what did not grow costs nothing
    labels = world.kube.peek(CONFIG_MAP, names.log_memory(world.uid), SYSTEM)["metadata"]["labels"]
    assert names.LABEL_MANAGED_BY not in labels  # not watched


async def test_a_rolled_back_log_is_a_fork_for_every_replica_and_stays_one(world):
    one, two = world.replica(), world.replica()
    await one.check(world.tenant, report(9, 10))
    why = await two.check(world.tenant, report(4, 20, "other"))
    assert "rolled back" in why
    assert await one.check(world.tenant, report(30, 30, "other")) == ""  # its own memory is a minute old at most
    world.now += ANCHOR_SECONDS
    assert await one.check(world.tenant, report(31, 40, "other")) == why
    assert await world.replica().check(world.tenant, report(32, 50, "other")) == why
    assert world.stored().of(ORIGIN).size == 9


async def test_who_removes_the_object_is_heard(world):
    fence = world.replica()
    await fence.check(world.tenant, report(9, 10))
    assert await fence.check(world.tenant, report(4, 20, "other"))
    await world.kube.delete(CONFIG_MAP, Key(SYSTEM, names.log_memory(world.uid)))
    assert await fence.check(world.tenant, report(5, 30, "other")) == ""
    assert world.stored().of(ORIGIN).size == 5


async def test_what_somebody_wrote_into_the_object_is_no_obstacle(world):
    await world.replica().check(world.tenant, report(9, 10))
    await world.kube.patch(CONFIG_MAP, Key(SYSTEM, names.log_memory(world.uid)), {"data": {"logs": "nonsense"}})
    fence = world.replica()
    assert await fence.check(world.tenant, report(10, 20)) == ""
    assert world.stored().of(ORIGIN).size == 10


async def test_the_witnesss_proof_is_remembered_and_answers_the_next_report(world):
    fence = world.replica()
    await fence.check(world.tenant, report(9, 10))
    why = await fence.accuse(world.tenant, SeenLog(origin=ORIGIN, size=9, fork="note"))
    assert await fence.check(world.tenant, report(9, 20)) == why
    assert await fence.accuse(world.tenant, SeenLog(origin="folkmoot/never reported", size=9, fork="note"))


async def test_another_log_is_not_a_fork_and_one_too_many_stops_no_report(world):
    fence = world.replica()
    for number in range(marks.MAX_LOGS + 3):
        assert await fence.check(world.tenant, report(3, number, origin=f"folkmoot/{number}")) == ""
    assert len(world.stored().logs) == marks.MAX_LOGS


async def test_an_api_server_that_does_not_answer_is_the_reporters_business(world):
    world.kube.fail("get", Unavailable("down"), CONFIG_MAP)
    with pytest.raises(Unavailable):
        await world.replica().check(world.tenant, report(3, 1))
    world.kube.fail("create", Conflict("again"), CONFIG_MAP, times=99)
    with pytest.raises(Unavailable, match="send the report again"):
        await world.replica().check(world.tenant, report(3, 1))


@settings(max_examples=60, deadline=None)
@given(
    growth=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
    conflicts=st.integers(0, 4),
    lost=st.booleans(),
    steps=st.lists(st.sampled_from([0, 10, 61]), min_size=8, max_size=8),
)
def test_an_honest_log_is_never_called_forked_whichever_replica_is_told_what(growth, order, conflicts, lost, steps):
    async def scenario():
        world = await World().begin()
        replicas = [world.replica() for _ in range(3)]
        sizes = [sum(growth[: n + 1]) for n in range(len(growth))]
        reports = [report(size, asked) for asked, size in enumerate(sizes)] * 2
        order.shuffle(reports)
        world.kube.fail("patch", Conflict("changed"), CONFIG_MAP, times=conflicts)
        if lost:
            world.kube.fail("create", Unavailable("lost"), CONFIG_MAP, after_commit=True)
        for number, said in enumerate(reports):
            world.now += steps[number % len(steps)]
            try:
                assert await replicas[order.randrange(3)].check(world.tenant, said) == ""
            except Unavailable:
                assert await replicas[0].check(world.tenant, said) == ""
        stored = world.stored()
        assert stored is None or stored.of(ORIGIN).size in sizes

    asyncio.run(scenario())


@settings(max_examples=30, deadline=None)
@given(before=st.integers(2, 50), back=st.integers(1, 60), replica=st.booleans())
def test_a_rollback_ends_in_a_freeze_and_a_condition(before, back, replica):
    """The whole report path: status says it, the reporter is answered with it, and once frozen it is left alone."""

    async def scenario():
        world = await World().begin()
        fence = world.replica()
        writer = ReportWriter(world.kube, Cache(), lambda kind, key: None, fence)
        await writer.take(world.tenant, NS, Report(reporter="core", sequence=50, log=report(before, 10)))
        other = ReportWriter(world.kube, Cache(), lambda kind, key: None, world.replica() if replica else fence)
        rolled = report(max(0, before - back), 20, "other")
        with pytest.raises(Conflict) as told:
            await other.take(world.tenant, NS, Report(reporter="core", sequence=7, log=rolled))
        assert told.value.reason == "ForkDetected"
        assert world.kube.peek(TENANT, "acme")["status"]["audit"]["fork"] == told.value.message
        frozen = rolled.model_copy(update={"state": "Frozen", "reason": "ForkDetected"})
        await other.take(world.tenant, NS, Report(reporter="core", sequence=60, log=frozen))
        audit = world.kube.peek(TENANT, "acme")["status"]["audit"]
        assert (audit["state"], audit["fork"]) == ("Frozen", told.value.message)

    asyncio.run(scenario())
