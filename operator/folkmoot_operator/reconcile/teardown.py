"""A Tenant that is being deleted: observe, ask `plan.teardown` for the next step, do it, say so. wiring.md §4.

Progress (sealed, exported) is kept in the Tenant's status, so that another leader goes on where this one ended. Nothing is
created in a dying namespace, and no step is skipped because it failed: it is tried again, and after a bounded time reported.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from folkmoot_core import names
from folkmoot_core.errors import FolkmootError, Missing
from folkmoot_core.plan import teardown
from folkmoot_core.plan import tenant as tenant_plan
from folkmoot_core.plan.teardown import TeardownState
from folkmoot_core.plan.types import Problems
from folkmoot_core.plan.views import TenantView
from folkmoot_operator.applier import belongs_to_tenant
from folkmoot_operator.kinds import CONFIG_MAP, DEPLOYMENT, NAMESPACE, STATEFUL_SET, TENANT, Key, Obj, key_of, labels_of, uid_of
from folkmoot_operator.queue import Again
from folkmoot_operator.reconcile import status
from folkmoot_operator.reconcile.context import Context, Ref
from folkmoot_operator.reconcile.status import News

log = logging.getLogger(__name__)


async def reconcile(ctx: Context, raw: Obj, view: TenantView | Problems) -> Again:
    """One step of a deletion."""
    if names.FINALIZER not in (raw["metadata"].get("finalizers") or []):
        return Again()
    for agent in ctx.cache.labelled(names.LABEL_TENANT, raw["metadata"]["name"]):
        if name := labels_of(agent[1]).get(names.LABEL_AGENT):
            ctx.enqueue(Ref("Agent", key_of(agent[1]).namespace, name))
    state = await observe(ctx, raw)
    step = teardown.next(state)
    uid = uid_of(raw)
    progress: dict[str, Any] = {}
    try:
        progress = await _ACTIONS[step.action](ctx, raw, view)
    except FolkmootError as error:
        ctx.memory.errors[uid] = error.message
        log.warning(
            "a step of a deletion failed", extra={"tenant": key_of(raw).name, "step": step.action, "error": error.message}
        )
        step = teardown.next(await observe(ctx, raw))
        await status.write(ctx, TENANT, raw, News(step.conditions))
        return Again(step.requeue_after or teardown.RETRY_SECONDS)
    ctx.memory.errors.pop(uid, None)
    if step.action == "RemoveFinalizer":
        ctx.memory.forget(uid)
        return Again()
    if ctx.memory.steps.get(uid) != step.action:
        log.info("deletion goes on", extra={"tenant": key_of(raw).name, "step": step.action})
        ctx.memory.steps[uid] = step.action
    await status.write(ctx, TENANT, raw, News(step.conditions, progress))
    return Again(0.0 if progress else step.requeue_after)


async def observe(ctx: Context, raw: Obj) -> TeardownState:
    """The state as the cluster, the export volume and the Tenant's own status tell it."""
    namespace = names.tenant_namespace(key_of(raw).name)
    found = await _namespace(ctx, raw)
    audit = _audit(ctx, raw)
    live = ctx.cache.get(TENANT, key_of(raw)) or raw
    deleted = datetime.fromisoformat(raw["metadata"]["deletionTimestamp"].replace("Z", "+00:00")).timestamp()
    return TeardownState(
        policy="Delete" if (raw.get("spec") or {}).get("deletionPolicy") == "Delete" else "Retain",
        namespace="Absent" if found is None else ("Terminating" if found["metadata"].get("deletionTimestamp") else "Active"),
        core_exists=has_log(live, ctx.cache.get(STATEFUL_SET, Key(namespace, names.CORE))),
        sealed=audit.get("sealedSize") is not None,
        export_configured=ctx.export_dir is not None,
        exported=bool(audit.get("exported")),
        retained=found is not None and _retained(ctx, found),
        seconds=max(0.0, ctx.epoch() - deleted),
        last_error=ctx.memory.errors.get(uid_of(raw), ""),
    )


def has_log(tenant: Obj, core: Obj | None) -> bool:
    """Whether there may be a log to seal: the core reported one, took a document, or is up. A core that never became ready
    wrote nothing that anybody was told of, and waiting for it would keep the Tenant for ever. Pure."""
    stored = tenant.get("status") or {}
    audit = stored.get("audit") or {}
    told = audit.get("vkey") or stored.get("documentDigest") or audit.get("sealedSize") is not None
    return bool(told) or int(((core or {}).get("status") or {}).get("readyReplicas") or 0) > 0


