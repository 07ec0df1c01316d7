"""Writes the leader's part of status, and only if something changed: conditions merged, transitions told as Events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from folkmoot_core import conditions
from folkmoot_core.conditions import Condition
from folkmoot_core.errors import Missing
from folkmoot_operator.kinds import AGENT, COUNCIL, GATE_POLICY, SESSION, TENANT, Kind, Obj, key_of, uid_of
from folkmoot_operator.reconcile.context import Context

# What the leader owns beside observedGeneration and conditions; everything else in status is the report path's.
OWNED: Final[dict[Kind, tuple[str, ...]]] = {
    TENANT: ("namespace", "agents", "identity", "documentDigest", "audit.sealedSize", "audit.exported"),
    AGENT: ("identity", "replicas", "readyReplicas"),
    COUNCIL: ("members",),
    GATE_POLICY: (),
    SESSION: (),
}


@dataclass(frozen=True)
class News:
    """What a reconcile has to say: conditions, fields by their path in status (None: remove), condition types to drop."""

    conditions: Sequence[Condition]
    fields: Mapping[str, Any] = field(default_factory=dict)
    drop: Sequence[str] = ()


async def write(ctx: Context, kind: Kind, raw: Obj, news: News) -> bool:
    """Apply the leader's part of an object's status; True if it was written."""
    live = ctx.cache.get(kind, key_of(raw)) or raw
    stored = live.get("status") or {}
    desired = wanted(kind, live, news, ctx.now())
    if _comparable(own(kind, stored)) == _comparable(desired):
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


def wanted(kind: Kind, live: Obj, news: News, now: str) -> dict[str, Any]:
    """The leader's part of status as it should read. Pure."""
    before = own(kind, live.get("status") or {})
    generation = int(live["metadata"].get("generation") or 0)
    merged = conditions.merge(before.get("conditions"), news.conditions, generation=generation, now=now, drop=news.drop)
    status = {**before, "observedGeneration": generation, "conditions": merged}
    for path, value in news.fields.items():
        status = _with(status, path.split("."), value)
    return status


def own(kind: Kind, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Of a stored status what is the leader's. Pure."""
    mine: dict[str, Any] = {}
    for path in ("observedGeneration", "conditions", *OWNED[kind]):
        value: Any = stored
        for step in path.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        if value is not None:
            mine = _with(mine, path.split("."), value)
    return mine


def _with(status: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """A copy with one field set, or removed for None; a map that becomes empty goes with it."""
    name, rest = path[0], path[1:]
    if rest:
        value = _with(status.get(name) or {}, rest, value) or None
    if value is None:
        return {k: v for k, v in status.items() if k != name}
    return {**status, name: value}


def _comparable(status: dict[str, Any]) -> dict[str, Any]:
    """Condition lists compare by type, whatever order the API server keeps them in."""
    by_type = {c["type"]: c for c in status.get("conditions") or ()}
    return {**status, "conditions": by_type}
