"""A small world for the operator's tests: the in-memory API server and conductor, a cache fed by its watch, and reconciles run
one after the other until nothing is left to do. Nothing is patched; time is a number that tests move."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from folkmoot_core import names
from folkmoot_core.document import AgentReport, ProviderReport, Report
from folkmoot_core.errors import Invalid
from folkmoot_core.plan.types import Installation
from folkmoot_core.resources.status import AgentStatus, CouncilStatus, GatePolicyStatus, SessionStatus, TenantStatus
from folkmoot_operator import mapping
from folkmoot_operator.applier import Applier
from folkmoot_operator.cache import Cache
from folkmoot_operator.fake_conductor import FakeConductor
from folkmoot_operator.fake_kube import FakeKube
from folkmoot_operator.kinds import (
    AGENT,
    COUNCIL,
    DEPLOYMENT,
    GATE_POLICY,
    SESSION,
    STATEFUL_SET,
    TENANT,
    Kind,
    Obj,
    key_of,
    labels_of,
)
from folkmoot_operator.queue import Again, Retry
from folkmoot_operator.reconcile import Context, Ref, reconcile
from folkmoot_operator.recorder import Recorder
from folkmoot_operator.report import ReportWriter

STATUS_MODELS = {
    TENANT: TenantStatus,
    AGENT: AgentStatus,
    COUNCIL: CouncilStatus,
    GATE_POLICY: GatePolicyStatus,
    SESSION: SessionStatus,
}
INSTALLATION = Installation(
    system_namespace="folkmoot-system", federation="house", operator_service_url="https://op.folkmoot-system.svc:8443",
    operator_image="operator:1", runtime_image="runtime:1", issuer="https://issuer", jwks='{"keys":[]}', ca_bundle="PEM", version="1",
)  # fmt: skip


def check_status(kind: Kind, obj: Obj) -> None:
    """As the API server's schema: unknown fields in status are refused."""
    model = STATUS_MODELS.get(kind)
    if model is None:
        return
    try:
        model.model_validate(obj.get("status") or {})
    except ValidationError as error:
        raise Invalid(f"{kind.kind}: status: {error.errors(include_url=False)[0]}") from error


