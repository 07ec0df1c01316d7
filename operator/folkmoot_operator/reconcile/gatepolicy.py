"""Reconciles a GatePolicy: no children, only whether it is usable and whether the conductor knows it."""

from __future__ import annotations

from folkmoot_core.conditions import Condition, summarize, true
from folkmoot_core.plan import gatepolicy as gate_plan
from folkmoot_core.plan.types import Problems
from folkmoot_core.plan.views import GateView, parse_gate
from folkmoot_operator.kinds import AGENT, GATE_POLICY, Key, key_of
from folkmoot_operator.queue import Again
from folkmoot_operator.reconcile import documents, status
from folkmoot_operator.reconcile.context import Context
from folkmoot_operator.reconcile.council import no_tenant, not_known
from folkmoot_operator.reconcile.status import News


async def reconcile(ctx: Context, key: Key) -> Again:
    """Say how one GatePolicy stands."""
    raw = ctx.cache.get(GATE_POLICY, key)
    if raw is None or raw["metadata"].get("deletionTimestamp"):
        return Again()
    view = parse_gate(raw)
    if isinstance(view, Problems):
        found = view.conditions()
        await status.write(ctx, GATE_POLICY, raw, News((*found, *summarize(found, [found[0].type]))))
        return Again()
    agents = {key_of(agent).name for agent in ctx.cache.objects(AGENT, key.namespace)}
    basis = (*gate_plan.check(view, agents), await _known(ctx, view))
    await status.write(ctx, GATE_POLICY, raw, News((*basis[:-1], *summarize(basis, ["Accepted", "ResolvedRefs", "Known"]))))
    return Again()


async def _known(ctx: Context, view: GateView) -> Condition:
    tenant = ctx.tenant_of(view.meta.namespace)
    if tenant is None:
        return no_tenant(view.meta.namespace)
    document = await documents.accepted(ctx, tenant)
    if document is not None and any(g.name == view.name and g.spec == view.spec for g in document.gates):
        return true("Known", "Accepted")
    return not_known(tenant)
