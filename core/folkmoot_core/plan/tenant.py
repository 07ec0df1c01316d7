"""A Tenant's plan: namespace, quota, network, roles, trust, core, broker and the checks' sandbox.

`plan` is what should exist while the Tenant lives, `retained` what is left of it under deletionPolicy Retain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from folkmoot_core import names
from folkmoot_core.conditions import REASON_ACCEPTED, REASON_SUSPENDED, Condition, false, true
from folkmoot_core.plan import broker, core, identities, labels, namespace, network, sandbox
from folkmoot_core.plan.types import Installation, Manifest, Plan
from folkmoot_core.plan.views import TenantView


def plan(tenant: TenantView, inst: Installation) -> Plan:
    """Everything of a living Tenant, namespace first. With `suspend` its core and broker run on (sessions can be read, the
    log answers); its agents go to zero by their own plans."""
    system = (core.stateful_set(tenant, inst), broker.stateful_set(tenant, inst), _checks(tenant, inst))
    objects = (
        *namespace.objects(tenant, inst, system),
        *network.of_tenant(tenant, inst),
        core.service(tenant, inst),
        broker.service(tenant, inst),
        _checks_service(tenant, inst),
        *system,
    )
    return Plan(objects=objects, conditions=_conditions(tenant))


def retained(tenant: TenantView, inst: Installation) -> Plan:
    """What stays of a Tenant that is deleted under Retain: its namespace with quota, default-deny and the two sets scaled to
    zero, whose claims hold the sealed log. Everything else of the owner is pruned, role bindings first of all."""
    system = (core.stateful_set(tenant, inst, replicas=0), broker.stateful_set(tenant, inst, replicas=0))
    objects = (
        namespace.namespace(tenant, inst, retained=True),
        namespace.quota(tenant, inst, system),
        namespace.limit_range(tenant, inst),
        network.default_deny(tenant, inst),
        *system,
    )
    return Plan(objects=objects)


def foreign_namespace(tenant: TenantView, inst: Installation, raw: Mapping[str, Any] | None) -> Condition | None:
    """Whether the namespace `folkmoot-<name>`, as it is now, belongs to somebody else: then a `Conflict` condition (and the
    caller applies nothing), else None. One kept by deletionPolicy Retain is adopted by a Tenant of the same identity."""
    if raw is None:
        return None
    labels = raw.get("metadata", {}).get("labels") or {}
    annotations = raw.get("metadata", {}).get("annotations") or {}
    if labels.get(names.LABEL_MANAGED_BY) == names.MANAGER and labels.get(names.LABEL_TENANT) == tenant.name:
        if labels.get(names.LABEL_OWNER_UID) == tenant.meta.uid:
            return None
        seed = identities.tenant_identity(tenant, inst).seed
        if annotations.get(names.ANNOTATION_ORIGIN) == seed:
            return None
        return true(
            "Conflict",
            "IdentityConflict",
            f"namespace {tenant.namespace} was kept from an earlier Tenant {tenant.name} with another cause or scope (identity "
            f"{annotations.get(names.ANNOTATION_ORIGIN, 'unknown')}, this one is {seed}); use another name or the earlier cause",
        )
    return true(
        "Conflict",
        "NamespaceConflict",
        f"namespace {tenant.namespace} exists and was not made by Folkmoot; it is not touched: use another tenant name or remove it",
    )


def _conditions(tenant: TenantView) -> tuple[Condition, ...]:
    if tenant.spec.suspend:
        return (true("Accepted", REASON_SUSPENDED, "spec.suspend is true: agents are scaled to zero, no new session is opened"),)
    if not tenant.spec.providers:
        return (false("Accepted", "NoProviders", "spec.providers is empty: no model can be called; add a provider"),)
    return (true("Accepted", REASON_ACCEPTED),)


def _checks(tenant: TenantView, inst: Installation) -> Manifest:
    """The gate's own sandbox: only the core may use it, and only to run commands."""
    jail = sandbox.Jail(caller=names.SA_CORE, tools=("bash",), workspace="1Gi")
    name = names.SANDBOX_CHECKS
    head = labels.tenant_object(tenant, inst, ("apps/v1", "Deployment"), name, name)
    pod = sandbox.pod(tenant, inst, jail)
    return sandbox.deployment(head, labels.selector(tenant.name, name), labels.template(tenant.name, name), pod, 1)


def _checks_service(tenant: TenantView, inst: Installation) -> Manifest:
    name = names.SANDBOX_CHECKS
    head = labels.tenant_object(tenant, inst, ("v1", "Service"), name, name)
    return core.headless(head, labels.selector(tenant.name, name), {"sandbox": names.PORT_SANDBOX}, before_ready=False)
