"""Reconciles an Agent: its account, pods and sandbox, its identity, its conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from folkmoot_core import names
from folkmoot_core.conditions import REASON_SUSPENDED, Condition, false, summarize, true, unknown
from folkmoot_core.errors import Invalid
from folkmoot_core.plan import agent as agent_plan
from folkmoot_core.plan import identities
from folkmoot_core.plan.types import Plan, Problems
from folkmoot_core.plan.views import AgentView, TenantView, parse_agent
from folkmoot_operator.applier import Outcome, belongs_to_tenant
from folkmoot_operator.kinds import AGENT, DEPLOYMENT, Key, Obj, uid_of
from folkmoot_operator.queue import Again
from folkmoot_operator.reconcile import status
from folkmoot_operator.reconcile.context import PROMPT_SECONDS, Context
from folkmoot_operator.reconcile.status import News
from folkmoot_operator.reconcile.tenant import shown, workload

_NEEDED: Final = ("Accepted", "ResolvedRefs", "NotForeign", "Runs", "PodsReady", "IdentityBound")
_INTERNAL: Final = ("NotForeign", "Runs", "PodsReady")  # they give Ready its reason and are not published


@dataclass(frozen=True)
class Observed:
    """What the cluster, the core and the broker say, as a value."""

    deployment: Obj | None
    commitment: str  # that it should be bound under; empty: it has no authority
    seed: str = ""  # of the manifest
    prompt_missing: str = ""  # sentence, where systemPromptFrom leads nowhere


async def reconcile(ctx: Context, key: Key) -> Again:
    """Bring one Agent nearer to what it says."""
    raw = ctx.cache.get(AGENT, key)
    if raw is None or raw["metadata"].get("deletionTimestamp"):
        return Again()  # its children go with it, by ownerReference
    view = parse_agent(raw)
    if isinstance(view, Problems):
        found = view.conditions()
        await status.write(ctx, AGENT, raw, News((*found, *summarize(found, [found[0].type]))))
        return Again()
    tenant = ctx.tenant_of(key.namespace)
    if tenant is None:
        missing = false(
            "ResolvedRefs", "TenantNotFound", f"namespace {key.namespace} belongs to no living Tenant; create one first"
        )
        await status.write(ctx, AGENT, raw, News((missing, *summarize([missing], ["ResolvedRefs"]))))
        return Again()
    plan = agent_plan.plan(view, tenant, ctx.installation())
    owned = ctx.cache.labelled(names.LABEL_OWNER_UID, uid_of(raw))
    outcome = await ctx.applier.converge(plan.objects, owned, belongs_to_tenant(tenant.name))
    observed = Observed(
        deployment=ctx.cache.get(DEPLOYMENT, Key(key.namespace, names.agent_workload(view.name))),
        commitment=_commitment(ctx, view, tenant),
        seed=_seed(ctx, view, tenant),
        prompt_missing=await _prompt_missing(ctx, view),
    )
    found = conditions(view, tenant, plan, outcome, observed)
    published = [c for c in found if c.type not in _INTERNAL]
    drop = () if outcome.foreign else ("Conflict",)
    await status.write(ctx, AGENT, raw, News(published, _fields(ctx, view, tenant, observed), drop))
    return Again(PROMPT_SECONDS if view.spec.system_prompt_from else plan.requeue_after)


def conditions(view: AgentView, tenant: TenantView, plan: Plan, outcome: Outcome, seen: Observed) -> tuple[Condition, ...]:
    """All conditions of an Agent, internal ones included. Pure."""
    found = list(plan.conditions)
    if outcome.refused:
        found.append(false("Accepted", "Refused", "; ".join(outcome.refused)))
    if seen.prompt_missing:
        found.append(false("ResolvedRefs", "RefNotFound", seen.prompt_missing))
    if outcome.foreign:
        sentence = "; ".join(str(item) for item in outcome.foreign)
        found += [true("Conflict", "Conflict", sentence), false("NotForeign", "Conflict", sentence)]
    else:
        found.append(true("NotForeign", "NoConflict"))
    stopped = view.spec.suspend or tenant.stopped
    found.append(false("Runs", REASON_SUSPENDED, "suspended: it has no pods") if stopped else true("Runs", "Runs"))
    pods = workload("PodsReady", seen.deployment)
    found += [pods, _progressing(seen.deployment, pods), _bound(view, tenant, seen), _provider(view, tenant)]
    return (*found, *summarize(found, _NEEDED))


def _progressing(deployment: Obj | None, pods: Condition) -> Condition:
    """As on a Deployment: True while pods are being replaced, False once they are or once they will not be."""
    stored = ((deployment or {}).get("status") or {}).get("conditions") or ()
    failed = next((c for c in stored if c.get("type") == "Progressing" and c.get("status") == "False"), None)
    if failed is not None:
        return false("Progressing", "DeadlineExceeded", str(failed.get("message", ""))[:512])
    if pods.status == "True" or deployment is None:
        return false("Progressing", "Complete" if deployment else "NotCreated", "")
    return true("Progressing", "RollingOut", pods.message)


def _bound(view: AgentView, tenant: TenantView, seen: Observed) -> Condition:
    reported, commitment = view.status, seen.commitment
    if reported.get("sequence") is None:
        return unknown("IdentityBound", "NotReported", "the core has not reported this agent yet")
    first = reported.get("boundSeed")
    if first and seen.seed and first != seen.seed:
        return false(
            "IdentityBound", "IdentityConflict",
            f"Agent {view.name} is on record in the log of Tenant {tenant.name} under seed {first}, this manifest makes {seen.seed}: a "
            f"name keeps its cause for ever, so it gets no work; delete it, and use another name or the earlier cause",
        )  # fmt: skip
    bound = reported.get("boundCommitment")
    if not bound:
        return false("IdentityBound", "NotBound", "its key is not bound to its identity in the ledger yet")
    if bound != commitment:
        return false("IdentityBound", "Outdated", f"bound under commitment {bound}, its grants now make {commitment or 'none'}")
    if not reported.get("alive"):
        return false("IdentityBound", "NotAlive", "bound, but not seen on the bus within the last 30 s")
    return true("IdentityBound", "Bound")


def _provider(view: AgentView, tenant: TenantView) -> Condition:
    name = view.spec.model.provider
    found = next((p for p in tenant.status.get("providers") or () if p.get("name") == name), None)
    if found is None:
        return unknown("ProviderAvailable", "NotReported", f"the broker has not reported provider {name} yet")
    reason, message = str(found.get("reason") or ""), str(found.get("message") or "")
    word = reason if reason.isalnum() and reason[:1].isupper() else ""
    if found.get("available"):
        return true("ProviderAvailable", word or "Available", message)
    return false("ProviderAvailable", word or "Unavailable", message or f"provider {name} does not answer")


def _fields(ctx: Context, view: AgentView, tenant: TenantView, seen: Observed) -> dict[str, Any]:
    deployment = seen.deployment or {}
    ready = int((deployment.get("status") or {}).get("readyReplicas") or 0)
    try:
        identity = shown(identities.agent_identity(view, tenant, ctx.installation()))
    except Invalid:
        identity = None
    return {"identity": identity, "replicas": (deployment.get("spec") or {}).get("replicas"), "readyReplicas": ready}


def _seed(ctx: Context, view: AgentView, tenant: TenantView) -> str:
    try:
        return identities.agent_identity(view, tenant, ctx.installation()).seed
    except Invalid:
        return ""


def _commitment(ctx: Context, view: AgentView, tenant: TenantView) -> str:
    try:
        identities.check_agent(view, tenant)
        return identities.agent_identity(view, tenant, ctx.installation()).commitment
    except Invalid:
        return ""


async def _prompt_missing(ctx: Context, view: AgentView) -> str:
    source = view.spec.system_prompt_from
    if source is None:
        return ""
    ref = source.config_map_key_ref
    if await ctx.config_maps.value(view.meta.namespace, ref.name, ref.key) is not None:
        return ""
    return f"systemPromptFrom: ConfigMap {ref.name} with key {ref.key} not found in {view.meta.namespace}; create it"
