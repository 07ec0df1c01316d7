"""Writes the leader's part of status, and only if something changed: conditions merged, transitions told as Events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from folkmoot_core import conditions
from folkmoot_core.conditions import Condition
from folkmoot_core.errors import Missing
from folkmoot_operator.kinds import AGENT, COUNCIL, GATE_POLICY, SESSION, TENANT, Kind, Obj, key_of, uid_of
from folkmoot_operator.reconcile.context import Context

# What the leader owns beside observedGeneration and conditions; everything else in status is the report path's.
OWNED: Final[dict[Kind, tuple[str, ...]]] = {
    TENANT: ("namespace", "agents", "identity", "document", "teardown"),
    AGENT: ("identity", "readyReplicas"),
    COUNCIL: ("members", "quorum"),
    GATE_POLICY: (),
    SESSION: ("acceptedGeneration",),
}


async def write(ctx: Context, kind: Kind, raw: Obj, computed: Sequence[Condition], fields: dict[str, Any] | None = None,
                drop: Sequence[str] = ()) -> bool:  # fmt: skip
    """Apply `computed` and `fields` to the object's status; True if it was written. `fields` that are None are removed."""
    live = ctx.cache.get(kind, key_of(raw)) or raw
    stored = live.get("status") or {}
    desired = wanted(kind, live, computed, fields or {}, ctx.now(), drop)
    before = {name: stored[name] for name in ("observedGeneration", "conditions", *OWNED[kind]) if name in stored}
    if _comparable(before) == _comparable(desired):
        return False
    key = key_of(live)
    head = {"name": key.name, "uid": uid_of(live)} | ({"namespace": key.namespace} if key.namespace else {})
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": head, "status": desired}
    try:
        ctx.cache.wrote(kind, await ctx.kube.apply(kind, body, status=True))
    except Missing:
        return False  # deleted meanwhile
    await ctx.recorder.transitions(kind, live, stored.get("conditions") or (), desired["conditions"])
    return True


def wanted(kind: Kind, live: Obj, computed: Sequence[Condition], fields: dict[str, Any], now: str, drop: Sequence[str]) -> dict[str, Any]:
    """The leader's part of status as it should read. Pure."""
    stored = live.get("status") or {}
    generation = int(live["metadata"].get("generation") or 0)
    merged = conditions.merge(stored.get("conditions"), computed, generation=generation, now=now, drop=drop)
    kept = {name: stored[name] for name in OWNED[kind] if name in stored}
    values = {name: value for name, value in {**kept, **fields}.items() if value is not None}
    return {"observedGeneration": generation, "conditions": merged, **values}


def _comparable(status: dict[str, Any]) -> dict[str, Any]:
    """Condition lists compare by type, whatever order the API server keeps them in."""
    by_type = {c["type"]: c for c in status.get("conditions") or ()}
    return {**status, "conditions": by_type}
