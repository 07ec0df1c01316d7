"""Reconciles a Tenant: its namespace and what is in it, its document, its conditions; hands deletions to `teardown`."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final

from folkmoot_core import names
from folkmoot_core.conditions import Condition, false, summarize, true, unknown
from folkmoot_core.document import TenantDocument
from folkmoot_core.errors import FolkmootError, Missing
from folkmoot_core.plan import identities
from folkmoot_core.plan import tenant as tenant_plan
from folkmoot_core.plan.types import Problems
from folkmoot_core.plan.views import TenantView, parse_tenant
from folkmoot_operator.applier import Outcome, belongs_to_tenant
from folkmoot_operator.kinds import (
    AGENT,
    NAMESPACE,
    NETWORK_POLICY,
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

log = logging.getLogger(__name__)
REPUT_SECONDS: Final = 30.0  # a report that was under way while we handed over a document still names the old one
_NEEDED: Final = ("Accepted", "NamespaceReady", "CoreReady", "BrokerReady", "DocumentAccepted")
_INTERNAL: Final = ("CoreReady", "BrokerReady", "DocumentAccepted")  # they give Ready its reason and are not published


@dataclass(frozen=True)
class Observed:
    """What the cluster and the conductor say, as a value."""

    namespace: Obj | None
    core: Obj | None
    broker: Obj | None
    policies: int
    document: str = ""  # digest that the conductor accepted
    wanted: str = ""  # digest that it should have
    handover: FolkmootError | None = None


async def reconcile(ctx: Context, key: Key) -> Again:
    """Bring one Tenant nearer to what it says."""
    raw = ctx.cache.get(TENANT, key)
    if raw is None:
        return Again()
    view = parse_tenant(raw)
    if raw["metadata"].get("deletionTimestamp"):
        return await teardown.reconcile(ctx, raw, view)
    if isinstance(view, Problems):
        await status.write(ctx, TENANT, raw, _with_ready(view.conditions()))
        return Again()
    raw = await _ensure_finalizer(ctx, raw)
    foreign = tenant_plan.foreign_namespace(view, ctx.installation(), await _namespace(ctx, view))
    if foreign is not None:
        stalled = (foreign, *_not_ours(foreign))
        await status.write(ctx, TENANT, raw, stalled, {"namespace": None})
        return Again()
    return await _converge(ctx, raw, view)


async def _converge(ctx: Context, raw: Obj, view: TenantView) -> Again:
    plan = tenant_plan.plan(view, ctx.installation())
    outcome = await ctx.applier.converge(plan.objects, _owned(ctx, view), _ours(view))
    document = await documents.make(ctx, view)
    handover = await _hand_over(ctx, view, document)
    stored = (ctx.cache.get(TENANT, key_of(raw)) or raw).get("status") or {}
    observed = Observed(
        namespace=ctx.cache.get(NAMESPACE, Key("", view.namespace)),
        core=ctx.cache.get(STATEFUL_SET, Key(view.namespace, names.CORE)),
        broker=ctx.cache.get(STATEFUL_SET, Key(view.namespace, names.BROKER)),
        policies=len(ctx.cache.list(NETWORK_POLICY, view.namespace)),
        document=document.digest() if handover is None else str(stored.get("document", "")), wanted=document.digest(), handover=handover,
    )  # fmt: skip
    found = conditions(view, plan.conditions, outcome, observed)
    published = [c for c in found if c.type not in _INTERNAL]
    await status.write(ctx, TENANT, raw, published, _fields(ctx, view, observed), drop=() if outcome.foreign else ("Conflict",))
    if handover is not None and reactions.reaction(handover).retry:
        raise Retry(reactions.retry_after(handover))
    again = PROMPT_SECONDS if documents.uses_prompts(ctx, view.namespace) else None
    return Again(min((t for t in (plan.requeue_after, again) if t is not None), default=None))


def conditions(view: TenantView, planned: tuple[Condition, ...], outcome: Outcome, seen: Observed) -> list[Condition]:
    """All conditions of a living Tenant. Pure; the last three but Ready's are internal."""
    found = list(planned)
    if outcome.foreign:
        found.append(true("Conflict", "Conflict", "; ".join(str(item) for item in outcome.foreign)))
    if outcome.refused:
        found.append(false("Accepted", "Refused", "; ".join(outcome.refused)))
    terminating = seen.namespace is not None and seen.namespace["metadata"].get("deletionTimestamp")
    if seen.namespace is None or terminating:
        word = "is being deleted by somebody" if terminating else "does not exist yet"
        found.append(false("NamespaceReady", "NamespaceNotReady", f"namespace {view.namespace} {word}"))
    else:
        found.append(true("NamespaceReady", "NamespaceReady"))
    found.append(true("NetworkIsolated", "PoliciesApplied") if seen.policies else false(
        "NetworkIsolated", "NoPolicies", f"no NetworkPolicy in namespace {view.namespace}"))  # fmt: skip
    vkey = (view.status.get("log") or {}).get("vkey")
    found.append(true("AuditReady", "LogAnswers") if vkey else unknown("AuditReady", "NotReported", "the core has not reported its log"))
    found += [workload("CoreReady", seen.core), workload("BrokerReady", seen.broker), _document(seen)]
    needed = (*_NEEDED, "NotForeign") if outcome.foreign else _NEEDED
    basis = [*found, false("NotForeign", "Conflict", "; ".join(str(f) for f in outcome.foreign))] if outcome.foreign else found
    return [*found, *summarize(basis, needed)]


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