@dataclass
class World:
    """Everything together. `settle` is the workers; `pods_run` is the rest of Kubernetes."""

    export_dir: Path | None = None
    epoch: float = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    installation: Installation = INSTALLATION
    pending: OrderedDict[Ref, None] = field(default_factory=OrderedDict)
    answers: dict[Ref, Again] = field(default_factory=dict)
    retries: dict[Ref, Retry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kube = FakeKube(now=self.now, validating=check_status)
        self.conductor = FakeConductor()
        self.kube.watch(self._watch)
        self.start()

    def start(self) -> None:
        """A fresh process: an empty cache filled from a list, no memory."""
        self.cache = Cache()
        self.pending.clear()
        for (kind, key), stored in self.kube._store.items():
            if kind in STATUS_MODELS or labels_of(stored.obj).get(names.LABEL_MANAGED_BY) == names.MANAGER:
                self.cache.put(kind, stored.obj)
                if kind in STATUS_MODELS:
                    self.enqueue(Ref(kind.kind, key.namespace, key.name))
        self.reports = ReportWriter(
            self.kube, self.cache, lambda kind, key: self.enqueue(Ref(kind.kind, key.namespace, key.name))
        )
        self.ctx = Context(
            kube=self.kube, cache=self.cache, applier=Applier(self.kube, self.cache), conductor=self.conductor,
            recorder=Recorder(self.kube, "test", self.now), reports=self.reports, installation=lambda: self.installation,
            enqueue=self.enqueue, now=self.now, epoch=lambda: self.epoch, export_dir=self.export_dir,
        )  # fmt: skip

    def now(self) -> str:
        return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def enqueue(self, ref: Ref) -> None:
        self.pending[ref] = None

    def _watch(self, event: str, kind: Kind, obj: Obj) -> None:
        if kind not in STATUS_MODELS and labels_of(obj).get(names.LABEL_MANAGED_BY) != names.MANAGER:
            return
        old = self.cache.get(kind, key_of(obj))
        if event == "DELETED":
            self.cache.drop(kind, key_of(obj))
            refs = mapping.follows(self.cache, kind, old or obj, None)
        else:
            changed = self.cache.put(kind, obj)
            refs = mapping.follows(self.cache, kind, old, obj) if changed else []
        for ref in refs:
            self.enqueue(ref)

    async def run(self, ref: Ref) -> None:
        """One reconcile."""
        self.retries.pop(ref, None)
        try:
            self.answers[ref] = await reconcile(self.ctx, ref)
        except Retry as retry:
            self.retries[ref] = retry

    async def settle(self, limit: int = 400) -> None:
        """Reconcile until nothing is pending; what wants a retry stays in `retries`."""
        for _ in range(limit):
            if not self.pending:
                return
            ref, _none = self.pending.popitem(last=False)
            await self.run(ref)
        raise AssertionError(f"does not settle: {list(self.pending)[:5]}")

    async def again(self) -> None:
        """Every object once more, as a resync would."""
        for kind in STATUS_MODELS:
            for obj in self.kube.all(kind):
                self.enqueue(Ref(kind.kind, key_of(obj).namespace, key_of(obj).name))
        await self.settle()

    async def retry(self) -> None:
        """What wanted a retry, once."""
        for ref in list(self.retries):
            self.enqueue(ref)
        await self.settle()

    # -- objects ----------------------------------------------------------------------------------------------------
    async def create(self, kind: Kind, name: str, spec: dict[str, Any], namespace: str = "") -> Obj:
        metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
        return await self.kube.create(kind, body)

    async def tenant(self, name: str = "acme", **spec: Any) -> Obj:
        base = {
            "cause": "I keep Acme honest.",
            "providers": [{"name": "script", "type": "Scripted", "script": {"name": "s", "key": "k"}}],
        }
        return await self.create(TENANT, name, base | spec)

    async def agent(self, name: str = "reviewer", tenant: str = "acme", **spec: Any) -> Obj:
        base = {"cause": "I review.", "model": {"provider": "script", "name": "any"}}
        return await self.create(AGENT, name, base | spec, names.tenant_namespace(tenant))

    async def session(self, name: str = "s1", tenant: str = "acme", **spec: Any) -> Obj:
        base = {"target": {"kind": "Agent", "name": "reviewer"}, "task": "Say hello."}
        return await self.create(SESSION, name, base | spec, names.tenant_namespace(tenant))

    async def pods_run(self) -> None:
        """Every StatefulSet and Deployment gets the pods it asks for."""
        for kind in (STATEFUL_SET, DEPLOYMENT):
            for obj in self.kube.all(kind):
                count = obj["spec"].get("replicas", 1)
                state = {"readyReplicas": count, "updatedReplicas": count, "replicas": count}
                state["observedGeneration"] = obj["metadata"]["generation"]
                head = {"name": obj["metadata"]["name"], "namespace": obj["metadata"]["namespace"]}
                body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": head, "status": state}
                await self.kube.apply(kind, body, manager="kube-controller-manager", status=True)

    async def report_bound(self, tenant: str = "acme", sequence: int = 1) -> None:
        """The core reports its log and all agents as bound; the broker all providers as available."""
        namespace = names.tenant_namespace(tenant)
        raw = self.kube.peek(TENANT, tenant)
        assert raw is not None
        agents = tuple(
            AgentReport(name=key_of(a).name, alive=True, identity_bound=True, commitment=a["status"]["identity"]["commitment"])
            for a in self.kube.all(AGENT, namespace)
        )
        core = Report(reporter="core", sequence=sequence, vkey="v+1+k", origin="folkmoot/x", agents=agents)
        await self.reports.take(raw, namespace, core)
        providers = tuple(ProviderReport(name=p["name"], available=True) for p in raw["spec"]["providers"])
        await self.reports.take(raw, namespace, Report(reporter="broker", sequence=sequence, providers=providers))
        await self.settle()

    async def ready(self, tenant: str = "acme") -> None:
        """Bring everything there is to Ready."""
        await self.settle()
        await self.pods_run()
        await self.settle()
        await self.report_bound(tenant)
        await self.again()

    def condition(self, kind: Kind, name: str, type_: str, namespace: str = "") -> dict[str, Any]:
        """A condition as stored, or an empty map."""
        obj = self.kube.peek(kind, name, namespace)
        assert obj is not None, f"{kind.kind} {name} is gone"
        return next((c for c in (obj.get("status") or {}).get("conditions") or () if c["type"] == type_), {})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(export_dir=tmp_path)
