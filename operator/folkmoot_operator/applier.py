"""Makes the cluster say what a plan says: apply what differs, prune what is no longer wanted, leave what is not ours.

Called by reconcilers with complete manifests. What it writes goes into the cache at once, so that the next pass sees it
even before the watch does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from folkmoot_core import names
from folkmoot_core.errors import Invalid, Missing
from folkmoot_operator.cache import Cache
from folkmoot_operator.differ import difference, with_intent
from folkmoot_operator.kinds import NAMESPACE, Key, Kind, Obj, key_of, kind_of, labels_of, uid_of
from folkmoot_operator.kube import Kube

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Foreign:
    """An object of a name that we need, made by somebody else."""

    kind: str
    key: Key

    def __str__(self) -> str:
        return f"{self.kind} {self.key} exists and is not Folkmoot's; rename or remove it"


@dataclass
class Outcome:
    """What one pass did."""

    applied: int = 0
    pruned: int = 0
    foreign: list[Foreign] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Sentences of the API server about manifests that it will not take."""


@dataclass
class Applier:
    """Server-side apply behind a comparison."""

    kube: Kube
    cache: Cache
    _settled: dict[tuple[Kind, Key], tuple[str, str]] = field(default_factory=dict)

    async def converge(
        self, desired: Sequence[Obj], owned: Iterable[tuple[Kind, Obj]], ours: Callable[[Kind, Obj], bool]
    ) -> Outcome:
        """Apply `desired` in order, then delete those of `owned` that are not in it. `ours` tells whether a live object of a
        wanted name may be written."""
        outcome = Outcome()
        for obj in desired:
            await self._one(obj, ours, outcome)
        wanted = {(kind_of(obj), key_of(obj)) for obj in desired}
        for kind, obj in list(owned):
            if kind != NAMESPACE and (kind, key_of(obj)) not in wanted:
                await self.delete(kind, obj)
                outcome.pruned += 1
        return outcome

    async def delete(self, kind: Kind, obj: Obj) -> None:
        """Delete that very object."""
        await self.kube.delete(kind, key_of(obj), uid=uid_of(obj))
        log.info("deleted", extra={"kind": kind.kind, "object": str(key_of(obj))})

    async def apply(self, kind: Kind, obj: Obj) -> None:
        """Apply one object unconditionally and remember the answer."""
        self.cache.wrote(kind, await self.kube.apply(kind, obj))

    async def _one(self, obj: Obj, ours: Callable[[Kind, Obj], bool], outcome: Outcome) -> None:
        kind, key = kind_of(obj), key_of(obj)
        intent = with_intent(obj)
        live = self.cache.get(kind, key) or await self._peek(kind, key)
        if live is not None and not ours(kind, live):
            outcome.foreign.append(Foreign(kind.kind, key))
            return
        where = "" if live is None else difference(intent, live)
        if live is not None and (not where or self._settled.get((kind, key)) == _state(intent, live)):
            return
        try:
            answer = await self.kube.apply(kind, intent)
        except Invalid as error:
            outcome.refused.append(f"{kind.kind} {key.name}: {error.message}")
            return
        outcome.applied += 1
        self.cache.wrote(kind, answer)
        # A field that the API server normalises would look changed for ever: one fruitless apply per version, not one per pass.
        if difference(intent, answer):
            self._settled[kind, key] = _state(intent, answer)
        log.info("applied", extra={"kind": kind.kind, "object": str(key), "because": where or "absent"})

    async def _peek(self, kind: Kind, key: Key) -> Obj | None:
        """The cache holds labelled objects only: before the first apply, see whether somebody else has the name."""
        try:
            return await self.kube.get(kind, key)
        except Missing:
            return None


def _state(intent: Obj, live: Obj) -> tuple[str, str]:
    return intent["metadata"]["annotations"][names.ANNOTATION_INTENT], str(live["metadata"].get("resourceVersion"))


def belongs_to_tenant(tenant: str) -> Callable[[Kind, Obj], bool]:
    """Ours is what carries the managed-by label and the tenant's name; the admission policy lets nobody else set them."""

    def ours(_kind: Kind, live: Obj) -> bool:
        labels = labels_of(live)
        return labels.get(names.LABEL_MANAGED_BY) == names.MANAGER and labels.get(names.LABEL_TENANT) == tenant

    return ours
