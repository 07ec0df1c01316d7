"""A Tenant becomes a namespace with everything in it, stays that way, and says how it stands."""

from __future__ import annotations

import dataclasses

from timestamps import forger, pem

from folkmoot_core import names
from folkmoot_core.document import LogReport, Report
from folkmoot_core.errors import Unavailable
from folkmoot_core.ledger.note import Ed25519Signer
from folkmoot_operator.kinds import (
    CONFIG_MAP,
    EVENT,
    NAMESPACE,
    NETWORK_POLICY,
    RESOURCE_QUOTA,
    ROLE_BINDING,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    TENANT,
    Key,
)
from folkmoot_operator.reconcile import Ref

NS = "folkmoot-acme"


async def test_a_tenant_becomes_a_namespace_with_its_objects(world):
    await world.tenant(owners=[{"kind": "Group", "name": "admins"}])
    await world.settle()
    namespace = world.kube.peek(NAMESPACE, NS)
    assert namespace["metadata"]["labels"][names.LABEL_MANAGED_BY] == names.MANAGER
    assert "ownerReferences" not in namespace["metadata"]
    assert {o["metadata"]["name"] for o in world.kube.all(STATEFUL_SET, NS)} == {"core", "broker"}
    assert world.kube.all(NETWORK_POLICY, NS)
    assert world.kube.peek(CONFIG_MAP, names.TRUST_CONFIGMAP, NS)["data"]["issuer"] == "https://issuer"
    assert names.FINALIZER in world.kube.peek(TENANT, "acme")["metadata"]["finalizers"]
    assert world.condition(TENANT, "acme", "NamespaceReady")["status"] == "True"
    ready = world.condition(TENANT, "acme", "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PodsNotReady")
    assert world.conductor.documents == {}


async def test_ready_waits_for_pods_and_for_the_documents_digest(world):
    await world.tenant()
    await world.settle()
    world.conductor.fail("put_document", *[Unavailable("down")] * 9)
    await world.pods_run()
    await world.settle()
    assert world.condition(TENANT, "acme", "Ready")["status"] == "False"
    assert Ref("Tenant", "", "acme") in world.retries
    world.conductor.errors.clear()
    await world.retry()
    assert world.condition(TENANT, "acme", "Ready")["status"] == "True"
    status = world.kube.peek(TENANT, "acme")["status"]
    assert status["documentDigest"] == world.conductor.documents["acme"].digest()
    assert status["observedGeneration"] == 1


async def test_a_second_pass_and_a_restart_write_nothing(world):
    await world.tenant()
    await world.settle()
    await world.agent(tools={"builtin": {"bash": "Allow"}})
    await world.ready()
    world.kube.calls.clear()
    world.conductor.calls.clear()
    await world.again()
    assert world.kube.writes == []
    world.start()
    await world.settle()
    assert world.kube.writes == []
    assert [call for call in world.kube.calls if call[0] == "get"] == []
    assert world.conductor.calls == []
    assert world.condition(TENANT, "acme", "Ready")["status"] == "True"


async def test_deleted_and_edited_children_come_back(world):
    await world.tenant()
    await world.ready()
    await world.kube.delete(NETWORK_POLICY, Key(NS, "folkmoot-default-deny"))
    await world.kube.patch(CONFIG_MAP, Key(NS, names.TRUST_CONFIGMAP), {"data": {"issuer": "https://evil"}})
    await world.kube.patch(SERVICE_ACCOUNT, Key(NS, "core"), {"automountServiceAccountToken": True})
    await world.settle()
    assert world.kube.peek(NETWORK_POLICY, "folkmoot-default-deny", NS)
    assert world.kube.peek(CONFIG_MAP, names.TRUST_CONFIGMAP, NS)["data"]["issuer"] == "https://issuer"
    assert world.kube.peek(SERVICE_ACCOUNT, "core", NS)["automountServiceAccountToken"] is False


async def test_a_deletion_that_the_watch_missed_is_repaired_by_the_relist(world):
    await world.tenant()
    await world.ready()
    world.kube.lose_events(1)
    await world.kube.delete(NETWORK_POLICY, Key(NS, "folkmoot-default-deny"))
    await world.again()
    assert world.kube.peek(NETWORK_POLICY, "folkmoot-default-deny", NS) is None  # the cache still believes in it
    relist = world.cache.relist(NETWORK_POLICY)
    relist.page(world.kube.all(NETWORK_POLICY))
    assert [o["metadata"]["name"] for o in relist.finish()] == ["folkmoot-default-deny"]
    await world.again()
    assert world.kube.peek(NETWORK_POLICY, "folkmoot-default-deny", NS)


