"""A Tenant's plan: namespace, quota, network, roles, trust, core, broker and the checks' sandbox.

`plan` is what should exist while the Tenant lives, `retained` what is left of it under deletionPolicy Retain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from folkmoot_core import names
from folkmoot_core.conditions import REASON_ACCEPTED, REASON_SUSPENDED, Condition, false, true
from folkmoot_core.plan import identities, namespace
from folkmoot_core.plan.types import Installation, Plan
from folkmoot_core.plan.views import TenantView


def plan(tenant: TenantView, inst: Installation) -> Plan:
    """Everything of a living Tenant, namespace first. With `suspend`, core and broker run on and agents go to zero."""
    objects = (*namespace.objects(tenant, inst),)
    return Plan(objects=objects, conditions=_conditions(tenant))


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
