"""What every reconcile is given, and the few things they look up alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from folkmoot_core import names
from folkmoot_core.errors import Missing
from folkmoot_core.plan.types import Installation, Problems
from folkmoot_core.plan.views import TenantView, parse_tenant
from folkmoot_operator.applier import Applier
from folkmoot_operator.cache import Cache
from folkmoot_operator.conductor_client import Conductor
from folkmoot_operator.kinds import CONFIG_MAP, NAMESPACE, TENANT, Key, Obj, labels_of
from folkmoot_operator.kube import Kube
from folkmoot_operator.metrics import Metrics
from folkmoot_operator.recorder import Recorder
from folkmoot_operator.report import ReportWriter

PROMPT_SECONDS: Final = 60.0  # referenced ConfigMaps carry no label of ours, so they are not watched but read again


class Ref(NamedTuple):
    """One piece of work. `kind` is a kind's name, or `Cancellation` (name: a Session's uid), or `Sweep` (name: a tenant), or
    `Installation` (without a name: there is one)."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


INSTALLATION: Final = Ref("Installation", "", "")


@dataclass
class ConfigMaps:
    """Reads users' ConfigMaps, and keeps single values of them for a minute."""

    kube: Kube
    _values: dict[tuple[str, str, str], tuple[float, str | None]] = field(default_factory=dict)

    async def get(self, namespace: str, name: str) -> Obj | None:
        """The whole object as it is now, or None."""
        try:
            return await self.kube.get(CONFIG_MAP, Key(namespace, name))
        except Missing:
            return None

    async def value(self, namespace: str, name: str, key: str) -> str | None:
        """One text value, at most `PROMPT_SECONDS` old; None if the object or the key is not there."""
        now = asyncio.get_running_loop().time()
        known = self._values.get((namespace, name, key))
        if known is not None and now - known[0] < PROMPT_SECONDS:
            return known[1]
        found = await self.get(namespace, name)
        value = ((found or {}).get("data") or {}).get(key)
        self._values[namespace, name, key] = (now, value)
        if len(self._values) > 10_000:
            self._values = {k: v for k, v in self._values.items() if now - v[0] < PROMPT_SECONDS}
        return value


@dataclass
class Context:
    """The shell's parts as reconcilers see them."""

    kube: Kube
    cache: Cache
    applier: Applier
    conductor: Conductor
    recorder: Recorder
    reports: ReportWriter
    installation: Callable[[], Installation]
    enqueue: Callable[[Ref], None]
    now: Callable[[], str]
    """RFC 3339, seconds, Z."""
    epoch: Callable[[], float]
    export_dir: Path | None = None
    metrics: Metrics = field(default_factory=Metrics)
    config_maps: ConfigMaps = field(init=False)
    memory: Memory = field(default_factory=lambda: Memory())

    def __post_init__(self) -> None:
        self.config_maps = ConfigMaps(self.kube)

    def tenant_of(self, namespace: str) -> TenantView | None:
        """The valid Tenant whose namespace this is and carries our label, or None."""
        found = self.cache.get(NAMESPACE, Key("", namespace))
        if found is None or found["metadata"].get("deletionTimestamp"):
            return None
        labels = labels_of(found)
        if labels.get(names.LABEL_MANAGED_BY) != names.MANAGER:
            return None
        raw = self.cache.get(TENANT, Key("", labels.get(names.LABEL_TENANT, "")))
        view = parse_tenant(raw) if raw is not None else None
        if view is None or isinstance(view, Problems) or view.namespace != namespace:
            return None
        # A namespace kept from an earlier Tenant is not this one's until its reconcile has adopted it.
        return view if labels.get(names.LABEL_OWNER_UID) == view.meta.uid else None


@dataclass
class Memory:
    """What would be a pity to forget but does no harm to lose: nothing in here is needed after a restart."""

    documents: dict[str, object] = field(default_factory=dict)  # tenant uid → the TenantDocument last accepted
    put_at: dict[str, float] = field(default_factory=dict)  # tenant uid → loop time of the last PUT
    errors: dict[str, str] = field(default_factory=dict)  # tenant uid → last error of a teardown
    steps: dict[str, str] = field(default_factory=dict)  # tenant uid → last step of a teardown that was logged
    forks: dict[str, str] = field(
        default_factory=dict
    )  # tenant uid → what the witness knows against its log; asked again and again

    def forget(self, uid: str) -> None:
        """A Tenant is gone."""
        for known in (self.documents, self.put_at, self.errors, self.steps, self.forks):
            known.pop(uid, None)
