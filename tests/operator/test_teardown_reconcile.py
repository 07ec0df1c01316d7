"""How a Tenant ends: nothing is lost, nothing is created in a dying namespace, and every end comes."""

from __future__ import annotations

import tarfile

import pytest

from folkmoot_core import names
from folkmoot_core.errors import Unavailable
from folkmoot_operator.kinds import DEPLOYMENT, NAMESPACE, ROLE_BINDING, STATEFUL_SET, TENANT, Key
from folkmoot_operator.reconcile import Ref

NS = "folkmoot-acme"
REF = Ref("Tenant", "", "acme")


async def step(world, times=12):
    for _ in range(times):
        world.enqueue(REF)
        await world.settle()


async def make(world, policy="Delete"):
    await world.tenant(deletionPolicy=policy, owners=[{"kind": "Group", "name": "g"}])
    await world.settle()
    await world.agent()
    await world.ready()
    world.kube.calls.clear()


async def test_delete_seals_exports_and_removes(world, tmp_path):
    await make(world)
    uid = world.kube.peek(TENANT, "acme")["metadata"]["uid"]
    await world.kube.delete(TENANT, Key("", "acme"))
    await step(world)
    assert world.kube.peek(TENANT, "acme") is None
    assert world.kube.peek(NAMESPACE, NS) is None
    assert [c for c, _ in world.conductor.calls if c in ("seal", "evidence")] == ["seal", "evidence"]
    with tarfile.open(tmp_path / f"acme-{uid}-7.tar") as archive:
        assert archive.getnames() == ["checkpoint"]
    assert list(tmp_path.iterdir()) == [tmp_path / f"acme-{uid}-7.tar"]


async def test_retain_scales_to_zero_and_a_tenant_of_the_same_identity_adopts_it(world):
    await make(world, "Retain")
    await world.kube.delete(TENANT, Key("", "acme"))
    await step(world)
    assert world.kube.peek(TENANT, "acme") is None
    namespace = world.kube.peek(NAMESPACE, NS)
    assert namespace["metadata"]["labels"][names.LABEL_RETAINED] == "true"
    assert {o["metadata"]["name"]: o["spec"]["replicas"] for o in world.kube.all(STATEFUL_SET, NS)} == {"core": 0, "broker": 0}
    assert world.kube.peek(DEPLOYMENT, "sandbox-checks", NS) is None
    assert world.kube.all(ROLE_BINDING, NS) == []
    await world.tenant(owners=[{"kind": "Group", "name": "g"}])
    await world.settle()
    assert names.LABEL_RETAINED not in world.kube.peek(NAMESPACE, NS)["metadata"]["labels"]
    assert {o["spec"].get("replicas") for o in world.kube.all(STATEFUL_SET, NS)} == {1}
    uid = world.kube.peek(TENANT, "acme")["metadata"]["uid"]
    assert world.kube.peek(STATEFUL_SET, "core", NS)["metadata"]["labels"][names.LABEL_OWNER_UID] == uid


async def test_a_kept_namespace_is_not_given_to_another_identity(world):
    await make(world, "Retain")
    await world.kube.delete(TENANT, Key("", "acme"))
    await step(world)
    await world.tenant(cause="I am somebody else.")
    await world.settle()
    assert world.condition(TENANT, "acme", "Conflict")["reason"] == "IdentityConflict"
    assert {o["spec"]["replicas"] for o in world.kube.all(STATEFUL_SET, NS)} == {0}
    # and its own deletion leaves alone what is not its own
    await world.kube.delete(TENANT, Key("", "acme"))
    await step(world)
    assert world.kube.peek(TENANT, "acme") is None
    assert world.kube.peek(NAMESPACE, NS)["metadata"]["labels"][names.LABEL_RETAINED] == "true"


