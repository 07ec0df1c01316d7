"""An Agent's plan: its account and pods, and, when it has tools, its sandbox and the network between them."""

from __future__ import annotations

from folkmoot_core.conditions import REASON_ACCEPTED, REASON_RESOLVED, REASON_SUSPENDED, Condition, false, true
from folkmoot_core.errors import Invalid
from folkmoot_core.plan import identities
from folkmoot_core.plan.types import Installation, Plan
from folkmoot_core.plan.views import AgentView, TenantView


def plan(agent: AgentView, tenant: TenantView, inst: Installation) -> Plan:
    """Everything of one Agent. One whose grants exceed its tenant's gets conditions and no pods: it has no authority."""
    accepted = _accepted(agent, tenant)
    return Plan(objects=(), conditions=(accepted, _provider_ref(agent, tenant)))


def _accepted(agent: AgentView, tenant: TenantView) -> Condition:
    try:
        identities.check_agent(agent, tenant)
    except Invalid as error:
        return false("Accepted", error.reason, error.message)
    if agent.spec.suspend or tenant.stopped:
        who = f"Tenant {tenant.name}" if tenant.stopped else f"Agent {agent.name}"
        return true("Accepted", REASON_SUSPENDED, f"{who} is suspended or being deleted: scaled to zero")
    return true("Accepted", REASON_ACCEPTED)


def _provider_ref(agent: AgentView, tenant: TenantView) -> Condition:
    wanted = agent.spec.model.provider
    known = sorted(p.name for p in tenant.spec.providers)
    if wanted in known:
        return true("ResolvedRefs", REASON_RESOLVED)
    return false(
        "ResolvedRefs",
        "ProviderNotAllowed",
        f"model.provider {wanted} is not among the providers of Tenant {tenant.name} ({', '.join(known) or 'none'}); "
        "choose one of them or add it to the Tenant",
    )
