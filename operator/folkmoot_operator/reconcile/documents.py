"""Gathers a tenant's agents, councils, gates and prompts, and makes its document. Also: what its conductor has accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from folkmoot_core.document import TenantDocument
from folkmoot_core.plan.document import document
from folkmoot_core.plan.types import Problems
from folkmoot_core.plan.views import AgentView, TenantView, parse_agent, parse_council, parse_gate
from folkmoot_operator.kinds import AGENT, COUNCIL, GATE_POLICY, Kind
from folkmoot_operator.reconcile.context import Context

View = TypeVar("View")


def views(ctx: Context, kind: Kind, namespace: str, parse: Callable[[Any], View | Problems]) -> list[View]:
    """The valid objects of a kind in a namespace; what is wrong with the others their own conditions say."""
    parsed = (parse(raw) for raw in ctx.cache.objects(kind, namespace))
    return [view for view in parsed if not isinstance(view, Problems)]


async def make(ctx: Context, tenant: TenantView) -> TenantDocument:
    """The document as it should be now."""
    namespace = tenant.namespace
    agents = views(ctx, AGENT, namespace, parse_agent)
    return document(
        tenant,
        agents,
        views(ctx, COUNCIL, namespace, parse_council),
        views(ctx, GATE_POLICY, namespace, parse_gate),
        await _prompts(ctx, namespace, agents),
        ctx.installation(),
    )


async def accepted(ctx: Context, tenant: TenantView) -> TenantDocument | None:
    """The document that the conductor works with, if we can tell: the one last accepted, or (after a restart) the one that
    would be made now if its digest is the accepted one."""
    digest = tenant.status.get("documentDigest")
    known = ctx.memory.documents.get(tenant.meta.uid)
    if isinstance(known, TenantDocument):
        return known
    fresh = await make(ctx, tenant)
    if not digest or fresh.digest() != digest:
        return None
    ctx.memory.documents[tenant.meta.uid] = fresh
    return fresh


def uses_prompts(ctx: Context, namespace: str) -> bool:
    """Whether an agent's prompt comes from a ConfigMap, which must be read again from time to time."""
    return any((raw.get("spec") or {}).get("systemPromptFrom") for raw in ctx.cache.objects(AGENT, namespace))


async def _prompts(ctx: Context, namespace: str, agents: list[AgentView]) -> dict[str, str]:
    found: dict[str, str] = {}
    for agent in agents:
        if agent.spec.system_prompt_from is not None:
            ref = agent.spec.system_prompt_from.config_map_key_ref
            text = await ctx.config_maps.value(namespace, ref.name, ref.key)
            if text is not None:
                found[agent.name] = text
    return found
