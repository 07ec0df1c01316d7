"""The tenant document: the whole set of what a tenant's processes need to know. wiring.md §3."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from folkmoot_core.document import AgentEntry, CouncilEntry, GateEntry, TenantDocument
from folkmoot_core.errors import Invalid
from folkmoot_core.plan import audit, identities
from folkmoot_core.plan.types import Installation
from folkmoot_core.plan.views import AgentView, CouncilView, GateView, TenantView


def document(  # noqa: PLR0913 - one argument per kind that goes in; a holder class would only rename them
    tenant: TenantView,
    agents: Iterable[AgentView],
    councils: Iterable[CouncilView],
    gates: Iterable[GateView],
    prompts: Mapping[str, str],
    inst: Installation,
) -> TenantDocument:
    """The document. Agents that are being deleted, whose grants exceed the tenant's, or whose systemPromptFrom is not in
    `prompts` (agent name → text) are left out: they have no authority, and their own conditions say why."""
    return TenantDocument(
        tenant=tenant.name,
        tenant_uid=tenant.meta.uid,
        namespace=tenant.namespace,
        generation=tenant.meta.generation,
        identity=identities.tenant_identity(tenant, inst),
        providers=tuple(sorted(tenant.spec.providers, key=lambda p: p.name)),
        residency=tuple(sorted(set(tenant.spec.residency.regions))) if tenant.spec.residency else (),
        currency=tenant.spec.currency,
        agents=tuple(
            entry for a in sorted(agents, key=lambda a: a.name) if (entry := _agent(a, tenant, prompts, inst)) is not None
        ),
        councils=tuple(
            CouncilEntry(name=c.name, spec=c.spec) for c in sorted(councils, key=lambda c: c.name) if not c.meta.terminating
        ),
        gates=tuple(GateEntry(name=g.name, spec=g.spec) for g in sorted(gates, key=lambda g: g.name) if not g.meta.terminating),
        suspended=tenant.stopped,
        audit=audit.entry(tenant.spec.audit, inst),
    )


def _agent(agent: AgentView, tenant: TenantView, prompts: Mapping[str, str], inst: Installation) -> AgentEntry | None:
    prompt = agent.spec.system_prompt or ""
    if agent.spec.system_prompt_from is not None:
        if agent.name not in prompts:
            return None
        prompt = prompts[agent.name]
    try:
        identities.check_agent(agent, tenant)
    except Invalid:
        return None  # plan.agent.plan says so in the Agent's conditions, with the grant's name
    if agent.meta.terminating:
        return None
    return AgentEntry(
        name=agent.name,
        spec=agent.spec,
        system_prompt=prompt,
        identity=identities.agent_identity(agent, tenant, inst),
        suspended=agent.spec.suspend or tenant.stopped,
    )
