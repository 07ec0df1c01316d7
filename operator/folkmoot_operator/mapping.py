"""Which work follows from a change. Pure: old and new object in, `Ref`s out; the handlers and the report path call it.

Level-triggered reconciles need no more than a hint where to look; what a hint misses the resync finds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from folkmoot_core import names
from folkmoot_core.conditions import is_true
from folkmoot_core.plan import installation
from folkmoot_operator.cache import Cache
from folkmoot_operator.kinds import (
    AGENT,
    COUNCIL,
    GATE_POLICY,
    NAMESPACE,
    OWN,
    SESSION,
    TENANT,
    Key,
    Kind,
    Obj,
    key_of,
    labels_of,
    uid_of,
)
from folkmoot_operator.reconcile.context import INSTALLATION, Ref
from folkmoot_operator.reconcile.session import ENDED

_DEPENDENTS: Final = (AGENT, COUNCIL, GATE_POLICY, SESSION)


def follows(cache: Cache, kind: Kind, old: Obj | None, new: Obj | None) -> list[Ref]:
    """Work that follows from `old` having become `new` (None: did not exist, is gone)."""
    obj = new or old
    if obj is None:
        return []
    if kind not in OWN:
        return _owner(kind, obj)
    key = key_of(obj)
    refs = [Ref(kind.kind, key.namespace, key.name)]
    if kind == TENANT:
        if _tenant_news(old) != _tenant_news(new):
            refs += inside(cache, names.tenant_namespace(key.name), _DEPENDENTS)
        return refs
    if kind == SESSION:
        if new is None and (obj.get("status") or {}).get("phase") not in ENDED:
            refs.append(Ref("Cancellation", key.namespace, uid_of(obj)))
        return refs
    if _spec_news(old) != _spec_news(new):  # a status of theirs that moves concerns nobody else
        refs += [ref for ref in (_tenant(cache, key.namespace),) if ref is not None]
        refs += inside(cache, key.namespace, (COUNCIL, GATE_POLICY, SESSION))
    return list(dict.fromkeys(refs))


def _tenant_news(obj: Obj | None) -> tuple[Any, ...]:
    """What the objects in a tenant's namespace look at."""
    if obj is None:
        return ()
    status = obj.get("status") or {}
    return (*_spec_news(obj), status.get("documentDigest"), status.get("namespace"), status.get("providers"))


def _spec_news(obj: Obj | None) -> tuple[Any, ...]:
    return () if obj is None else (uid_of(obj), obj["metadata"].get("generation"), obj["metadata"].get("deletionTimestamp"))


def inside(cache: Cache, namespace: str, kinds: Iterable[Kind] = _DEPENDENTS) -> list[Ref]:
    """Objects of these kinds there; Sessions only while they wait to be accepted."""
    found = []
    for kind in kinds:
        for obj in cache.objects(kind, namespace):
            status = obj.get("status") or {}
            if kind == SESSION and (is_true(status.get("conditions"), "Accepted") or status.get("phase") in ENDED):
                continue
            found.append(Ref(kind.kind, namespace, key_of(obj).name))
    return found


def _tenant(cache: Cache, namespace: str) -> Ref | None:
    found = cache.get(NAMESPACE, Key("", namespace))
    name = labels_of(found).get(names.LABEL_TENANT, "") if found is not None else ""
    return Ref("Tenant", "", name) if name else None


def _owner(kind: Kind, obj: Obj) -> list[Ref]:
    labels = labels_of(obj)
    agent, tenant = labels.get(names.LABEL_AGENT), labels.get(names.LABEL_TENANT)
    if labels.get(names.LABEL_COMPONENT) == installation.COMPONENT and not tenant:
        return [INSTALLATION]
    if agent and kind.namespaced:
        return [Ref("Agent", key_of(obj).namespace, agent)]
    return [Ref("Tenant", "", tenant)] if tenant else []