async def test_a_stranger_who_goes_again_takes_nothing_of_what_was_kept(world):
    await make(world, "Retain")
    await world.kube.delete(TENANT, Key("", "acme"))
    await step(world)
    kept = world.kube.peek(NAMESPACE, NS)
    await world.tenant(cause="I am somebody else.", deletionPolicy="Delete")
    await world.settle()
    assert world.condition(TENANT, "acme", "Conflict")["reason"] == "IdentityConflict"
    world.conductor.calls.clear()
    await world.kube.delete(TENANT, Key("", "acme"))
    await step(world)
    assert world.kube.peek(TENANT, "acme") is None
    assert world.kube.peek(NAMESPACE, NS) == kept
    assert world.conductor.calls == []


async def test_without_an_export_volume_delete_stalls_and_touches_nothing(world):
    await make(world)
    world.ctx.export_dir = None
    await world.kube.delete(TENANT, Key("", "acme"))
    await step(world)
    stalled = world.condition(TENANT, "acme", "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "NoExportTarget")
    assert world.kube.peek(NAMESPACE, NS)
    assert world.conductor.sealed == {}


async def test_a_core_that_does_not_answer_is_reported_and_tried_again(world):
    await make(world)
    world.conductor.fail("seal", *[Unavailable("no answer")] * 50)
    await world.kube.delete(TENANT, Key("", "acme"))
    await step(world, 3)
    assert "no answer" in world.condition(TENANT, "acme", "Ready")["message"]
    assert world.condition(TENANT, "acme", "Stalled")["status"] == "False"
    world.epoch += 16 * 60
    await step(world, 3)
    assert world.condition(TENANT, "acme", "Stalled")["reason"] == "TeardownTimeout"
    assert world.kube.peek(NAMESPACE, NS)
    world.conductor.errors.clear()
    await step(world)
    assert world.kube.peek(TENANT, "acme") is None


async def test_a_core_that_never_became_ready_does_not_hold_the_tenant(world):
    await world.tenant(deletionPolicy="Delete")
    await world.settle()
    await world.kube.delete(TENANT, Key("", "acme"))
    await step(world)
    assert world.kube.peek(TENANT, "acme") is None
    assert world.conductor.calls == []


@pytest.mark.parametrize("verb", ["seal", "evidence"])
async def test_another_leader_goes_on_where_this_one_ended(world, tmp_path, verb):
    await make(world)
    world.conductor.fail(verb, Unavailable("crash"))
    await world.kube.delete(TENANT, Key("", "acme"))
    await world.settle()
    world.start()
    await step(world)
    assert world.kube.peek(TENANT, "acme") is None
    assert [c for c, _ in world.conductor.calls].count("evidence") == (2 if verb == "evidence" else 1)
    assert len(list(tmp_path.iterdir())) == 1


async def test_an_export_that_was_cut_short_does_not_count(world, tmp_path):
    await make(world)
    uid = world.kube.peek(TENANT, "acme")["metadata"]["uid"]
    (tmp_path / f"acme-{uid}-7.tar.part").write_bytes(b"half")
    await world.kube.delete(TENANT, Key("", "acme"))
    await step(world)
    assert tarfile.is_tarfile(tmp_path / f"acme-{uid}-7.tar")
    assert world.kube.peek(TENANT, "acme") is None


async def test_nothing_is_created_in_a_namespace_that_somebody_removes(world):
    await make(world)
    namespace = world.kube.peek(NAMESPACE, NS)
    await world.kube.patch(
        NAMESPACE,
        Key("", NS),
        {"metadata": {"finalizers": ["kubernetes"], "resourceVersion": namespace["metadata"]["resourceVersion"]}},
    )
    await world.kube.delete(NAMESPACE, Key("", NS))
    world.kube.calls.clear()
    await world.again()
    assert [w for w in world.kube.writes if w[1] not in (TENANT,) and w[0] != "apply"] == []
    assert world.condition(TENANT, "acme", "NamespaceReady")["status"] == "False"
    await world.kube.patch(NAMESPACE, Key("", NS), {"metadata": {"finalizers": []}})
    await step(world, 2)
    assert world.kube.peek(NAMESPACE, NS)["metadata"]["uid"] != namespace["metadata"]["uid"]
    assert world.kube.peek(STATEFUL_SET, "core", NS)
