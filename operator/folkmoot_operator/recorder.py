"""Kubernetes Events (events.k8s.io/v1), on transitions of conditions only. Best effort: an Event that fails stops nothing."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from folkmoot_core import names
from folkmoot_core.conditions import ABNORMAL_TRUE, get
from folkmoot_core.errors import FolkmootError
from folkmoot_operator.kinds import EVENT, Kind, Obj, key_of, uid_of
from folkmoot_operator.kube import Kube

log = logging.getLogger(__name__)
TOLD: Final = (
    "Ready",
    "Accepted",
    "ResolvedRefs",
    "Stalled",
    "Conflict",
    "Succeeded",
    "IdentityBound",
    "AuditReady",
    "AuditAnchored",
    "ProviderAvailable",
)
_NOTE: Final = 1024


@dataclass
class Recorder:
    """Writes Events. `now` gives RFC 3339 with microseconds."""

    kube: Kube
    instance: str
    now: Callable[[], str]

    async def transitions(
        self, kind: Kind, obj: Obj, before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]
    ) -> None:
        """One Event for each condition worth telling whose status changed. What merely begins unmet is no news."""
        old = list(before)
        for condition in after:
            previous = get(old, condition["type"])
            if condition["type"] not in TOLD or (previous or {}).get("status") == condition["status"]:
                continue
            bad = (condition["status"] == "True") == (condition["type"] in ABNORMAL_TRUE)
            if condition["status"] == "Unknown" or (previous is None and not _worth_telling(condition, bad)):
                continue
            await self._event(kind, obj, condition, "Warning" if bad else "Normal")

    async def _event(self, kind: Kind, obj: Obj, condition: Mapping[str, Any], type_: str) -> None:
        key = key_of(obj)
        regarding = {"apiVersion": kind.api_version, "kind": kind.kind, "name": key.name, "uid": uid_of(obj)}
        if key.namespace:
            regarding["namespace"] = key.namespace
        event = {
            "apiVersion": EVENT.api_version, "kind": EVENT.kind,
            # Events about cluster-scoped objects live in `default`, where kubectl looks for them.
            "metadata": {"name": f"{key.name}.{secrets.token_hex(8)}", "namespace": key.namespace or "default"},
            "eventTime": self.now(), "reportingController": f"{names.GROUP}/operator", "reportingInstance": self.instance[:128],
            "action": "Reconcile", "reason": condition["reason"][:128], "type": type_, "regarding": regarding,
            "note": f"{condition['type']}: {condition['message'] or condition['status']}"[:_NOTE],
        }  # fmt: skip
        try:
            await self.kube.create(EVENT, event)
        except FolkmootError as error:
            log.info("an Event was not written", extra={"object": str(key), "error": error.message})


def _worth_telling(condition: Mapping[str, Any], bad: bool) -> bool:
    """Of conditions that appear for the first time: being ready, or something a person must change."""
    if bad:
        return condition["type"] in ABNORMAL_TRUE or condition["type"] == "Accepted"
    return condition["type"] in ("Ready", "Succeeded") and condition["status"] == "True"
