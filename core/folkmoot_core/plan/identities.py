"""QNFT identities of tenants and agents from their manifests: the same here, in the operator and in the CLI. architecture.md §5."""

from __future__ import annotations

from folkmoot_core import identity
from folkmoot_core.document import Identity
from folkmoot_core.errors import Invalid
from folkmoot_core.identity import GrantsV1
from folkmoot_core.plan.types import Installation
from folkmoot_core.plan.views import AgentView, TenantView


def tenant_scope(tenant: TenantView, inst: Installation) -> str:
    """`federation/organization/tenant`; the organization defaults to the tenant's own name."""
    return "/".join((inst.federation, tenant.spec.organization or tenant.name, tenant.name))


def tenant_grants(tenant: TenantView) -> GrantsV1:
    """What anybody in the tenant may be granted: models of the allow-list, regions of the residency."""
    models = tuple(
        f"{provider.name}/{model}" for provider in tenant.spec.providers for model in ([m.name for m in provider.models] or ["*"])
    )
    residency = tenant.spec.residency
    return GrantsV1(models=tuple(sorted(set(models))), regions=tuple(sorted(set(residency.regions))) if residency else None)


def agent_grants(agent: AgentView, tenant: TenantView) -> GrantsV1:
    """What the agent's manifest asks for: its model, its allowed tools, the region its content goes to."""
    model = agent.spec.model
    region = next((p.region for p in tenant.spec.providers if p.name == model.provider), None)
    tools = tuple(f"builtin/{name}:Allow" for name in agent.spec.tools.builtin.allowed())
    return GrantsV1(models=(f"{model.provider}/{model.name}",), tools=tools, regions=(region,) if region else None)


def tenant_identity(tenant: TenantView, inst: Installation) -> Identity:
    """A tenant's identity; it is a root, so its parent commitment is 64 zeros."""
    return _identity(tenant.name, tenant_scope(tenant, inst), tenant.spec.cause, identity.ROOT_PARENT, tenant_grants(tenant))


def agent_identity(agent: AgentView, tenant: TenantView, inst: Installation) -> Identity:
    """An agent's identity under its tenant's commitment. Does not check that its grants are narrower: `check_agent` does."""
    parent = tenant_identity(tenant, inst)
    scope = f"{parent.scope}/{agent.name}"
    return _identity(agent.name, scope, agent.spec.cause, parent.commitment, agent_grants(agent, tenant))


def check_agent(agent: AgentView, tenant: TenantView) -> None:
    """Raise `Invalid` with reason GrantExceedsParent or ResidencyRefused and the grant's name if the tenant does not allow it."""
    model = agent.spec.model
    provider = next((p for p in tenant.spec.providers if p.name == model.provider), None)
    residency = tenant.spec.residency
    if provider is not None and residency is not None and provider.region not in residency.regions:
        raise Invalid(
            f"agent {agent.name}: provider {provider.name} is in region {provider.region or 'unknown'}, but tenant {tenant.name} "
            f"allows content in {', '.join(residency.regions) or 'no region'} only; choose another provider or widen spec.residency",
            reason="ResidencyRefused",
        )
    identity.check_narrower(agent_grants(agent, tenant), tenant_grants(tenant), f"agent {agent.name}")


def _identity(name: str, scope: str, cause: str, parent: str, grants: GrantsV1) -> Identity:
    seed = identity.seed(name, scope, cause)
    commitment = identity.commitment(seed, parent, grants.digest())
    return Identity(name=name, scope=scope, cause=cause, seed=seed, commitment=commitment, grants=grants)
