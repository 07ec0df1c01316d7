"""The namespace of a tenant and its limits: Pod Security, quota, default limits, accounts, role bindings, trust."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from folkmoot_core import names
from folkmoot_core.plan import identities, installation, labels, pods, quantities
from folkmoot_core.plan.types import Installation, Manifest
from folkmoot_core.plan.views import TenantView
from folkmoot_core.resources.common import Subject

QUOTA = "folkmoot"  # name of the ResourceQuota; the operator reads what has been counted
COMPONENT = "namespace"
POD_SECURITY = "restricted"

# The ClusterRoles that the chart ships; the operator may bind these by name and nothing else.
ROLE_OWNER = "folkmoot-tenant-owner"
ROLE_VIEWER = "folkmoot-tenant-viewer"
ROLE_AUDITOR = "folkmoot-tenant-auditor"
ROLE_APPROVER = "folkmoot-tenant-approver"


def objects(tenant: TenantView, inst: Installation, system: Sequence[Manifest]) -> Iterator[Manifest]:
    """Namespace first, limits before anything that could use them. `system` are the workloads that Folkmoot itself runs
    in the tenant: the quota has room for them, so that a tenant's own share is wholly the tenant's."""
    yield namespace(tenant, inst)
    yield quota(tenant, inst, system)
    yield limit_range(tenant, inst)
    yield _trust(tenant, inst)
    for account in (names.SA_CORE, names.SA_BROKER, names.SA_OWNER, names.SA_VIEWER, names.SA_AUDITOR):
        yield {
            **labels.tenant_object(tenant, inst, ("v1", "ServiceAccount"), account, account),
            "automountServiceAccountToken": False,
        }
    bindings: tuple[tuple[str, str, Iterable[Subject]], ...] = (
        ("folkmoot-owners", ROLE_OWNER, tenant.spec.owners),
        ("folkmoot-viewers", ROLE_VIEWER, tenant.spec.viewers),
        ("folkmoot-auditors", ROLE_AUDITOR, tenant.spec.auditors),
    )
    for name, role, subjects in bindings:
        if manifest := _binding(tenant, inst, (name, role), tuple(subjects)):
            yield manifest


def namespace(tenant: TenantView, inst: Installation, *, retained: bool = False) -> Manifest:
    """The Namespace. No ownerReference (wiring.md §4): only the operator removes it, after the log is out."""
    own = labels.of_tenant(tenant, inst, COMPONENT)
    security = {f"pod-security.kubernetes.io/{mode}": POD_SECURITY for mode in ("enforce", "audit", "warn")}
    kept = {names.LABEL_RETAINED: "true"} if retained else {}
    seed = identities.tenant_identity(tenant, inst).seed
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": tenant.namespace,
            "labels": {**own, **security, **kept},
            "annotations": {names.ANNOTATION_ORIGIN: seed},
        },
    }


def quota(tenant: TenantView, inst: Installation, system: Sequence[Manifest]) -> Manifest:
    """The ResourceQuota: what the Tenant says plus what `system` may use."""
    wanted = tenant.spec.quota
    cpu = quantities.cpu((wanted.cpu, *pods.limits_of(system, "cpu")))
    memory = quantities.memory((wanted.memory, *pods.limits_of(system, "memory")))
    claims = [c["spec"]["resources"]["requests"]["storage"] for w in system for c in w["spec"].get("volumeClaimTemplates", ())]
    hard = {
        "requests.cpu": cpu, "limits.cpu": cpu, "requests.memory": memory, "limits.memory": memory,
        "requests.storage": quantities.memory((wanted.storage, *claims)),
        f"count/agents.{names.GROUP}": str(wanted.agents), f"count/sessions.{names.GROUP}": str(wanted.sessions),
        "services.nodeports": "0", "services.loadbalancers": "0",
    }  # fmt: skip
    return {**labels.tenant_object(tenant, inst, ("v1", "ResourceQuota"), QUOTA, COMPONENT), "spec": {"hard": hard}}


def limit_range(tenant: TenantView, inst: Installation) -> Manifest:
    """Limits for containers that name none, so that the quota admits them."""
    item = {
        "type": "Container",
        "default": {"cpu": "500m", "memory": "512Mi"},
        "defaultRequest": {"cpu": "50m", "memory": "64Mi"},
    }
    return {**labels.tenant_object(tenant, inst, ("v1", "LimitRange"), "folkmoot", COMPONENT), "spec": {"limits": [item]}}


def _trust(tenant: TenantView, inst: Installation) -> Manifest:
    head = labels.tenant_object(tenant, inst, ("v1", "ConfigMap"), names.TRUST_CONFIGMAP, COMPONENT)
    return {**head, "data": installation.trust_data(inst)}


def _binding(tenant: TenantView, inst: Installation, pair: tuple[str, str], subjects: tuple[Subject, ...]) -> Manifest | None:
    if not subjects:
        return None
    api = ("rbac.authorization.k8s.io/v1", "RoleBinding")
    return {
        **labels.tenant_object(tenant, inst, api, pair[0], COMPONENT),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": pair[1]},
        "subjects": [_subject(s) for s in subjects],
    }


def _subject(subject: Subject) -> dict[str, str]:
    if subject.kind == "ServiceAccount":
        return {"kind": "ServiceAccount", "name": subject.name, "namespace": subject.namespace or ""}
    return {"kind": subject.kind, "name": subject.name, "apiGroup": "rbac.authorization.k8s.io"}