def _document(seen: Observed) -> Condition:
    if seen.handover is not None:
        return false("DocumentAccepted", _reason(seen.handover), seen.handover.message)
    if seen.document != seen.wanted or not seen.wanted:
        return false("DocumentAccepted", "Progressing", "the conductor has not accepted the current tenant document")
    return true("DocumentAccepted", "Accepted")


async def _hand_over(ctx: Context, view: TenantView, document: TenantDocument) -> FolkmootError | None:
    """PUT the document if the conductor does not have it; returns what stood in the way."""
    digest, uid = document.digest(), view.meta.uid
    stored = (ctx.cache.get(TENANT, Key("", view.name)) or {}).get("status") or {}
    if stored.get("document") == digest and not _lost(ctx, uid, stored, digest):
        ctx.memory.documents[uid] = document
        return None
    core = workload("CoreReady", ctx.cache.get(STATEFUL_SET, Key(view.namespace, names.CORE)))
    if core.status != "True":
        return Missing(f"the core is not ready to take the tenant document ({core.message})", reason="Progressing")
    try:
        answer = await ctx.conductor.put_document(document)
    except FolkmootError as error:
        log.warning("the tenant document was not accepted", extra={"tenant": view.name, "error": error.message})
        return error
    if answer != digest:
        return FolkmootError(f"the conductor acknowledged {answer or 'nothing'} instead of {digest}", reason="DigestMismatch")
    ctx.memory.documents[uid] = document
    ctx.memory.put_at[uid] = asyncio.get_running_loop().time()
    log.info("handed over the tenant document", extra={"tenant": view.name, "digest": digest})
    return None


def _lost(ctx: Context, uid: str, stored: dict[str, Any], digest: str) -> bool:
    """Whether the core itself says, for some time, that it works with another document (its volume was restored or lost)."""
    reported = (stored.get("core") or {}).get("document")
    if not reported or reported == digest:
        return False
    now = asyncio.get_running_loop().time()
    since = ctx.memory.put_at.setdefault(uid, now)
    return now - since >= REPUT_SECONDS


def _fields(ctx: Context, view: TenantView, seen: Observed) -> dict[str, Any]:
    identity = identities.tenant_identity(view, ctx.installation())
    return {
        "namespace": view.namespace,
        "agents": len(ctx.cache.list(AGENT, view.namespace)),
        "identity": {"scope": identity.scope, "seed": identity.seed, "commitment": identity.commitment},
        "document": seen.document or None,
    }


def _owned(ctx: Context, view: TenantView) -> list[tuple[Kind, Obj]]:
    """Children of this Tenant, and what an earlier Tenant of a kept namespace has left behind."""
    mine = ctx.cache.labelled(names.LABEL_OWNER_UID, view.meta.uid)
    agents = {uid_of(agent) for agent in ctx.cache.list(AGENT, view.namespace)}
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


def _with_ready(found: tuple[Condition, ...]) -> tuple[Condition, ...]:
    return (*found, *summarize(found, [c.type for c in found if c.status != "True"] or ["Accepted"]))


def _not_ours(foreign: Condition) -> tuple[Condition, ...]:
    return summarize([false("NamespaceReady", foreign.reason, foreign.message)], ["NamespaceReady"]) + (
        false("NamespaceReady", foreign.reason, foreign.message),
    )


def _reason(error: FolkmootError) -> str:
    return error.reason if error.reason.isalnum() and error.reason[:1].isupper() else "Error"
