"""Reconciles a Tenant: its namespace and what is in it, its document, its conditions; hands deletions to `teardown`."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from folkmoot_core import names
from folkmoot_core.conditions import Condition, false, summarize, true
from folkmoot_core.document import Identity, TenantDocument
from folkmoot_core.errors import FolkmootError, Missing, Unavailable
from folkmoot_core.plan import audit_conditions, identities
from folkmoot_core.plan import namespace as namespace_plan
from folkmoot_core.plan import tenant as tenant_plan
from folkmoot_core.plan.types import Problems
from folkmoot_core.plan.views import TenantView, parse_tenant
from folkmoot_operator import mapping
from folkmoot_operator.applier import Outcome, belongs_to_tenant
from folkmoot_operator.kinds import (
    AGENT,
    NAMESPACE,
    NETWORK_POLICY,
    RESOURCE_QUOTA,
    STATEFUL_SET,
    TENANT,
    Key,
    Kind,
    Obj,
    key_of,
    labels_of,
    uid_of,
)
from folkmoot_operator.queue import Again, Retry
from folkmoot_operator.reconcile import documents, reactions, status, teardown
from folkmoot_operator.reconcile.context import PROMPT_SECONDS, Context
from folkmoot_operator.reconcile.status import News

log = logging.getLogger(__name__)
REPUT_SECONDS: Final = 30.0  # a report that was under way while we handed over a document still names the old one
# The quota controller looks for new kinds every 30 s, and counts a quota that it could not count only after 5 minutes, or anew.
RECOUNT_SECONDS: Final = 40.0
_NEEDED: Final = ("Accepted", "NamespaceReady", "CoreReady", "BrokerReady", "DocumentAccepted")
_INTERNAL: Final = (
    "NotForeign",
    "CoreReady",
    "BrokerReady",
    "DocumentAccepted",
)  # they give Ready its reason and are not published


@dataclass(frozen=True)
class HandOver:
    """Whether the conductor has the document that it should have."""

    digest: str
    """Digest that it accepted last; empty: none."""
    condition: Condition
    retry: float | None = None
    """Least seconds until the next attempt; None: something else has to change first."""


@dataclass(frozen=True)
class Observed:
    """What the cluster and the conductor say, as a value."""

    namespace: Obj | None
    core: Obj | None
    broker: Obj | None
    policies: int
    handover: HandOver
    quota: Obj | None = None
    log: tuple[Condition, ...] = ()
    """What is to be said of its log."""


async def reconcile(ctx: Context, key: Key) -> Again:
    """Bring one Tenant nearer to what it says."""
    raw = ctx.cache.get(TENANT, key)
    if raw is None:
        ctx.metrics.forget(key.name)
        return Again()
    view = parse_tenant(raw)
    if raw["metadata"].get("deletionTimestamp"):
        return await teardown.reconcile(ctx, raw, view)
    if isinstance(view, Problems):
        await status.write(ctx, TENANT, raw, News(_with_ready(view.conditions())))
        return Again()
    raw = await _ensure_finalizer(ctx, raw)
    foreign = tenant_plan.foreign_namespace(view, ctx.installation(), await _namespace(ctx, view))
    if foreign is not None:
        stalled = (foreign, *_not_ours(foreign))
        await status.write(ctx, TENANT, raw, News(stalled, {"namespace": None}))
        return Again()
    return await _converge(ctx, raw, view)


async def _converge(ctx: Context, raw: Obj, view: TenantView) -> Again:
    plan = tenant_plan.plan(view, ctx.installation())
    namespace = ctx.cache.get(NAMESPACE, Key("", view.namespace))
    if namespace is not None and namespace["metadata"].get("deletionTimestamp"):
        outcome = Outcome()  # somebody removes it: nothing can be created in it, and once it is gone it is made again
    else:
        outcome = await ctx.applier.converge(plan.objects, _owned(ctx, view), _ours(view))
    handover = await _hand_over(ctx, view, await documents.make(ctx, view))
    log_conditions, late = _log(ctx, view)
    observed = Observed(
        namespace=ctx.cache.get(NAMESPACE, Key("", view.namespace)),
        core=ctx.cache.get(STATEFUL_SET, Key(view.namespace, names.CORE)),
        broker=ctx.cache.get(STATEFUL_SET, Key(view.namespace, names.BROKER)),
        policies=len(ctx.cache.objects(NETWORK_POLICY, view.namespace)),
        handover=handover,
        quota=ctx.cache.get(RESOURCE_QUOTA, Key(view.namespace, namespace_plan.QUOTA)),
        log=log_conditions,
    )
    found = conditions(view, plan.conditions, outcome, observed)
    published = [c for c in found if c.type not in _INTERNAL]
    drop = () if outcome.foreign else ("Conflict",)
    await status.write(ctx, TENANT, raw, News(published, _fields(ctx, view, observed), drop))
    if handover.digest != (view.status.get("documentDigest") or ""):
        # Our own write may be in the cache before the watch tells of it, and is then no news there: say it here.
        for ref in mapping.inside(ctx.cache, view.namespace):
            ctx.enqueue(ref)
    if handover.retry is not None:
        raise Retry(handover.retry)
    again = PROMPT_SECONDS if documents.uses_prompts(ctx, view.namespace) else None
    recount = await _recount(ctx, observed.quota)
    return Again(min((t for t in (plan.requeue_after, again, recount, late) if t is not None), default=None))


def conditions(view: TenantView, planned: tuple[Condition, ...], outcome: Outcome, seen: Observed) -> list[Condition]:
    """All conditions of a living Tenant, internal ones included. Pure."""
    found = list(planned)
    if outcome.foreign:
        sentence = "; ".join(str(item) for item in outcome.foreign)
        found += [true("Conflict", "Conflict", sentence), false("NotForeign", "Conflict", sentence)]
    if outcome.refused:
        found.append(false("Accepted", "Refused", "; ".join(outcome.refused)))
    found.append(_namespace_ready(view, seen.namespace, seen.quota))
    if seen.policies:
        found.append(true("NetworkIsolated", "PoliciesApplied"))
    else:
        found.append(false("NetworkIsolated", "NoPolicies", f"no NetworkPolicy in namespace {view.namespace}"))
    found += seen.log
    found += [workload("CoreReady", seen.core), workload("BrokerReady", seen.broker), seen.handover.condition]
    return [*found, *summarize(found, ("NotForeign", *_NEEDED) if outcome.foreign else _NEEDED)]


def _log(ctx: Context, view: TenantView) -> tuple[tuple[Condition, ...], float | None]:
    """The conditions of its log, and in how many seconds time alone may change them. The metrics follow."""
    audit = (ctx.cache.get(TENANT, Key("", view.name)) or {}).get("status", {}).get("audit") or {}
    now = ctx.epoch()
    ready = audit_conditions.ready(audit, ctx.memory.forks.get(view.meta.uid, ""))
    anchored, late = audit_conditions.anchored(audit, view.spec.audit.timestamps, now)
    ctx.metrics.tell_log(view.name, audit, forked=ready.reason == "ForkDetected")
    return (ready, anchored), late if late is None else late + 1.0


def _namespace_ready(view: TenantView, namespace: Obj | None, quota: Obj | None) -> Condition:
    if namespace is None:
        return false("NamespaceReady", "NamespaceNotReady", f"namespace {view.namespace} does not exist yet")
    if namespace["metadata"].get("deletionTimestamp"):
        return false(
            "NamespaceReady", "NamespaceNotReady", f"namespace {view.namespace} is being deleted; it is made again after that"
        )
    uncounted = _uncounted(quota)
    if uncounted:
        waits = f"namespace {view.namespace}: the cluster's quota controller has not counted {', '.join(uncounted)} yet; it will by itself"
        return false("NamespaceReady", "QuotaNotCounted", waits)
    return true("NamespaceReady", "NamespaceReady")


def _uncounted(quota: Obj | None) -> list[str]:
    """What the quota limits and nobody has counted: the API server refuses every Agent and Session with "status unknown for
    quota" until then. Kubernetes itself always sends `status`."""
    state = quota.get("status") if quota is not None else None
    if quota is None or state is None:
        return []
    return sorted(set(quota.get("spec", {}).get("hard") or {}) - set(state.get("used") or {}))