async def test_what_is_no_longer_wanted_is_pruned(world):
    await world.tenant(owners=[{"kind": "Group", "name": "admins"}])
    await world.ready()
    assert world.kube.peek(ROLE_BINDING, "folkmoot-owners", NS)
    await world.kube.patch(TENANT, Key("", "acme"), {"spec": {"owners": None}})
    await world.settle()
    assert world.kube.peek(ROLE_BINDING, "folkmoot-owners", NS) is None


async def test_a_foreign_namespace_is_never_touched(world):
    await world.create(NAMESPACE, NS, {})
    before = world.kube.peek(NAMESPACE, NS)
    await world.tenant()
    await world.settle()
    assert world.kube.peek(NAMESPACE, NS) == before
    assert world.kube.all(STATEFUL_SET) == []
    assert world.condition(TENANT, "acme", "Conflict")["reason"] == "NamespaceConflict"
    assert world.condition(TENANT, "acme", "Stalled")["status"] == "True"


async def test_a_foreign_child_is_never_touched_and_the_conflict_ends_with_it(world):
    await world.create(NAMESPACE, "elsewhere", {})
    await world.tenant()
    await world.settle()
    await world.kube.delete(CONFIG_MAP, Key(NS, names.TRUST_CONFIGMAP))
    world.pending.clear()
    foreign = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.TRUST_CONFIGMAP, "namespace": NS},
        "data": {"a": "b"},
    }
    await world.kube.create(CONFIG_MAP, foreign)
    await world.again()
    assert world.kube.peek(CONFIG_MAP, names.TRUST_CONFIGMAP, NS)["data"] == {"a": "b"}
    assert world.condition(TENANT, "acme", "Conflict")["status"] == "True"
    assert world.condition(TENANT, "acme", "Ready")["reason"] == "Conflict"
    await world.kube.delete(CONFIG_MAP, Key(NS, names.TRUST_CONFIGMAP))
    await world.again()
    assert world.kube.peek(CONFIG_MAP, names.TRUST_CONFIGMAP, NS)["data"]["issuer"] == "https://issuer"
    assert world.condition(TENANT, "acme", "Conflict") == {}


async def test_an_invalid_tenant_says_so_and_is_not_retried(world):
    await world.create(TENANT, "acme", {"providers": []})
    await world.settle()
    accepted = world.condition(TENANT, "acme", "Accepted")
    assert accepted["status"] == "False"
    assert "cause" in accepted["message"]
    assert world.condition(TENANT, "acme", "Stalled")["status"] == "True"
    assert world.retries == {}
    assert world.kube.all(NAMESPACE) == []


async def test_new_token_keys_reach_every_tenant(world):
    await world.tenant()
    await world.ready()
    world.installation = dataclasses.replace(world.installation, jwks='{"keys":[{"kid":"2"}]}')
    await world.again()
    assert world.kube.peek(CONFIG_MAP, names.TRUST_CONFIGMAP, NS)["data"]["jwks.json"] == '{"keys":[{"kid":"2"}]}'


async def test_an_answer_lost_after_the_commit_does_no_harm(world):
    await world.tenant()
    world.kube.fail("apply", Unavailable("lost"), STATEFUL_SET, after_commit=True)
    await world.settle()
    await world.retry()
    assert world.retries == {}
    assert {o["metadata"]["name"] for o in world.kube.all(STATEFUL_SET, NS)} == {"core", "broker"}
    assert all(o["metadata"]["generation"] == 1 for o in world.kube.all(STATEFUL_SET, NS))


async def test_events_are_told_on_transitions_only(world):
    await world.tenant()
    await world.ready()
    told = [(e["reason"], e["type"]) for e in world.kube.all(EVENT)]
    assert ("Reconciled", "Normal") in told
    count = len(told)
    await world.again()
    await world.again()
    assert len(world.kube.all(EVENT)) == count
    assert {e["metadata"]["namespace"] for e in world.kube.all(EVENT) if e["regarding"]["kind"] == "Tenant"} == {"default"}


