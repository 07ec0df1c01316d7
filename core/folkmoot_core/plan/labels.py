"""Labels, owner references and object heads of children: built here, never inline. conventions.md "Labels"."""

from __future__ import annotations

from folkmoot_core import names
from folkmoot_core.plan.types import Installation, Manifest
from folkmoot_core.plan.views import AgentView, TenantView

COMPONENT_AGENT = "agent"
COMPONENT_SANDBOX = "sandbox"
COMPONENT_OPERATOR = "operator"
COMPONENT_WITNESS = "witness"


def selector(tenant: str, component: str, agent: str = "") -> dict[str, str]:
    """Labels by which pods are selected: immutable in workloads, and what NetworkPolicies trust, so they include the
    managed-by label that the admission policy lets nobody else set."""
    labels = {names.LABEL_MANAGED_BY: names.MANAGER, names.LABEL_COMPONENT: component, names.LABEL_TENANT: tenant}
    return {**labels, names.LABEL_AGENT: agent} if agent else labels


def template(tenant: str, component: str, agent: str = "") -> dict[str, str]:
    """Labels of pods and volume claims. Without version and owner uid: a new operator or an adopted tenant must roll no pod."""
    return {
        **selector(tenant, component, agent),
        names.LABEL_NAME: f"folkmoot-{component}",
        names.LABEL_INSTANCE: agent or tenant,
        names.LABEL_PART_OF: names.MANAGER,
    }


def of_tenant(tenant: TenantView, inst: Installation, component: str) -> dict[str, str]:
    """Labels of an object that belongs to a Tenant."""
    own = {names.LABEL_VERSION: _version(inst), names.LABEL_OWNER_UID: tenant.meta.uid}
    return {**template(tenant.name, component), **own}


def of_agent(agent: AgentView, tenant: TenantView, inst: Installation, component: str) -> dict[str, str]:
    """Labels of an object that belongs to an Agent."""
    own = {names.LABEL_VERSION: _version(inst), names.LABEL_OWNER_UID: agent.meta.uid}
    return {**template(tenant.name, component, agent.name), **own}


def of_installation(inst: Installation, component: str) -> dict[str, str]:
    """Labels of an object in the operator's namespace that the operator itself keeps."""
    return {
        names.LABEL_MANAGED_BY: names.MANAGER,
        names.LABEL_COMPONENT: component,
        names.LABEL_NAME: f"folkmoot-{component}",
        names.LABEL_PART_OF: names.MANAGER,
        names.LABEL_VERSION: _version(inst),
    }


def tenant_object(tenant: TenantView, inst: Installation, api: tuple[str, str], name: str, component: str) -> Manifest:
    """Head of an object in a tenant's namespace. No ownerReference: foreground deletion of the Tenant would let the garbage
    collector take the core before its log is sealed and out; the owner is the label, and teardown is the operator's."""
    return {
        "apiVersion": api[0],
        "kind": api[1],
        "metadata": {"name": name, "namespace": tenant.namespace, "labels": of_tenant(tenant, inst, component)},
    }


def agent_object(
    view: tuple[AgentView, TenantView], inst: Installation, api: tuple[str, str], name: str, component: str
) -> Manifest:
    """Head of an object that belongs to an Agent and goes with it."""
    agent, tenant = view
    owner = {
        "apiVersion": names.API_VERSION, "kind": "Agent", "name": agent.name, "uid": agent.meta.uid,
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    return {
        "apiVersion": api[0],
        "kind": api[1],
        "metadata": {
            "name": name,
            "namespace": tenant.namespace,
            "labels": of_agent(agent, tenant, inst, component),
            "ownerReferences": [owner],
        },
    }


def _version(inst: Installation) -> str:
    """A label's value: SemVer's `+build` is not allowed in one."""
    return inst.version.replace("+", "_")[:63]