async def _recount(ctx: Context, quota: Obj | None) -> float | None:
    """Have an old uncounted quota counted by making it anew (the next reconcile does). Seconds until it is looked at again."""
    if quota is None or not _uncounted(quota):
        return None
    made = datetime.fromisoformat(quota["metadata"]["creationTimestamp"]).timestamp()
    if ctx.epoch() - made < RECOUNT_SECONDS:
        return RECOUNT_SECONDS / 4
    log.info("quota is made anew to be counted", extra={"namespace": quota["metadata"]["namespace"]})
    await ctx.kube.delete(RESOURCE_QUOTA, key_of(quota), uid=quota["metadata"]["uid"])
    return 1.0


def workload(type_: str, obj: Obj | None) -> Condition:
    """Whether a StatefulSet or Deployment runs what it should, all of it. Pure."""
    if obj is None:
        return false(type_, "Progressing", f"{type_.removesuffix('Ready')}: not created yet")
    name, want = obj["metadata"]["name"], int((obj.get("spec") or {}).get("replicas", 1))
    state = obj.get("status") or {}
    ready, updated = int(state.get("readyReplicas") or 0), int(state.get("updatedReplicas") or 0)
    current = int(state.get("observedGeneration") or 0) >= int(obj["metadata"].get("generation") or 0)
    if current and ready >= want and updated >= want:
        return true(type_, "PodsReady")
    return false(type_, "PodsNotReady", f"{obj['kind']} {name}: {ready} of {want} pods are ready, {updated} up to date")


