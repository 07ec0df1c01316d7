"""An older report never overwrites a newer one, whichever replica it comes through and whatever the API server answers."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from folkmoot_core.document import AgentReport, LogReport, ProviderReport, Report, SessionReport
from folkmoot_core.errors import Conflict, Invalid, Unavailable
from folkmoot_core.ledger.cosignature import MlDsaSigner
from folkmoot_core.ledger.note import Ed25519Signer
from folkmoot_operator.cache import Cache
from folkmoot_operator.fake_kube import FakeKube
from folkmoot_operator.kinds import AGENT, NAMESPACE, SESSION, TENANT, Key
from folkmoot_operator.report import MOVE_SECONDS, ReportWriter, duration

NS = "folkmoot-acme"


async def made():
    """A server with one Tenant, Agent and Session."""
    kube = FakeKube()
    await kube.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
    tenant = await kube.create(TENANT, {"metadata": {"name": "acme"}, "spec": {}})
    await kube.create(AGENT, {"metadata": {"name": "a", "namespace": NS}, "spec": {}})
    session = await kube.create(SESSION, {"metadata": {"name": "s", "namespace": NS}, "spec": {}})
    return kube, tenant, session["metadata"]["uid"]


def replica(kube, *, stale=()):
    """A writer with a cache of its own, filled with what `stale` says or with nothing."""
    cache = Cache()
    for kind, obj in stale:
        cache.put(kind, obj)
    return ReportWriter(kube, cache, lambda kind, key: None)


def session_report(uid, sequence):
    phase = "Running" if sequence < 6 else "Succeeded"
    return SessionReport(uid=uid, name="s", generation=1, sequence=sequence, phase=phase, message=f"at {sequence}")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrivals=st.lists(st.tuples(st.integers(1, 8), st.integers(0, 2)), min_size=1, max_size=14),
    conflicts=st.integers(0, 5),
    lost=st.booleans(),
)
def test_the_newest_session_report_wins_in_any_order(arrivals, conflicts, lost):
    async def scenario():
        kube, _tenant, uid = await made()
        first = kube.peek(SESSION, "s", NS)
        replicas = [replica(kube, stale=[(SESSION, first)]) for _ in range(3)]
        kube.fail("apply", Conflict("changed"), SESSION, times=conflicts)
        if lost:
            kube.fail("apply", Unavailable("lost"), SESSION, after_commit=True)
        top = 0
        for sequence, through in arrivals:
            try:
                await replicas[through].session(NS, session_report(uid, sequence))
            except Unavailable:
                await replicas[(through + 1) % 3].session(NS, session_report(uid, sequence))  # the reporter tries another
            top = max(top, sequence)
            status = kube.peek(SESSION, "s", NS)["status"]
            assert (status["sequence"], status["message"]) == (top, f"at {top}")

    asyncio.run(scenario())


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(list(range(1, 7))))
def test_concurrent_reports_through_two_replicas_end_with_the_newest(order):
    async def scenario():
        kube, _tenant, uid = await made()
        replicas = [replica(kube), replica(kube)]
        await asyncio.gather(*(replicas[n % 2].session(NS, session_report(uid, n)) for n in order))
        assert kube.peek(SESSION, "s", NS)["status"]["sequence"] == 6

    asyncio.run(scenario())


async def test_a_report_about_another_object_of_the_same_name_changes_nothing():
    kube, _tenant, _uid = await made()
    await replica(kube).session(NS, session_report("another-uid", 3))
    await replica(kube).session(NS, SessionReport(uid="x", name="gone", generation=1, sequence=1, phase="Running"))
    assert "status" not in kube.peek(SESSION, "s", NS)


async def test_core_and_broker_keep_their_own_fields_and_partial_reports_change_nothing_else():
    kube, tenant, _uid = await made()
    writer = replica(kube)
    await writer.take(tenant, NS, Report(reporter="core", sequence=1, vkey="k", origin="o", document_digest="sha256:d"))
    await writer.take(tenant, NS, Report(reporter="broker", sequence=7, providers=(ProviderReport(name="p", available=True),)))
    await writer.take(tenant, NS, Report(reporter="core", sequence=2, document_digest="sha256:e"))
    status = kube.peek(TENANT, "acme")["status"]
    assert status["audit"] == {"origin": "o", "vkey": "k"}
    assert status["reportedDocument"] == "sha256:e"
    assert status["providers"] == [{"name": "p", "available": True}]
    assert {r["name"]: r["sequence"] for r in status["reporters"]} == {"core": 2, "broker": 7}
    await writer.take(tenant, NS, Report(reporter="core", sequence=1, document_digest="sha256:old"))
    assert kube.peek(TENANT, "acme")["status"]["reportedDocument"] == "sha256:e"


async def test_a_report_without_news_is_no_write():
    kube, tenant, _uid = await made()
    writer = replica(kube)
    agents = (AgentReport(name="a", alive=True, identity_bound=True, commitment="c"),)
    await writer.take(tenant, NS, Report(reporter="core", sequence=1, vkey="k", origin="o", agents=agents))
    kube.calls.clear()
    await writer.take(tenant, NS, Report(reporter="core", sequence=2, vkey="k", origin="o", agents=agents))
    assert kube.writes == []
    unbound = (AgentReport(name="a", alive=True, identity_bound=False),)
    await writer.take(tenant, NS, Report(reporter="core", sequence=3, agents=unbound))
    assert "boundCommitment" not in kube.peek(AGENT, "a", NS)["status"]


async def test_a_new_log_counts_from_one_again():
    kube, tenant, _uid = await made()
    writer = replica(kube)
    await writer.take(tenant, NS, Report(reporter="core", sequence=90, vkey="k", origin="o"))
    await writer.take(tenant, NS, Report(reporter="core", sequence=1, vkey="k2", origin="o2"))
    assert kube.peek(TENANT, "acme")["status"]["audit"]["origin"] == "o2"


async def test_endless_conflicts_are_the_reporters_business():
    kube, _tenant, uid = await made()
    kube.fail("apply", Conflict("changed"), SESSION, times=99)
    with pytest.raises(Unavailable):
        await replica(kube).session(NS, session_report(uid, 1))


async def test_it_writes_no_conditions():
    kube, _tenant, uid = await made()
    await replica(kube).session(NS, session_report(uid, 1))
    assert "conditions" not in kube.peek(SESSION, "s", NS)["status"]
    assert kube.calls[-1] == ("apply", SESSION, Key(NS, "s"))


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [("2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z", "9s"), ("2026-01-01T00:00:00Z", "2026-01-01T02:00:01Z", "2h0m1s"),
     ("", "2026-01-01T00:00:09Z", None), ("x", "y", None), ("2026-01-01T00:00:00", "2026-01-01T00:00:09Z", None)],
)  # fmt: skip
def test_duration(start, end, text):
    assert duration(start, end) == text


async def test_the_broker_has_no_word_on_sessions_and_agents():
    kube, tenant, uid = await made()
    forged = (session_report(uid, 9), AgentReport(name="a", alive=True, identity_bound=True, commitment="c"))
    for parts in ({"sessions": forged[:1]}, {"agents": forged[1:]}):
        with pytest.raises(Invalid):
            await replica(kube).take(tenant, NS, Report(reporter="broker", sequence=1, **parts))
    assert "status" not in kube.peek(SESSION, "s", NS)
    assert "status" not in kube.peek(AGENT, "a", NS)


ORIGIN = "folkmoot/00000000-0000-4000-8000-000000000001"
VKEYS = (
    Ed25519Signer.from_seed(ORIGIN, b"l" * 32).verifier().vkey(),
    MlDsaSigner.from_seed(ORIGIN, b"m" * 32).verifier().vkey(),
)


def log_report(**other):
    said = {"origin": ORIGIN, "vkeys": VKEYS, "size": 9, "root": "ab" * 32, "entries": 9, "witnessed": ("cluster",), "asked": 1}
    return LogReport(**{**said, **other})


def core(sequence, log=None, **other):
    return Report(reporter="core", sequence=sequence, vkey=VKEYS[0], origin=ORIGIN, log=log, **other)


class Memory:
    """Remembers logs, as `fence.Fence` does; says of them what a test wants."""

    def __init__(self, fork=""):
        self.fork, self.told = fork, []

    async def seen(self, tenant, report):
        self.told.append((tenant["metadata"]["name"], report.size))
        return self.fork


def audit_of(kube):
    return kube.peek(TENANT, "acme")["status"]["audit"]


async def test_what_the_core_says_of_its_log_is_in_status_and_stays_without_news():
    kube, tenant, _uid = await made()
    writer = replica(kube)
    anchored = {"anchored": "2026-11-01T12:00:00+02:00", "anchored_size": 8}
    await writer.take(tenant, NS, core(1, log_report(**anchored)))
    told = {
        "origin": ORIGIN, "vkey": VKEYS[0], "vkeys": list(VKEYS), "size": 9, "root": "ab" * 32, "entries": 9, "state": "Open",
        "witnessed": ["cluster"], "anchored": "2026-11-01T10:00:00Z", "anchoredSize": 8,
    }  # fmt: skip
    assert audit_of(kube) == told
    await writer.take(tenant, NS, core(2, document_digest="sha256:d"))
    assert audit_of(kube) == told
    await writer.take(tenant, NS, core(3, log_report(anchored="tomorrow", anchored_size=8, state="Closed")))
    assert not {"anchored", "anchoredSize"} & audit_of(kube).keys()


async def test_numbers_that_only_move_are_written_from_time_to_time_and_news_at_once():
    kube, tenant, _uid = await made()
    now = [0.0]
    writer = replica(kube)
    writer.clock = lambda: now[0]
    await writer.take(tenant, NS, core(1, log_report()))
    await writer.take(tenant, NS, core(2, log_report(size=10, root="cd" * 32, entries=11)))
    assert audit_of(kube)["size"] == 9
    now[0] += MOVE_SECONDS
    await writer.take(tenant, NS, core(3, log_report(size=11, root="ef" * 32, entries=12)))
    assert audit_of(kube)["size"] == 11
    await writer.take(tenant, NS, core(4, log_report(size=11, root="ef" * 32, entries=12, reason="VolumeFull", message="full")))
    assert audit_of(kube)["reason"] == "VolumeFull"
    await writer.take(tenant, NS, core(5, log_report(size=12, root="01" * 32, entries=12)))
    assert "reason" not in audit_of(kube)
    assert audit_of(kube)["size"] == 12


async def test_the_leaders_part_is_not_the_report_paths():
    kube, tenant, _uid = await made()
    body = {
        "apiVersion": TENANT.api_version,
        "kind": "Tenant",
        "metadata": {"name": "acme"},
        "status": {"audit": {"sealedSize": 9}},
    }
    await kube.apply(TENANT, body, status=True)
    writer = replica(kube)
    await writer.take(tenant, NS, core(1, log_report()))
    await writer.take(tenant, NS, core(2, document_digest="sha256:d"))
    assert audit_of(kube)["sealedSize"] == 9
    await kube.apply(TENANT, body | {"status": {}}, status=True)
    assert "sealedSize" not in audit_of(kube)


async def test_a_fork_is_written_with_the_rest_and_then_told():
    kube, tenant, uid = await made()
    writer = replica(kube)
    writer.logs = Memory("two checkpoints")
    with pytest.raises(Conflict) as told:
        await writer.take(tenant, NS, core(1, log_report(), sessions=(session_report(uid, 1),)))
    assert (told.value.reason, told.value.message) == ("ForkDetected", "two checkpoints")
    assert audit_of(kube)["fork"] == "two checkpoints"
    assert kube.peek(SESSION, "s", NS)["status"]["phase"] == "Running"
    await writer.take(tenant, NS, core(2, log_report(state="Frozen", reason="ForkDetected", message="m")))
    assert audit_of(kube)["state"] == "Frozen"


async def test_of_a_volume_that_counts_again_the_fork_alone_is_taken():
    """A rolled-back volume brings its report counter back too: what it says is old, that it says it is news."""
    kube, tenant, _uid = await made()
    writer = replica(kube)
    writer.logs = Memory()
    await writer.take(tenant, NS, core(90, log_report(), document_digest="sha256:new"))
    writer.logs.fork = "rolled back"
    with pytest.raises(Conflict):
        await writer.take(tenant, NS, core(5, log_report(size=3, asked=2), document_digest="sha256:old"))
    status = kube.peek(TENANT, "acme")["status"]
    assert (status["audit"]["fork"], status["audit"]["size"], status["reportedDocument"]) == ("rolled back", 9, "sha256:new")
    assert status["reporters"] == [{"name": "core", "sequence": 90}]
    assert writer.logs.told == [("acme", 9), ("acme", 3)]


@pytest.mark.parametrize(
    "log",
    [
        log_report(origin="folkmoot/other"),
        log_report(vkeys=()),
        log_report(vkeys=(Ed25519Signer.from_seed("folkmoot/other", b"l" * 32).verifier().vkey(),)),
        log_report(origin="folkmoot/other", vkeys=(Ed25519Signer.from_seed("folkmoot/other", b"l" * 32).verifier().vkey(),)),
    ],
)
async def test_a_logs_report_is_of_one_log(log):
    kube, tenant, _uid = await made()
    writer = replica(kube)
    writer.logs = Memory()
    with pytest.raises(Invalid):
        await writer.take(tenant, NS, core(1, log))
    assert writer.logs.told == []


async def test_the_broker_has_no_word_on_the_log():
    kube, tenant, _uid = await made()
    with pytest.raises(Invalid):
        await replica(kube).take(tenant, NS, Report(reporter="broker", sequence=1, log=log_report()))


async def test_a_log_is_the_tenants_that_reported_it_first():
    kube, tenant, _uid = await made()
    thief = await kube.create(TENANT, {"metadata": {"name": "thief"}, "spec": {}})
    memory = Memory()
    writer = replica(kube, stale=[(TENANT, tenant), (TENANT, thief)])
    writer.logs = memory
    await writer.take(tenant, NS, core(1, log_report()))
    for stolen in (core(1, log_report()), core(2)):
        await writer.take(thief, "folkmoot-thief", stolen)
        assert "audit" not in kube.peek(TENANT, "thief").get("status", {})
    await writer.take(kube.peek(TENANT, "acme"), NS, core(2, log_report(size=10)))
    assert memory.told == [("acme", 9), ("acme", 10)]


def test_a_key_is_no_longer_than_keys_are():
    with pytest.raises(ValidationError, match="at most 2304"):
        log_report(vkeys=(VKEYS[0] + " " * 4000,))
