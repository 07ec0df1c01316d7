"""Reconciles a Session: hands it to the conductor, says how it stands, removes it when its time is over.

Phase, result and usage are the report path's; conditions here are derived from them. Also here: cancelling what was deleted, and
the sweep that finds what was missed while no operator ran.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from folkmoot_core.conditions import Condition, false, get, is_true, summarize, true, unknown
from folkmoot_core.document import SessionOrder
from folkmoot_core.errors import FolkmootError
from folkmoot_core.plan import session as session_plan
from folkmoot_core.plan.types import Problems
from folkmoot_core.plan.views import SessionView, TenantView, parse_session
from folkmoot_operator.kinds import AGENT, COUNCIL, NAMESPACE, SESSION, TENANT, Key, Obj, key_of, uid_of
from folkmoot_operator.queue import Again, Retry
from folkmoot_operator.reconcile import documents, reactions, status
from folkmoot_operator.reconcile.context import Context, Ref
from folkmoot_operator.reconcile.status import News

log = logging.getLogger(__name__)
ENDED: Final = ("Succeeded", "Failed", "Cancelled")
_APPROVALS: Final = ("Approve", "Approved", "Passed", "Pass")
_BUDGET: Final = ("LimitReached", "BudgetExhausted", "BudgetBlocked")


async def reconcile(ctx: Context, key: Key) -> Again:
    """Bring one Session nearer to what it says."""
    raw = ctx.cache.get(SESSION, key)
    if raw is None or raw["metadata"].get("deletionTimestamp"):
        return Again()
    view = parse_session(raw)
    if isinstance(view, Problems):
        await _say(ctx, raw, view.conditions())
        return Again()
    if view.status.get("phase") in ENDED:
        return await _finished(ctx, raw, view)
    if accepted_by_conductor(view.status, view.meta.generation):
        await _say(ctx, raw, (true("Accepted", "Accepted"), true("ResolvedRefs", "ResolvedRefs")))
        return Again()
    return await _submit(ctx, raw, view)


def accepted_by_conductor(stored: Mapping[str, Any], generation: int) -> bool:
    """`Accepted` is True only once the conductor has taken this very generation. Pure."""
    found = get(stored.get("conditions"), "Accepted") or {}
    return found.get("status") == "True" and found.get("observedGeneration") == generation


async def _submit(ctx: Context, raw: Obj, view: SessionView) -> Again:
    namespace = view.meta.namespace
    tenant = ctx.tenant_of(namespace)
    if tenant is None:
        await _say(ctx, raw, (false("ResolvedRefs", "TenantNotFound", f"namespace {namespace} belongs to no living Tenant"),))
        return Again()
    order = await _order(ctx, view)
    if isinstance(order, Problems):
        await _say(ctx, raw, order.conditions())
        # A ConfigMap carries no label of ours and is not watched: look again from time to time, and at every resync.
        return Again(30.0 if order.items[0].reason == "RefNotFound" else None)
    if (waiting := await _waiting(ctx, view, tenant)) is not None:
        await _say(ctx, raw, (waiting,))
        return Again()
    try:
        report = await ctx.conductor.put_session(tenant.name, order)
    except FolkmootError as error:
        await _say(ctx, raw, (reactions.condition(error),))
        if reactions.reaction(error).retry:
            raise Retry(reactions.retry_after(error)) from error
        return Again()
    log.info("handed over a session", extra={"namespace": namespace, "session": view.name, "uid": view.meta.uid})
    await _say(ctx, raw, (true("Accepted", "Accepted"), true("ResolvedRefs", "ResolvedRefs")))
    await ctx.reports.session(namespace, report)
    return Again()


async def _order(ctx: Context, view: SessionView) -> SessionOrder | Problems:
    namespace = view.meta.namespace
    config_maps = {}
    for name in session_plan.wanted(view):
        if (found := await ctx.config_maps.get(namespace, name)) is not None:
            config_maps[name] = found
    agents = {key_of(agent).name for agent in ctx.cache.objects(AGENT, namespace)}
    councils = {key_of(council).name for council in ctx.cache.objects(COUNCIL, namespace)}
    return session_plan.order(view, config_maps, agents, councils)


async def _waiting(ctx: Context, view: SessionView, tenant: TenantView) -> Condition | None:
    """The conductor takes no session of a target that it does not know; the Tenant's next document brings us back here."""
    document = await documents.accepted(ctx, tenant)
    if document is None:
        return unknown("Accepted", "WaitingForTenant", f"the conductor of Tenant {tenant.name} is not ready yet")
    target = view.spec.target
    known = {a.name for a in document.agents} if target.kind == "Agent" else {c.name for c in document.councils}
    if target.name in known:
        return None
    return unknown(
        "Accepted", "WaitingForTarget", f"the conductor has not accepted {target.kind} {target.name} yet; see its conditions"
    )