async def _hand_over(ctx: Context, view: TenantView, document: TenantDocument) -> HandOver:
    """PUT the document if the conductor does not have it."""
    digest, uid = document.digest(), view.meta.uid
    stored = (ctx.cache.get(TENANT, Key("", view.name)) or {}).get("status") or {}
    known = str(stored.get("documentDigest") or "")
    if known == digest and not _lost(ctx, uid, stored, digest):
        ctx.memory.documents[uid] = document
        return HandOver(digest, true("DocumentAccepted", "Accepted"))
    core = workload("CoreReady", ctx.cache.get(STATEFUL_SET, Key(view.namespace, names.CORE)))
    if core.status != "True":
        return HandOver(
            known, false("DocumentAccepted", "Progressing", f"the core cannot take the tenant document: {core.message}")
        )
    try:
        answer = await ctx.conductor.put_document(document)
        if answer != digest:
            raise Unavailable(f"the conductor acknowledged {answer or 'nothing'} instead of {digest}", reason="DigestMismatch")
    except FolkmootError as error:
        log.warning("the tenant document was not accepted", extra={"tenant": view.name, "error": error.message})
        retry = reactions.retry_after(error) if reactions.reaction(error).retry else None
        return HandOver(known, false("DocumentAccepted", reactions.condition(error).reason, error.message), retry)
    ctx.memory.documents[uid] = document
    ctx.memory.put_at[uid] = asyncio.get_running_loop().time()
    log.info("handed over the tenant document", extra={"tenant": view.name, "digest": digest})
    return HandOver(digest, true("DocumentAccepted", "Accepted"))


def _lost(ctx: Context, uid: str, stored: dict[str, Any], digest: str) -> bool:
    """Whether the core itself says, for some time, that it works with another document (its volume was restored or lost)."""
    reported = stored.get("reportedDocument")
    if not reported or reported == digest:
        return False
    now = asyncio.get_running_loop().time()
    since = ctx.memory.put_at.setdefault(uid, now)
    return now - since >= REPUT_SECONDS


def _fields(ctx: Context, view: TenantView, seen: Observed) -> dict[str, Any]:
    return {
        "namespace": view.namespace,
        "agents": len(ctx.cache.objects(AGENT, view.namespace)),
        "identity": shown(identities.tenant_identity(view, ctx.installation())),
        "documentDigest": seen.handover.digest or None,
    }


def _owned(ctx: Context, view: TenantView) -> list[tuple[Kind, Obj]]:
    """Children of this Tenant, and what an earlier Tenant of a kept namespace has left behind."""
    mine = ctx.cache.labelled(names.LABEL_OWNER_UID, view.meta.uid)
    agents = {uid_of(agent) for agent in ctx.cache.objects(AGENT, view.namespace)}
    left = [
        (kind, obj)
        for kind, obj in ctx.cache.labelled(names.LABEL_TENANT, view.name)
        if labels_of(obj).get(names.LABEL_OWNER_UID) not in {view.meta.uid, *agents} and key_of(obj).namespace == view.namespace
    ]
    return [*mine, *left]


def _ours(view: TenantView) -> Any:
    by_label = belongs_to_tenant(view.name)

    def ours(kind: Kind, live: Obj) -> bool:
        return kind == NAMESPACE or by_label(kind, live)  # `foreign_namespace` has judged the Namespace already

    return ours


async def _namespace(ctx: Context, view: TenantView) -> Obj | None:
    """The namespace as it is, labelled or not."""
    key = Key("", view.namespace)
    known = ctx.cache.get(NAMESPACE, key)
    if known is not None:
        return known
    try:
        return await ctx.kube.get(NAMESPACE, key)
    except Missing:
        return None


async def _ensure_finalizer(ctx: Context, raw: Obj) -> Obj:
    finalizers = raw["metadata"].get("finalizers") or []
    if names.FINALIZER in finalizers:
        return raw
    metadata = {"finalizers": [*finalizers, names.FINALIZER], "resourceVersion": raw["metadata"]["resourceVersion"]}
    answer = await ctx.kube.patch(TENANT, key_of(raw), {"metadata": metadata})
    ctx.cache.wrote(TENANT, answer)
    return answer


def shown(identity: Identity) -> dict[str, str]:
    """An identity as status has it."""
    digest = identity.grants.digest()
    return {"scope": identity.scope, "seed": identity.seed, "commitment": identity.commitment, "grantsDigest": digest}


def _with_ready(found: tuple[Condition, ...]) -> tuple[Condition, ...]:
    return (*found, *summarize(found, [c.type for c in found if c.status != "True"] or ["Accepted"]))


def _not_ours(foreign: Condition) -> tuple[Condition, ...]:
    missing = false("NamespaceReady", foreign.reason, foreign.message)
    return (missing, *summarize([missing], ["NamespaceReady"]))