async def _seal(ctx: Context, raw: Obj, _view: TenantView | Problems) -> dict[str, Any]:
    size = await ctx.conductor.seal(key_of(raw).name)
    return {"audit.sealedSize": size}


async def _export(ctx: Context, raw: Obj, _view: TenantView | Problems) -> dict[str, Any]:
    assert ctx.export_dir is not None  # noqa: S101 - the plan exports only where there is a volume
    size = int(_audit(ctx, raw).get("sealedSize") or 0)
    file = export_file(ctx.export_dir, raw, size)
    if not file.exists():  # complete files alone have this name, so an export that a former leader finished counts
        await ctx.conductor.evidence(key_of(raw).name, file)
    return {"audit.exported": file.name}


def export_file(directory: Path, raw: Obj, size: int) -> Path:
    """Where a Tenant's sealed log goes."""
    return directory / f"{key_of(raw).name}-{uid_of(raw)}-{size}.tar"


async def _scale_to_zero(ctx: Context, raw: Obj, view: TenantView | Problems) -> dict[str, Any]:
    if isinstance(view, Problems):
        raise Missing(f"Tenant {view.name} is not valid any more, so its retained form cannot be planned: {view.items[0]}")
    owned = ctx.cache.labelled(names.LABEL_OWNER_UID, uid_of(raw))
    ours = belongs_to_tenant(view.name)
    await ctx.applier.converge(tenant_plan.retained(view, ctx.installation()).objects, owned, ours)
    return {}


async def _delete_namespace(ctx: Context, raw: Obj, _view: TenantView | Problems) -> dict[str, Any]:
    found = await _namespace(ctx, raw)
    if found is not None:
        await ctx.kube.delete(NAMESPACE, key_of(found), uid=uid_of(found))
    return {}


async def _remove_finalizer(ctx: Context, raw: Obj, _view: TenantView | Problems) -> dict[str, Any]:
    live = await ctx.kube.get(TENANT, key_of(raw))
    left = [f for f in live["metadata"].get("finalizers") or [] if f != names.FINALIZER]
    metadata = {"finalizers": left, "resourceVersion": live["metadata"]["resourceVersion"]}
    if (raw.get("spec") or {}).get("deletionPolicy") == "Delete":  # kept ones may be restored: what is remembered of them stays
        await ctx.kube.delete(CONFIG_MAP, Key(ctx.installation().system_namespace, names.log_memory(uid_of(raw))))
    await ctx.kube.patch(TENANT, key_of(raw), {"metadata": metadata})
    log.info("a Tenant is gone", extra={"tenant": key_of(raw).name})
    return {}


async def _nothing(_ctx: Context, _raw: Obj, _view: TenantView | Problems) -> dict[str, Any]:
    return {}


_ACTIONS: Final[dict[str, Callable[[Context, Obj, TenantView | Problems], Awaitable[dict[str, Any]]]]] = {
    "Seal": _seal, "Export": _export, "ScaleToZero": _scale_to_zero, "DeleteNamespace": _delete_namespace,
    "WaitForNamespace": _nothing, "Wait": _nothing, "RemoveFinalizer": _remove_finalizer,
}  # fmt: skip


def _audit(ctx: Context, raw: Obj) -> dict[str, Any]:
    live = ctx.cache.get(TENANT, key_of(raw)) or raw
    return dict((live.get("status") or {}).get("audit") or {})


async def _namespace(ctx: Context, raw: Obj) -> Obj | None:
    """The namespace if it is this very Tenant's. One of somebody else counts as absent, because it is not ours to remove; and so
    does one kept of an earlier Tenant of the name that this one, being somebody else, was never given."""
    key = Key("", names.tenant_namespace(key_of(raw).name))
    try:
        found = ctx.cache.get(NAMESPACE, key) or await ctx.kube.get(NAMESPACE, key)
    except Missing:
        return None
    labels = labels_of(found)
    mine = labels.get(names.LABEL_MANAGED_BY) == names.MANAGER and labels.get(names.LABEL_OWNER_UID) == uid_of(raw)
    return found if mine else None


def _retained(ctx: Context, namespace: Obj) -> bool:
    if labels_of(namespace).get(names.LABEL_RETAINED) != "true":
        return False
    sets = [obj for kind in (STATEFUL_SET, DEPLOYMENT) for obj in ctx.cache.objects(kind, key_of(namespace).name)]
    return all((obj.get("spec") or {}).get("replicas") == 0 for obj in sets)