async def _finished(ctx: Context, raw: Obj, view: SessionView) -> Again:
    await _say(ctx, raw, (true("Accepted", "Accepted"), true("ResolvedRefs", "ResolvedRefs")))
    ttl = view.spec.ttl_seconds_after_finished
    if ttl is None:
        return Again()
    left = _completed(view) + ttl - ctx.epoch()
    if left > 0:
        return Again(left)
    await ctx.kube.delete(SESSION, key_of(raw), uid=uid_of(raw))
    log.info("removed a session whose time was over", extra={"namespace": view.meta.namespace, "session": view.name})
    return Again()


def _completed(view: SessionView) -> float:
    """When it ended; a report without a readable time counts from its creation."""
    for text in (view.status.get("completionTime"), view.meta.created):
        try:
            return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
        except ValueError:
            continue
    return 0.0


async def _say(ctx: Context, raw: Obj, basis: tuple[Condition, ...]) -> None:
    live = (ctx.cache.get(SESSION, key_of(raw)) or raw).get("status") or {}
    needed = (
        ["Accepted", "ResolvedRefs"] if all(c.status == "True" for c in basis) else [c.type for c in basis if c.status != "True"]
    )
    found = (*basis, *progress(live), *summarize(basis, needed))
    await status.write(ctx, SESSION, raw, News(found))


def progress(stored: dict[str, Any]) -> tuple[Condition, ...]:
    """Conditions that follow from what was reported. Pure."""
    phase, reason = stored.get("phase"), str(stored.get("reason") or "")
    word = reason if reason.isalnum() and reason[:1].isupper() else ""
    message = str(stored.get("message") or "")
    found = []
    if phase == "Succeeded":
        found.append(true("Succeeded", word or "Succeeded", message))
    elif phase in ENDED:
        found.append(false("Succeeded", word or str(phase), message or f"the session ended as {phase}"))
    elif phase:
        found.append(unknown("Succeeded", "Running", f"the session is {phase}"))
    verdict = str((stored.get("gate") or {}).get("verdict") or "")
    if verdict in _APPROVALS:
        found.append(true("GatePassed", verdict))
    elif verdict:
        found.append(
            false(
                "GatePassed", verdict if verdict.isalnum() and verdict[:1].isupper() else "NotPassed", f"last verdict: {verdict}"
            )
        )
    if phase:
        awaiting, blocked = phase == "AwaitingApproval", word in _BUDGET
        found.append(
            true("AwaitingApproval", word or "AwaitingApproval", message)
            if awaiting
            else false("AwaitingApproval", "NotAwaiting", "")
        )
        found.append(true("BudgetBlocked", word, message) if blocked else false("BudgetBlocked", "WithinBudget", ""))
    return tuple(found)


async def cancel(ctx: Context, key: Key) -> Again:
    """Cancel what was deleted (`key.name` is the uid); retried until the conductor knows, unless the tenant is gone."""
    alive = any(uid_of(session) == key.name for session in ctx.cache.objects(SESSION, key.namespace))
    tenant = None if alive else ctx.tenant_of(key.namespace)
    if tenant is not None:
        await _conduct(ctx.conductor.cancel(tenant.name, key.name))
        log.info("cancelled a session that was deleted", extra={"namespace": key.namespace, "uid": key.name})
    return Again()


async def sweep(ctx: Context, key: Key) -> Again:
    """Compare a tenant's objects (`key.name` is the tenant) with its conductor's sessions: cancel those without an object, hand
    over again those that it does not know any more. Run when a leader begins and at every resync."""
    raw = ctx.cache.get(TENANT, key)
    if raw is None or not (raw.get("status") or {}).get("documentDigest"):
        return Again()
    namespace = (raw.get("status") or {}).get("namespace") or ""
    tenant = ctx.tenant_of(namespace)
    if ctx.cache.get(NAMESPACE, Key("", namespace)) is None or tenant is None:
        return Again()
    running = {report.uid for report in await _conduct(ctx.conductor.sessions(tenant.name))}
    objects = {uid_of(session): session for session in ctx.cache.objects(SESSION, namespace)}
    for uid in sorted(running - objects.keys()):
        ctx.enqueue(Ref("Cancellation", namespace, uid))
    for uid, session in objects.items():
        stored = session.get("status") or {}
        if is_true(stored.get("conditions"), "Accepted") and stored.get("phase") not in ENDED and uid not in running:
            lost = unknown(
                "Accepted", "HandedOverAgain", "the conductor does not know this session any more; it is handed over again"
            )
            await _say(ctx, session, (lost,))
            ctx.enqueue(Ref("Session", namespace, key_of(session).name))
    return Again()


async def _conduct(call: Any) -> Any:
    """A call whose failure always means: try again later."""
    try:
        return await call
    except FolkmootError as error:
        log.info("the conductor did not answer", extra={"error": error.message})
        raise Retry(reactions.retry_after(error)) from error
