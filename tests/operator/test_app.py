"""A whole replica on the in-memory API server: it leads, reconciles, follows the watch, and ends when it must."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest

from folkmoot_core import names
from folkmoot_core.document import LogReport, Report
from folkmoot_core.errors import Conflict, Unavailable
from folkmoot_core.ledger.note import Ed25519Signer
from folkmoot_operator.app import WATCHED, App
from folkmoot_operator.fake_conductor import FakeConductor
from folkmoot_operator.fake_kube import FakeKube
from folkmoot_operator.fake_witness import FakeWitness
from folkmoot_operator.kinds import CONFIG_MAP, LEASE, NAMESPACE, NETWORK_POLICY, SECRET, STATEFUL_SET, TENANT, Key, labels_of
from folkmoot_operator.leader import LeaderLost
from folkmoot_operator.settings import Settings, from_environment

NS = "folkmoot-acme"
SPEC = {
    "cause": "I keep Acme honest.",
    "providers": [{"name": "script", "type": "Scripted", "script": {"name": "s", "key": "k"}}],
}


def server():
    kube = FakeKube()
    kube.blobs["/openid/v1/jwks"] = b'{"keys": []}'
    kube.blobs["/.well-known/openid-configuration"] = json.dumps({"issuer": "https://issuer"}).encode()
    return kube


async def until(condition, what="it"):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def replica(kube, name="one", **settings):
    """A running replica, its watch connected; yields the app and the task that runs it."""
    base = {"identity": name, "listen_host": "127.0.0.1", "port": 0, "metrics_port": 0, "workers": 4} | settings
    conductor, witness = FakeConductor(), base.pop("witness", None)
    app = App(Settings(**base), kube, lambda _context: conductor, (lambda _context: witness) if witness else None)

    def watch(event, kind, obj):
        if kind in WATCHED and (kind.group == names.GROUP or labels_of(obj).get(names.LABEL_MANAGED_BY) == names.MANAGER):
            app.observe(kind, event, obj)

    kube.watch(watch)
    app.fake = conductor
    task = asyncio.create_task(app.run())
    try:
        await until(lambda: app.health.endpoint_up or task.done(), "start")
        yield app, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def tenant(kube):
    await kube.create(TENANT, {"apiVersion": TENANT.api_version, "kind": "Tenant", "metadata": {"name": "acme"}, "spec": SPEC})


@pytest.fixture
async def kube():
    made = server()
    await made.create(NAMESPACE, {"metadata": {"name": names.SYSTEM_NAMESPACE}})
    return made


async def test_a_leader_reconciles_what_was_there_and_what_comes(kube):
    await tenant(kube)
    async with replica(kube) as (app, _):
        await until(lambda: kube.peek(STATEFUL_SET, "broker", NS))
        await kube.delete(NETWORK_POLICY, Key(NS, "folkmoot-default-deny"))
        await until(lambda: kube.peek(NETWORK_POLICY, "folkmoot-default-deny", NS))
        assert kube.peek(SECRET, "folkmoot-ca", names.SYSTEM_NAMESPACE)
        assert kube.peek(CONFIG_MAP, names.TRUST_CONFIGMAP, NS)["data"]["ca.crt"].startswith("-----BEGIN CERTIFICATE")
        await until(lambda: app.queue.idle)
        text = app.metrics.text().decode()
        assert "folkmoot_tenants 1.0" in text
        assert 'controller_runtime_reconcile_total{controller="Tenant",result="success"}' in text
        assert app.health.ready()


async def test_the_installations_own_services_find_what_they_trust(kube):
    async with replica(kube, leader_election=False) as (app, _):

        def trust():
            return kube.peek(CONFIG_MAP, names.TRUST_CONFIGMAP, names.SYSTEM_NAMESPACE)

        await until(trust)
        assert trust()["data"] == {
            "ca.crt": app.contexts.signer.authority.pem(), "jwks.json": app.discovery.jwks, "issuer": "https://issuer",
        }  # fmt: skip
        before = trust()["metadata"]["uid"]
        await kube.delete(CONFIG_MAP, Key(names.SYSTEM_NAMESPACE, names.TRUST_CONFIGMAP))
        await until(lambda: trust() and trust()["metadata"]["uid"] != before)


async def test_somebody_elses_trust_is_not_written_over(kube):
    data = {"data": {"ca.crt": "theirs"}}
    await kube.create(CONFIG_MAP, {"metadata": {"name": names.TRUST_CONFIGMAP, "namespace": names.SYSTEM_NAMESPACE}, **data})
    async with replica(kube, leader_election=False) as (app, _):
        failed = 'controller_runtime_reconcile_total{controller="Installation",result="requeue"}'
        await until(lambda: failed in app.metrics.text().decode())
        assert kube.peek(CONFIG_MAP, names.TRUST_CONFIGMAP, names.SYSTEM_NAMESPACE)["data"] == data["data"]


async def test_a_second_replica_is_ready_and_writes_nothing(kube):
    async with replica(kube, "one") as (first, _):
        await until(lambda: first.leading)
        async with replica(kube, "two") as (second, _):
            assert second.health.ready()
            assert not second.leading
            await tenant(kube)
            await until(lambda: kube.peek(STATEFUL_SET, "broker", NS))
            assert second.cache.get(TENANT, Key("", "acme"))
            assert len(second.queue) == 0
            assert second.contexts.signer.authority.certificate == first.contexts.signer.authority.certificate


async def test_losing_the_lease_ends_the_replica(kube):
    async with replica(kube) as (app, task):
        await until(lambda: app.leading)
        lease = kube.peek(LEASE, "folkmoot-operator", names.SYSTEM_NAMESPACE)
        await kube.update(LEASE, {**lease, "spec": {**lease["spec"], "holderIdentity": "two"}})
        await asyncio.wait([task], timeout=30)
        with pytest.raises(ExceptionGroup) as caught:
            task.result()
        assert caught.value.subgroup(LeaderLost)
        assert not app.leading


async def test_what_the_watch_missed_comes_with_the_list(kube):
    async with replica(kube, leader_election=False) as (app, _):
        await tenant(kube)
        await until(lambda: kube.peek(STATEFUL_SET, "broker", NS) and app.queue.idle)
        kube.lose_events(1)
        await kube.delete(NETWORK_POLICY, Key(NS, "folkmoot-default-deny"))
        await app.relist(NETWORK_POLICY)
        await until(lambda: kube.peek(NETWORK_POLICY, "folkmoot-default-deny", NS))


async def test_a_watch_that_begins_anew_makes_us_list_again(kube):
    async with replica(kube, leader_election=False) as (app, _):
        await tenant(kube)
        await until(lambda: app.cache.get(TENANT, Key("", "acme")))
        app.observe(TENANT, None, kube.peek(TENANT, "acme"))
        assert TENANT in app._relist


async def test_an_api_server_that_is_away_at_start_is_said_plainly(kube):
    kube.fail("raw", Unavailable("GET /openid: 503"))
    async with replica(kube) as (_, task):
        with pytest.raises(Unavailable, match="503"):
            task.result()


async def test_a_clean_end_gives_everything_back(kube):
    async with replica(kube) as (app, task):
        await until(lambda: app.leading and kube.peek(CONFIG_MAP, "folkmoot-canary-one", names.SYSTEM_NAMESPACE))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await app.close()
        assert kube.peek(LEASE, "folkmoot-operator", names.SYSTEM_NAMESPACE)["spec"]["holderIdentity"] == ""
        assert kube.peek(CONFIG_MAP, "folkmoot-canary-one", names.SYSTEM_NAMESPACE) is None


async def test_canaries_of_killed_replicas_go_and_those_that_sing_stay(kube):
    async with replica(kube, leader_election=False) as (app, _):
        await until(lambda: app.cache.get(CONFIG_MAP, app.health.key))
        labels = {names.LABEL_MANAGED_BY: names.MANAGER}
        dead = {"metadata": {"name": "folkmoot-canary-dead", "namespace": names.SYSTEM_NAMESPACE, "labels": labels}}
        await kube.create(CONFIG_MAP, dead)
        seen = await app._drop_dead_canaries({})
        await kube.patch(CONFIG_MAP, app.health.key, {"metadata": {"annotations": {"x": "y"}}})
        await app._drop_dead_canaries(seen)
        assert kube.peek(CONFIG_MAP, "folkmoot-canary-dead", names.SYSTEM_NAMESPACE) is None
        assert kube.peek(CONFIG_MAP, "folkmoot-canary-one", names.SYSTEM_NAMESPACE)


async def test_probes_tell_starting_from_dead(kube, unused_tcp_port):
    async with replica(kube, metrics_port=unused_tcp_port) as (app, _), aiohttp.ClientSession() as client:

        async def get(path):
            async with client.get(f"http://127.0.0.1:{unused_tcp_port}{path}") as response:
                return response.status, await response.text()

        assert await get("/healthz") == (200, "ok")
        assert (await get("/readyz"))[0] == 200
        assert "workqueue_depth" in (await get("/metrics"))[1]
        app.cache.filled.clear()
        assert (await get("/readyz"))[0] == 503


async def test_documents_name_the_witness_once_its_key_is_known(kube):
    witness = FakeWitness()
    url = "https://folkmoot-witness.folkmoot-system.svc:8447"
    await tenant(kube)
    async with replica(kube, witness=witness, witness_url=url, leader_election=False) as (app, _):
        await until(lambda: kube.peek(STATEFUL_SET, "core", NS))
        await run_pods(kube)
        await until(lambda: "acme" in app.fake.documents)
        (entry,) = app.fake.documents["acme"].audit.witnesses
        assert (entry.name, entry.key, entry.url) == ("cluster", await witness.key(), url)


async def test_a_reported_log_is_registered_fenced_and_its_fork_at_the_witness_is_shown(kube):
    witness = FakeWitness()
    await tenant(kube)
    async with replica(kube, witness=witness, witness_url="https://w", leader_election=False) as (app, _):
        await until(lambda: kube.peek(STATEFUL_SET, "core", NS))
        live = kube.peek(TENANT, "acme")
        vkey = Ed25519Signer.from_seed("folkmoot/x", b"l" * 32).verifier().vkey()
        log = LogReport(origin="folkmoot/x", vkeys=(vkey,), size=3, root="ab" * 32, entries=3, asked=1)
        await app.reports.take(live, NS, Report(reporter="core", sequence=1, log=log))
        await until(lambda: "folkmoot/x" in witness.known)
        uid = live["metadata"]["uid"]
        assert kube.peek(CONFIG_MAP, names.log_memory(uid), names.SYSTEM_NAMESPACE)
        await until(lambda: reason(kube) == "LogAnswers")
        witness.fork("folkmoot/x", 3)
        await app._witnessed(uid, await witness.logs(uid))
        await until(lambda: reason(kube) == "ForkDetected")
        with pytest.raises(Conflict):
            await app.reports.take(live, NS, Report(reporter="core", sequence=2, log=log))
        await kube.delete(TENANT, Key("", "acme"))
        app.observe(TENANT, "DELETED", live)
        assert uid not in app.fence._held


async def run_pods(kube):
    for obj in kube.all(STATEFUL_SET):
        state = {"readyReplicas": 1, "updatedReplicas": 1, "replicas": 1, "observedGeneration": obj["metadata"]["generation"]}
        head = {"name": obj["metadata"]["name"], "namespace": obj["metadata"]["namespace"]}
        body = {"apiVersion": STATEFUL_SET.api_version, "kind": "StatefulSet", "metadata": head, "status": state}
        await kube.apply(STATEFUL_SET, body, manager="kube-controller-manager", status=True)


def reason(kube):
    found = (kube.peek(TENANT, "acme").get("status") or {}).get("conditions") or ()
    return next((c["reason"] for c in found if c["type"] == "AuditReady"), "")


def test_settings_name_the_variable_that_is_wrong():
    settings = from_environment(
        {"FOLKMOOT_NAMESPACE": "sys", "FOLKMOOT_EXPORT_DIR": "/export", "FOLKMOOT_CLUSTER_CIDRS": "10.0.0.0/8, 11.0.0.0/8"}
    )
    assert settings.url() == "https://folkmoot-operator.sys.svc:8443"
    assert "folkmoot-operator.sys.svc" in settings.endpoint_names()
    assert settings.cluster_cidrs == ("10.0.0.0/8", "11.0.0.0/8")
    assert str(settings.export_dir) == "/export"
    with pytest.raises(Exception, match="expected both or none"):
        from_environment({"FOLKMOOT_WITNESS_URL": "https://w"})
    with pytest.raises(Exception, match="FOLKMOOT_WORKERS"):
        from_environment({"FOLKMOOT_WORKERS": "many"})
