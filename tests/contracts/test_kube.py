"""What the operator leans on in an API server: the same tests against the in-memory twin and, among the e2e tests, against the
real one that FOLKMOOT_TEST_KUBECONFIG names (they make and remove a namespace)."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from folkmoot_core.errors import Conflict, FolkmootError, Invalid, Missing
from folkmoot_operator.differ import difference, with_intent
from folkmoot_operator.fake_kube import FakeKube
from folkmoot_operator.kinds import CONFIG_MAP, DEPLOYMENT, EVENT, LEASE, NAMESPACE, RESOURCE_QUOTA, SERVICE, Key
from folkmoot_operator.kube import HttpKube, Kube, TokenBucket, connector, listed, middleware
from folkmoot_operator.kube_config import from_kubeconfig

pytestmark = pytest.mark.contract
NAMESPACE_NAME = f"contract-{secrets.token_hex(3)}"


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.e2e)])
async def kube(request) -> AsyncIterator[Kube]:
    name = f"{NAMESPACE_NAME}-{secrets.token_hex(2)}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    if request.param == "fake":
        fake = FakeKube()
        fake.namespace = name
        await fake.create(NAMESPACE, body)
        yield fake
        return
    connection = from_kubeconfig(Path(os.environ["FOLKMOOT_TEST_KUBECONFIG"]))
    session = aiohttp.ClientSession(connector=connector(connection, 8), middlewares=[middleware(connection)])
    async with session:
        real = HttpKube(connection, session, TokenBucket(50, 100))
        real.namespace = name
        await real.create(NAMESPACE, body)
        yield real
        await real.delete(NAMESPACE, Key("", name))


def config_map(kube, name="c", **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": kube.namespace}, "data": data}


async def test_apply_creates_changes_nothing_when_repeated_and_prunes_what_is_dropped(kube):
    key = Key(kube.namespace, "c")
    first = await kube.apply(CONFIG_MAP, config_map(kube, a="1", b="2"))
    again = await kube.apply(CONFIG_MAP, config_map(kube, a="1", b="2"))
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    await kube.apply(CONFIG_MAP, config_map(kube, theirs="x"), manager="somebody")
    changed = await kube.apply(CONFIG_MAP, config_map(kube, a="1"))
    assert changed["data"] == {"a": "1", "theirs": "x"}
    assert (await kube.get(CONFIG_MAP, key))["data"] == {"a": "1", "theirs": "x"}


async def test_apply_with_force_takes_back_a_field_that_was_edited(kube):
    key = Key(kube.namespace, "c")
    await kube.apply(CONFIG_MAP, config_map(kube, a="1"))
    await kube.patch(CONFIG_MAP, key, {"data": {"a": "evil", "more": "x"}})
    healed = await kube.apply(CONFIG_MAP, config_map(kube, a="1"))
    assert healed["data"] == {"a": "1", "more": "x"}


async def test_versions_are_preconditions(kube):
    first = await kube.apply(CONFIG_MAP, config_map(kube, a="1"))
    await kube.apply(CONFIG_MAP, config_map(kube, a="2"))
    stale = config_map(kube, a="3")
    stale["metadata"]["resourceVersion"] = first["metadata"]["resourceVersion"]
    with pytest.raises(Conflict):
        await kube.apply(CONFIG_MAP, stale)
    with pytest.raises(Conflict):
        await kube.update(CONFIG_MAP, {**first, "data": {"a": "4"}})
    with pytest.raises(Conflict):
        await kube.patch(
            CONFIG_MAP,
            Key(kube.namespace, "c"),
            {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"a": "5"}},
        )
    assert (await kube.get(CONFIG_MAP, Key(kube.namespace, "c")))["data"] == {"a": "2"}


async def test_create_meets_what_is_there_and_get_what_is_not(kube):
    await kube.create(CONFIG_MAP, config_map(kube))
    with pytest.raises(Conflict) as caught:
        await kube.create(CONFIG_MAP, config_map(kube))
    assert caught.value.reason == "AlreadyExists"
    with pytest.raises(Missing):
        await kube.get(CONFIG_MAP, Key(kube.namespace, "absent"))
    with pytest.raises(Missing):
        await kube.create(CONFIG_MAP, {**config_map(kube), "metadata": {"name": "c", "namespace": "no-such-namespace"}})


async def test_delete_with_a_uid_spares_a_successor(kube):
    key = Key(kube.namespace, "c")
    first = await kube.apply(CONFIG_MAP, config_map(kube))
    assert await kube.delete(CONFIG_MAP, key, uid=first["metadata"]["uid"])
    assert not await kube.delete(CONFIG_MAP, key, uid=first["metadata"]["uid"])
    await kube.apply(CONFIG_MAP, config_map(kube))
    assert not await kube.delete(CONFIG_MAP, key, uid=first["metadata"]["uid"])
    assert await kube.get(CONFIG_MAP, key)


async def test_lists_select_by_label_and_carry_their_kind(kube):
    for name, color in (("a", "red"), ("b", "blue")):
        labelled = config_map(kube, name)
        labelled["metadata"]["labels"] = {"color": color}
        await kube.apply(CONFIG_MAP, labelled)
    found = await listed(kube, CONFIG_MAP, namespace=kube.namespace, labels="color=red")
    assert [(o["kind"], o["apiVersion"], o["metadata"]["name"]) for o in found] == [("ConfigMap", "v1", "a")]


async def test_finalizers_hold_a_deletion_and_a_patch_lets_go(kube):
    key = Key(kube.namespace, "c")
    held = config_map(kube)
    held["metadata"]["finalizers"] = ["folkmoot.dev/test"]
    await kube.apply(CONFIG_MAP, held)
    await kube.delete(CONFIG_MAP, key)
    live = await kube.get(CONFIG_MAP, key)
    assert live["metadata"]["deletionTimestamp"]
    await kube.patch(CONFIG_MAP, key, {"metadata": {"finalizers": [], "resourceVersion": live["metadata"]["resourceVersion"]}})
    with pytest.raises(Missing):
        await kube.get(CONFIG_MAP, key)


def deployment(kube, image="example.invalid/a:1"):
    labels = {"app": "d"}
    container = {
        "name": "c",
        "image": image,
        "resources": {"limits": {"cpu": "1000m", "memory": "64Mi"}},
        "env": [{"name": "E", "value": "1"}],
    }
    container["ports"] = [{"name": "http", "containerPort": 8080}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "automountServiceAccountToken": False}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": kube.namespace}, "spec": spec}


async def test_what_was_applied_is_no_difference_afterwards_and_an_edit_is(kube):
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": kube.namespace}}
    quota["spec"] = {"hard": {"limits.cpu": "4000m", "pods": "10"}}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": kube.namespace}}
    service["spec"] = {
        "clusterIP": "None",
        "selector": {"app": "d"},
        "ports": [{"name": "p", "port": 80}],
        "publishNotReadyAddresses": False,
    }
    for kind, body in ((DEPLOYMENT, deployment(kube)), (RESOURCE_QUOTA, quota), (SERVICE, service)):
        intent = with_intent(body)
        await kube.apply(kind, intent)
        assert difference(intent, await kube.get(kind, Key(kube.namespace, body["metadata"]["name"]))) == ""
    await kube.patch(
        DEPLOYMENT, Key(kube.namespace, "d"), {"spec": {"replicas": 0, "template": {"metadata": {"annotations": {"x": "y"}}}}}
    )
    intent = with_intent(deployment(kube))
    assert difference(intent, await kube.get(DEPLOYMENT, Key(kube.namespace, "d"))) == ""
    other = with_intent(deployment(kube, "example.invalid/a:2"))
    assert difference(other, await kube.get(DEPLOYMENT, Key(kube.namespace, "d")))


async def test_generation_counts_specs_and_not_statuses(kube):
    first = await kube.apply(DEPLOYMENT, deployment(kube))
    status = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": first["metadata"] | {"managedFields": None},
        "status": {"replicas": 0},
    }
    status["metadata"] = {"name": "d", "namespace": kube.namespace}
    await kube.apply(DEPLOYMENT, status, manager="another", status=True)
    await kube.apply(DEPLOYMENT, deployment(kube) | {"status": {"replicas": 7}})
    live = await kube.get(DEPLOYMENT, Key(kube.namespace, "d"))
    assert live["metadata"]["generation"] == 1
    assert (live.get("status") or {}).get("replicas", 0) == 0
    changed = await kube.apply(DEPLOYMENT, deployment(kube, "example.invalid/a:2"))
    assert changed["metadata"]["generation"] == 2


# The twin alone: a real collector takes its time, and its work is seen in the scenarios.
@pytest.mark.parametrize("kube", ["fake"], indirect=True)
async def test_children_go_with_their_owner(kube):
    owner = await kube.apply(CONFIG_MAP, config_map(kube, "owner") | {"data": {}})
    child = config_map(kube, "child")
    child["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    ]
    await kube.apply(CONFIG_MAP, child)
    await kube.delete(CONFIG_MAP, Key(kube.namespace, "owner"))
    with pytest.raises(Missing):
        await kube.get(CONFIG_MAP, Key(kube.namespace, "child"))


async def test_leases_and_events_are_taken_as_the_operator_writes_them(kube):
    now = "2026-01-01T00:00:00.000001Z"
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 15, "leaseTransitions": 0, "acquireTime": now, "renewTime": now}
    body = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": {"name": "l", "namespace": kube.namespace}}
    lease = await kube.create(LEASE, {**body, "spec": spec})
    await kube.update(LEASE, {**lease, "spec": {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}})
    regarding = {"apiVersion": "v1", "kind": "Namespace", "name": kube.namespace}
    event = {
        "apiVersion": EVENT.api_version, "kind": EVENT.kind, "metadata": {"name": "e.1", "namespace": kube.namespace}, "eventTime": now,
        "reportingController": "folkmoot.dev/operator", "reportingInstance": "a", "action": "Reconcile", "reason": "Reconciled",
        "type": "Normal", "note": "Ready: yes", "regarding": {**regarding, "namespace": kube.namespace},
    }  # fmt: skip
    await kube.create(EVENT, event)


async def test_what_the_server_will_not_take_is_invalid(kube):
    if isinstance(kube, FakeKube):
        kube.validating = lambda kind, obj: (_ for _ in ()).throw(Invalid("no")) if obj.get("data") == {"a": 1} else None
    with pytest.raises(FolkmootError) as caught:
        await kube.apply(CONFIG_MAP, config_map(kube, a=1))
    assert not isinstance(caught.value, Missing | Conflict)
