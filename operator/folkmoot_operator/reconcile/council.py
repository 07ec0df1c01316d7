"""Reconciles a Council: no children, only whether it is usable and whether the conductor knows it."""

from __future__ import annotations

from folkmoot_core.conditions import Condition, false, summarize, true
from folkmoot_core.plan import council as council_plan
from folkmoot_core.plan.types import Problems
from folkmoot_core.plan.views import CouncilView, TenantView, parse_council
from folkmoot_operator.kinds import AGENT, COUNCIL, GATE_POLICY, Key, key_of
from folkmoot_operator.queue import Again
from folkmoot_operator.reconcile import documents, status
from folkmoot_operator.reconcile.context import Context
from folkmoot_operator.reconcile.status import News


async def reconcile(ctx: Context, key: Key) -> Again:
    """Say how one Council stands."""
    raw = ctx.cache.get(COUNCIL, key)
    if raw is None or raw["metadata"].get("deletionTimestamp"):
        return Again()
    view = parse_council(raw)
    if isinstance(view, Problems):
        found = view.conditions()
        await status.write(ctx, COUNCIL, raw, News((*found, *summarize(found, [found[0].type]))))
        return Again()
    agents = {key_of(agent).name for agent in ctx.cache.objects(AGENT, key.namespace)}
    gates = {key_of(gate).name for gate in ctx.cache.objects(GATE_POLICY, key.namespace)}
    basis = (*council_plan.check(view, agents, gates), await _known(ctx, view))
    found = (*basis[:-1], *summarize(basis, ["Accepted", "ResolvedRefs", "Known"]))
    await status.write(ctx, COUNCIL, raw, News(found, {"members": len(view.spec.members)}))
    return Again()


async def _known(ctx: Context, view: CouncilView) -> Condition:
    tenant = ctx.tenant_of(view.meta.namespace)
    if tenant is None:
        return no_tenant(view.meta.namespace)
    document = await documents.accepted(ctx, tenant)
    if document is not None and any(c.name == view.name and c.spec == view.spec for c in document.councils):
        return true("Known", "Accepted")
    return not_known(tenant)


def no_tenant(namespace: str) -> Condition:
    """The internal condition of an object in a namespace that belongs to nobody."""
    return false("Known", "TenantNotFound", f"namespace {namespace} belongs to no living Tenant; create one first")


def not_known(tenant: TenantView) -> Condition:
    """The internal condition of an object that the conductor has not taken yet."""
    return false("Known", "Progressing", f"the conductor of Tenant {tenant.name} has not accepted it yet")
