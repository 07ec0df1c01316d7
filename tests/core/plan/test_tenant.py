"""A Tenant's plan: what is in the namespace, who owns it, how it is kept, and when a namespace is somebody else's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from folkmoot_core import names
from folkmoot_core.plan import agent as agent_plan
from folkmoot_core.plan import core, identities, pods, quantities
from folkmoot_core.plan import tenant as tenant_plan
from folkmoot_core.plan.types import Installation
from folkmoot_core.plan.views import AgentView, TenantView

Object = dict[str, Any]
MakeTenant = Callable[..., TenantView]
MakeAgent = Callable[..., AgentView]


def test_the_namespace_comes_first_and_belongs_to_nobody(tenant: MakeTenant, inst: Installation) -> None:
    """An ownerReference would let foreground deletion take it before the log is out."""
    first = tenant_plan.plan(tenant(), inst).objects[0]
    assert (first["kind"], first["metadata"]["name"]) == ("Namespace", "folkmoot-acme")
    assert "ownerReferences" not in first["metadata"]
    for mode in ("enforce", "audit", "warn"):
        assert first["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"


def test_children_carry_the_labels_of_the_conventions(objects: list[Object]) -> None:
    for item in objects:
        labels = item["metadata"]["labels"]
        assert labels[names.LABEL_MANAGED_BY] == "folkmoot"
        assert labels[names.LABEL_TENANT] == "acme"
        assert labels[names.LABEL_OWNER_UID] in ("tenant-uid", "agent-uid", "reader-uid")
        assert labels[names.LABEL_VERSION] == "1.2.3_build.4"  # a label takes no plus sign
        for key in (names.LABEL_NAME, names.LABEL_INSTANCE, names.LABEL_COMPONENT, names.LABEL_PART_OF):
            assert labels[key]
        assert all(len(value) <= 63 for value in labels.values())


def test_what_is_the_tenants_has_no_owner_reference_and_what_is_an_agents_has_one(objects: list[Object]) -> None:
    for item in objects:
        owners = [(o["kind"], o["uid"]) for o in item["metadata"].get("ownerReferences", ())]
        uid = item["metadata"]["labels"][names.LABEL_OWNER_UID]
        assert owners == ([] if uid == "tenant-uid" else [("Agent", uid)])


def test_objects_are_complete_and_named_once(objects: list[Object]) -> None:
    keys = [(o["apiVersion"], o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in objects]
    assert len(keys) == len(set(keys))
    assert all(namespace == "folkmoot-acme" or kind == "Namespace" for _, kind, namespace, _ in keys)


def test_names_of_children_stay_dns_labels(tenant: MakeTenant, agent: MakeAgent, inst: Installation) -> None:
    longest = "a" * names.MAX_NAME
    made = [*tenant_plan.plan(tenant(longest), inst).objects]
    made += agent_plan.plan(agent(longest, tools={"builtin": {"bash": "Allow"}}), tenant(longest), inst).objects
    assert max(len(o["metadata"]["name"]) for o in made) <= 63
    assert all(len(v) <= 63 for o in made for v in o["metadata"]["labels"].values())


def test_the_quota_has_room_for_folkmoots_own_pods(tenant: MakeTenant, inst: Installation) -> None:
    plan = tenant_plan.plan(tenant(quota={"cpu": "2", "memory": "4Gi", "storage": "10Gi", "agents": 3, "sessions": 7}), inst)
    hard = plan.get("ResourceQuota", "folkmoot")["spec"]["hard"]  # type: ignore[index]
    own = [o for o in plan.objects if o["kind"] in ("StatefulSet", "Deployment")]
    assert len(own) == 3
    for resource, wanted in (("cpu", "2"), ("memory", "4Gi")):
        used = sum((quantities.value(q) for q in pods.limits_of(own, resource)), quantities.value("0"))
        assert quantities.value(hard[f"limits.{resource}"]) == used + quantities.value(wanted)
        assert hard[f"requests.{resource}"] == hard[f"limits.{resource}"]
    assert hard["requests.storage"] == "16Gi"  # 10 of the tenant, 5 of the core, 1 of the broker
    assert hard["count/agents.folkmoot.dev"] == "3"
    assert hard["count/sessions.folkmoot.dev"] == "7"
    assert (hard["services.nodeports"], hard["services.loadbalancers"]) == ("0", "0")


def test_the_default_quota_holds_the_default_number_of_agents(tenant: MakeTenant, agent: MakeAgent, inst: Installation) -> None:
    quota = tenant().spec.quota
    one = agent_plan.plan(agent(tools={"builtin": {"bash": "Allow"}}), tenant(), inst)
    own = [o for o in one.objects if o["kind"] == "Deployment"]
    for resource, allowed in (("cpu", quota.cpu), ("memory", quota.memory)):
        used = sum((quantities.value(q) for q in pods.limits_of(own, resource)), quantities.value("0"))
        assert used * quota.agents <= quantities.value(allowed)


def test_a_larger_core_makes_a_larger_quota(tenant: MakeTenant, inst: Installation) -> None:
    def memory(**spec: Any) -> Any:
        found = tenant_plan.plan(tenant(**spec), inst).get("ResourceQuota", "folkmoot")
        assert found is not None
        return quantities.value(found["spec"]["hard"]["limits.memory"])

    assert memory(core={"resources": {"limits": {"memory": "4Gi"}}}) - memory() == quantities.value("4Gi") - quantities.value(
        "768Mi"
    )


def test_roles_are_bound_by_name_to_the_subjects(tenant: MakeTenant, inst: Installation) -> None:
    owners = [{"kind": "Group", "name": "g"}, {"kind": "ServiceAccount", "name": "s", "namespace": "ci"}]
    plan = tenant_plan.plan(tenant(owners=owners, viewers=[{"kind": "User", "name": "ana"}]), inst)
    bindings = {o["metadata"]["name"]: o for o in plan.objects if o["kind"] == "RoleBinding"}
    assert set(bindings) == {"folkmoot-owners", "folkmoot-viewers"}  # no auditors, no binding
    assert bindings["folkmoot-owners"]["roleRef"]["name"] == "folkmoot-tenant-owner"
    assert bindings["folkmoot-owners"]["subjects"] == [
        {"kind": "Group", "name": "g", "apiGroup": "rbac.authorization.k8s.io"},
        {"kind": "ServiceAccount", "name": "s", "namespace": "ci"},
    ]


def test_trust_is_what_the_pods_read(tenant: MakeTenant, inst: Installation) -> None:
    found = tenant_plan.plan(tenant(), inst).get("ConfigMap", names.TRUST_CONFIGMAP)
    assert found is not None
    assert found["data"] == {"ca.crt": "PEM", "jwks.json": '{"keys": []}', "issuer": "https://issuer"}


def test_services_name_the_pods_that_certificates_name(tenant: MakeTenant, inst: Installation) -> None:
    plan = tenant_plan.plan(tenant(), inst)
    for name in (names.CORE, names.BROKER):
        service, workload = plan.get("Service", name), plan.get("StatefulSet", name)
        assert service is not None
        assert workload is not None
        assert service["spec"]["clusterIP"] == "None"
        assert workload["spec"]["serviceName"] == name
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_claims_outlive_their_sets(tenant: MakeTenant, inst: Installation) -> None:
    plan = tenant_plan.plan(tenant(core={"storage": {"size": "20Gi", "className": "fast"}}), inst)
    found = plan.get("StatefulSet", "core")
    assert found is not None
    assert found["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    claim = found["spec"]["volumeClaimTemplates"][0]
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    names_of_claims = {f"{o['spec']['volumeClaimTemplates'][0]['metadata']['name']}-{o['metadata']['name']}-0"
                       for o in plan.objects if o["kind"] == "StatefulSet"}  # fmt: skip
    assert names_of_claims == set(core.claim_names())


def test_retained_is_quiet_and_keeps_its_claims(tenant: MakeTenant, inst: Installation) -> None:
    living, kept = tenant_plan.plan(tenant(), inst), tenant_plan.retained(tenant(), inst)
    sets = [o for o in kept.objects if o["kind"] == "StatefulSet"]
    assert [o["spec"]["replicas"] for o in sets] == [0, 0]
    for item in sets:  # what is immutable stays as it was
        before = living.get("StatefulSet", item["metadata"]["name"])
        assert before is not None
        assert {**item["spec"], "replicas": 1} == before["spec"]
    assert kept.objects[0]["metadata"]["labels"][names.LABEL_RETAINED] == "true"
    kinds = {o["kind"] for o in kept.objects}
    assert "RoleBinding" not in kinds
    assert kept.get("NetworkPolicy", "folkmoot-default-deny") is not None


def namespace_of(view: TenantView, inst: Installation, **labels: str) -> Object:
    made = tenant_plan.plan(view, inst).objects[0]
    return {**made, "metadata": {**made["metadata"], "labels": {**made["metadata"]["labels"], **labels}}}


def test_its_own_namespace_is_not_foreign(tenant: MakeTenant, inst: Installation) -> None:
    assert tenant_plan.foreign_namespace(tenant(), inst, None) is None
    assert tenant_plan.foreign_namespace(tenant(), inst, namespace_of(tenant(), inst)) is None


def test_a_kept_namespace_is_adopted_by_the_same_identity_alone(tenant: MakeTenant, inst: Installation) -> None:
    kept = tenant_plan.retained(tenant(uid="old"), inst).objects[0]
    assert tenant_plan.foreign_namespace(tenant(uid="new"), inst, kept) is None
    found = tenant_plan.foreign_namespace(tenant(uid="new", cause="I am another."), inst, kept)
    assert found is not None
    assert (found.type, found.reason) == ("Conflict", "IdentityConflict")
    assert identities.tenant_identity(tenant(), inst).seed in found.message


@pytest.mark.parametrize("labels", [{}, {"app.kubernetes.io/managed-by": "Helm"}, {"app.kubernetes.io/managed-by": "folkmoot"}])
def test_a_namespace_of_somebody_else_is_never_taken(labels: Object, tenant: MakeTenant, inst: Installation) -> None:
    found = tenant_plan.foreign_namespace(tenant(), inst, {"metadata": {"name": "folkmoot-acme", "labels": labels}})
    assert found is not None
    assert (found.status, found.reason) == ("True", "NamespaceConflict")
    assert "not touched" in found.message


def test_conditions_say_what_the_spec_means(tenant: MakeTenant, inst: Installation) -> None:
    assert [(c.status, c.reason) for c in tenant_plan.plan(tenant(), inst).conditions] == [("True", "Accepted")]
    assert tenant_plan.plan(tenant(suspend=True), inst).conditions[0].reason == "Suspended"
    assert tenant_plan.plan(tenant(providers=[]), inst).conditions[0].reason == "NoProviders"