async def test_a_core_that_works_with_another_document_gets_it_again_after_a_while(world):
    await world.tenant()
    await world.ready()
    raw = world.kube.peek(TENANT, "acme")
    await world.reports.take(raw, NS, Report(reporter="core", sequence=9, document_digest="sha256:old"))
    world.conductor.calls.clear()
    await world.settle()
    assert world.conductor.calls == []  # the report may have been under way
    world.ctx.memory.put_at[raw["metadata"]["uid"]] -= 31
    await world.again()
    assert ("put_document", "acme") in world.conductor.calls


async def count_quota(world, used):
    head = {"name": "folkmoot", "namespace": NS}
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": head, "status": {"used": used}}
    await world.kube.apply(RESOURCE_QUOTA, body, manager="kube-controller-manager", status=True)


async def test_a_quota_that_nobody_counted_holds_the_namespace_back_and_is_made_anew(world):
    await world.tenant()
    await world.settle()
    await count_quota(world, {"requests.cpu": "0"})
    await world.settle()
    waits = world.condition(TENANT, "acme", "NamespaceReady")
    assert (waits["status"], waits["reason"]) == ("False", "QuotaNotCounted")
    assert "count/agents.folkmoot.dev" in waits["message"]
    before = world.kube.peek(RESOURCE_QUOTA, "folkmoot", NS)
    await world.again()
    assert world.kube.peek(RESOURCE_QUOTA, "folkmoot", NS)["metadata"]["uid"] == before["metadata"]["uid"]
    world.epoch += 60
    await world.again()
    after = world.kube.peek(RESOURCE_QUOTA, "folkmoot", NS)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    await count_quota(world, dict.fromkeys(after["spec"]["hard"], "0"))
    await world.settle()
    assert world.condition(TENANT, "acme", "NamespaceReady")["status"] == "True"


async def test_what_the_core_reports_of_its_log_becomes_conditions_an_event_and_metrics(world):
    await world.tenant()
    await world.ready()
    assert world.condition(TENANT, "acme", "AuditReady")["reason"] == "LogAnswers"
    assert world.condition(TENANT, "acme", "AuditAnchored")["reason"] == "NotConfigured"
    await report_log(world, 2, state="Frozen", reason="ForkDetected", message="witness cluster: another history")
    ready = world.condition(TENANT, "acme", "AuditReady")
    assert (ready["status"], ready["reason"]) == ("False", "ForkDetected")
    assert "another history" in ready["message"]
    assert [e["type"] for e in world.kube.all(EVENT) if e["reason"] == "ForkDetected"] == ["Warning"]
    text = world.ctx.metrics.text().decode()
    assert 'folkmoot_ledger_forked{tenant="acme"} 1.0' in text
    assert 'folkmoot_ledger_size{tenant="acme"} 9.0' in text
    world.ctx.metrics.forget("acme")
    assert 'tenant="acme"' not in world.ctx.metrics.text().decode()


async def test_what_the_witness_knows_counts_while_the_core_says_nothing(world):
    await world.tenant()
    await world.ready()
    world.ctx.memory.forks[world.kube.peek(TENANT, "acme")["metadata"]["uid"]] = "the witness was shown another history"
    await world.again()
    assert world.condition(TENANT, "acme", "AuditReady")["reason"] == "ForkDetected"
    assert 'folkmoot_ledger_forked{tenant="acme"} 1.0' in world.ctx.metrics.text().decode()


async def test_a_timestamp_becomes_late_by_time_alone(world):
    authority = {"name": "tsa", "url": "https://tsa.example", "certificates": pem(forger().chain)}
    await world.tenant(audit={"timestamps": {"authorities": [authority]}})
    await world.ready()
    assert world.condition(TENANT, "acme", "AuditAnchored")["reason"] == "NotTimestampedYet"
    await report_log(world, 2, anchored=world.now(), anchored_size=8, unanchored="tsa: no answer within 12 s")
    assert world.condition(TENANT, "acme", "AuditAnchored")["status"] == "True"
    after = world.answers[Ref("Tenant", "", "acme")].after
    world.epoch += after
    await world.again()
    late = world.condition(TENANT, "acme", "AuditAnchored")
    assert (late["status"], late["reason"]) == ("False", "AnchorLate")


async def report_log(world, sequence, **other):
    tenant = world.kube.peek(TENANT, "acme")
    vkey = Ed25519Signer.from_seed("folkmoot/x", b"l" * 32).verifier().vkey()
    said = {"origin": "folkmoot/x", "vkeys": (vkey,), "size": 9, "root": "ab" * 32, "entries": 9, **other}
    await world.reports.take(tenant, NS, Report(reporter="core", sequence=sequence, log=LogReport(**said)))
    await world.settle()
