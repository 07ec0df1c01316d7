"""Puts the operator's parts together and runs them: cache, queue, workers, leader, endpoint, probes. It knows no kopf.

`main` feeds it watch events and ends the process when it ends; tests give it the in-memory API server and conductor.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from folkmoot_core import names
from folkmoot_core.errors import FolkmootError
from folkmoot_core.plan.types import Installation
from folkmoot_operator import health, mapping
from folkmoot_operator.applier import Applier
from folkmoot_operator.ca import Contexts, Signer, ensure
from folkmoot_operator.cache import Cache
from folkmoot_operator.conductor_client import Conductor
from folkmoot_operator.discovery import Discovery
from folkmoot_operator.endpoint import Endpoint
from folkmoot_operator.fence import Fence
from folkmoot_operator.kinds import CHILDREN, CONFIG_MAP, OWN, TENANT, Key, Kind, Obj, key_of, uid_of
from folkmoot_operator.kube import Kube
from folkmoot_operator.leader import Elector
from folkmoot_operator.metrics import Metrics
from folkmoot_operator.queue import Again, Priority, Queue, work
from folkmoot_operator.reconcile import INSTALLATION, Context, Ref, reconcile
from folkmoot_operator.recorder import Recorder
from folkmoot_operator.report import ReportWriter
from folkmoot_operator.settings import Settings
from folkmoot_operator.witness_client import SeenLog, Witness
from folkmoot_operator.witness_keeper import WitnessKeeper

log = logging.getLogger(__name__)
WATCHED: Final = (*OWN, *CHILDREN)
CHILD_SELECTOR: Final = f"{names.LABEL_MANAGED_BY}={names.MANAGER}"
KEYS_SECONDS: Final = 300.0  # how often the cluster's token keys are read again
RENEW_SECONDS: Final = 16 * 3600.0  # two thirds of a certificate's 24 hours
WITNESS_SECONDS: Final = 10.0  # that a new leader waits for the witness's key: each document without it is made twice
SETTLE_SECONDS: Final = 5.0  # relists that the watch asks for are gathered for this long


@dataclass
class App:
    """One replica. `conductor` and `witness` are made once the CA is known, because they need the client certificate."""

    settings: Settings
    kube: Kube
    conductor: Callable[[ssl.SSLContext], Conductor]
    witness: Callable[[ssl.SSLContext], Witness] | None = None
    """None: the installation has no witness."""
    metrics: Metrics = field(default_factory=Metrics)
    rng: random.Random = field(default_factory=random.Random)
    cache: Cache = field(default_factory=Cache)
    leading: bool = False

    def __post_init__(self) -> None:
        settings = self.settings
        self.queue: Queue[Ref] = Queue(rng=self.rng, observer=self.metrics)
        self.discovery = Discovery(self.kube)
        self.elector = Elector(self.kube, settings.namespace, settings.identity, _micro)
        self.health = health.Health(self.kube, self.cache, self.metrics, settings.namespace, settings.identity)
        self.fence = Fence(self.kube, settings.namespace)
        self.reports = ReportWriter(self.kube, self.cache, self._reported, self.fence)
        self.metrics.count_tenants(lambda: self.cache.count(TENANT))
        self._relist: dict[Kind, float] = {}
        self._contexts: Contexts | None = None
        self.context: Context | None = None

    # -- what the watch says --------------------------------------------------------------------------------------------
    def observe(self, kind: Kind, event: str | None, obj: Obj) -> None:
        """One watch event: copy it into the cache and enqueue what follows. No I/O. `event` is None for an object of a list that
        the watch took (again): then something may have been missed, and the kind is listed by ourselves soon."""
        key = key_of(obj)
        old = self.cache.get(kind, key)
        if event == "DELETED":
            self.cache.drop(kind, key)
            self._enqueue_all(kind, old or obj, None)
            if kind == TENANT:
                self.fence.forget(uid_of(obj))
            return
        if event is None:
            self._relist.setdefault(kind, time.monotonic())
        if kind == CONFIG_MAP and key == self.health.key:
            self.health.seen(obj)
        if self.cache.put(kind, obj):
            self._enqueue_all(kind, old, self.cache.get(kind, key))

    def enqueue(self, ref: Ref, priority: Priority = Priority.CHANGED) -> None:
        """Ask for work; a replica that does not lead has none."""
        if self.leading:
            self.queue.add(ref, priority)

    def _enqueue_all(self, kind: Kind, old: Obj | None, new: Obj | None) -> None:
        for ref in mapping.follows(self.cache, kind, old, new):
            self.enqueue(ref)

    def _reported(self, kind: Kind, key: Key) -> None:
        self.enqueue(Ref(kind.kind, key.namespace, key.name))
        if kind == TENANT:  # what the broker says of its providers concerns the agents
            for ref in mapping.inside(self.cache, names.tenant_namespace(key.name)):
                self.enqueue(ref)

    # -- running --------------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Run until cancelled; raises `LeaderLost` when the process must end at once."""
        probes = health.probes(self.health, self.metrics, lambda: self.leading)
        async with Door(probes, self.settings.listen_host, self.settings.metrics_port, None):
            await self.prepare()
            endpoint = self._endpoint()
            async with Door(endpoint.app(), self.settings.listen_host, self.settings.port, self.contexts.server):
                self.health.endpoint_up = True
                try:
                    async with asyncio.TaskGroup() as group:
                        for task in (self.health.run, self._keep_lists, self._keep_keys, self._keep_certificates, self.lead):
                            group.create_task(task(), name=f"folkmoot-{task.__name__.strip('_')}")
                        if self.fence.witness is not None:
                            group.create_task(self.fence.witness.keep(), name="folkmoot-witness")
                except* FolkmootError as errors:
                    raise errors.exceptions[0] from None
                finally:
                    self.health.endpoint_up = False

    async def prepare(self) -> None:
        """What must stand before anything else: keys of the cluster, the CA, a full cache."""
        await self.discovery.refresh()
        authority = await ensure(self.kube, self.settings.namespace, _utc)
        self._contexts = Contexts(Signer(authority, _utc), self.settings.endpoint_names())
        if self.witness is not None:
            self.fence.witness = WitnessKeeper(self.witness(self.contexts.client), self._tenants_again)
        self.context = Context(
            kube=self.kube, cache=self.cache, applier=Applier(self.kube, self.cache), conductor=self.conductor(self.contexts.client),
            recorder=Recorder(self.kube, self.settings.identity, _micro), reports=self.reports, installation=self.installation,
            enqueue=self.enqueue, now=_seconds, epoch=time.time, export_dir=self.settings.export_dir, metrics=self.metrics,
        )  # fmt: skip
        for kind in WATCHED:
            await self.relist(kind)
        self.cache.filled.set()
        log.info("the cache is filled", extra={"tenants": self.cache.count(TENANT)})

    async def relist(self, kind: Kind) -> None:
        """List a kind in pages; what the watch missed is enqueued, what is gone is dropped."""
        relist = self.cache.relist(kind)
        try:
            async for page in self.kube.pages(kind, labels="" if kind in OWN else CHILD_SELECTOR):
                relist.page(page)
        except BaseException:
            relist.abandon()
            raise
        gone = relist.finish()
        for obj in gone:
            self._enqueue_all(kind, obj, None)
        for key in relist.changed:
            if (new := self.cache.get(kind, key)) is not None:
                self._enqueue_all(kind, None, new)

    async def lead(self) -> None:
        """Wait for leadership, then reconcile until cancelled or the Lease is lost."""
        if self.settings.leader_election:
            await self.elector.acquire()
        context = self.context
        assert context is not None  # noqa: S101 - prepare() has run
        try:
            async with asyncio.TaskGroup() as group:
                if self.settings.leader_election:
                    group.create_task(self.elector.keep(), name="folkmoot-lease")
                if self.fence.witness is not None:  # while the Lease is kept, which is shorter than this may take
                    await self.fence.witness.listen(WITNESS_SECONDS)
                self.leading = True
                self.enqueue_everything()
                group.create_task(self._resync(), name="folkmoot-resync")

                async def one(ref: Ref) -> Again:
                    return await reconcile(context, ref)

                group.create_task(work(self.queue, one, self.settings.workers), name="folkmoot-workers")
                if self.fence.witness is not None:
                    group.create_task(self.fence.witness.watch(self._uids, self._witnessed), name="folkmoot-forks")
        finally:
            self.leading = False

    async def close(self) -> None:
        """At a clean end, after `run` was cancelled: give back the Lease, remove the canary."""
        if self.elector.leading.is_set():
            await self.elector.release()
        await self.health.remove()

    def enqueue_everything(self) -> None:
        """The installation's own objects, every object of ours once, and a sweep per tenant: what a new leader begins with."""
        self.enqueue(INSTALLATION)
        for kind in OWN:
            for obj in self.cache.objects(kind):
                self.enqueue(Ref(kind.kind, key_of(obj).namespace, key_of(obj).name))
        for tenant in self.cache.objects(TENANT):
            self.enqueue(Ref("Sweep", "", key_of(tenant).name))

    async def _resync(self) -> None:
        """Look at everything again within each period, spread evenly, after what changed."""
        period = self.settings.resync_seconds
        canaries: dict[Key, str] = {}
        while True:
            canaries = await self._drop_dead_canaries(canaries)
            self.queue.add_after(INSTALLATION, self.rng.uniform(0, period), Priority.RESYNC)
            for kind in OWN:
                for obj in self.cache.objects(kind):
                    ref = Ref(kind.kind, key_of(obj).namespace, key_of(obj).name)
                    self.queue.add_after(ref, self.rng.uniform(0, period), Priority.RESYNC)
            for tenant in self.cache.objects(TENANT):
                self.queue.add_after(Ref("Sweep", "", key_of(tenant).name), self.rng.uniform(0, period), Priority.RESYNC)
            await asyncio.sleep(period)

    async def _drop_dead_canaries(self, before: dict[Key, str]) -> dict[Key, str]:
        """Remove canaries of replicas that were killed: those that did not move for a whole period. Returns where they are now."""
        now = {}
        for obj in self.cache.objects(CONFIG_MAP, self.settings.namespace):
            key, version = key_of(obj), str(obj["metadata"].get("resourceVersion"))
            if not key.name.startswith(health.CANARY):
                continue
            if before.get(key) != version:
                now[key] = version
                continue
            try:
                await self.kube.delete(CONFIG_MAP, key, uid=obj["metadata"]["uid"])
            except FolkmootError as error:
                log.warning("a dead replica's canary was not removed", extra={"error": error.message})
        return now

    async def _keep_lists(self) -> None:
        """List kinds again whose watch began anew, and each kind once per period, so that a lost event is a delay and no more."""
        due = {kind: self.rng.uniform(0.5, 1.0) * self.settings.resync_seconds for kind in WATCHED}
        began = time.monotonic()
        while True:
            await asyncio.sleep(SETTLE_SECONDS)
            now = time.monotonic()
            for kind in WATCHED:
                asked = self._relist.get(kind)
                if (asked is not None and now - asked >= SETTLE_SECONDS) or now - began >= due[kind]:
                    self._relist.pop(kind, None)
                    due[kind] = now - began + self.settings.resync_seconds
                    await self._try_relist(kind)

    async def _try_relist(self, kind: Kind) -> None:
        try:
            await self.relist(kind)
        except FolkmootError as error:
            log.warning("a list could not be taken again", extra={"kind": kind.kind, "error": error.message})
            self._relist.setdefault(kind, time.monotonic())

    async def _keep_keys(self) -> None:
        while True:
            await asyncio.sleep(KEYS_SECONDS)
            if await self.discovery.try_refresh():
                log.info("the cluster's token keys changed")
                self.enqueue(INSTALLATION)
                self._tenants_again()

    def _tenants_again(self) -> None:
        """Something that every tenant's plan or document is made from has changed."""
        for tenant in self.cache.objects(TENANT):
            self.enqueue(Ref("Tenant", "", key_of(tenant).name))

    def _uids(self) -> list[str]:
        return [uid_of(tenant) for tenant in self.cache.objects(TENANT)]

    async def _witnessed(self, uid: str, logs: tuple[SeenLog, ...]) -> None:
        """What the witness saw of a tenant's logs: a fork of the one it has now is remembered, told and shown."""
        tenant = next((obj for obj in self.cache.objects(TENANT) if uid_of(obj) == uid), None)
        context = self.context
        if tenant is None or context is None:
            return
        origin = ((tenant.get("status") or {}).get("audit") or {}).get("origin")
        forked = next((seen for seen in logs if seen.origin == origin and seen.fork), None)
        why = await self.fence.accuse(tenant, forked) if forked is not None else ""
        if why != context.memory.forks.get(uid, ""):
            context.memory.forks[uid] = why
            self.enqueue(Ref("Tenant", "", key_of(tenant).name))

    async def _keep_certificates(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            self.contexts.renew()

    # -- values -----------------------------------------------------------------------------------------------------
    @property
    def contexts(self) -> Contexts:
        """TLS contexts; there after `prepare`."""
        assert self._contexts is not None  # noqa: S101 - prepare() has run
        return self._contexts

    def _endpoint(self) -> Endpoint:
        return Endpoint(self.contexts.signer, self.discovery, self.cache, self.reports, self.metrics, self.settings.namespace)

    def installation(self) -> Installation:
        """The installation as plans see it, with the keys of this moment."""
        s = self.settings
        return Installation(
            system_namespace=s.namespace, federation=s.federation, operator_service_url=s.url(), operator_image=s.operator_image,
            runtime_image=s.image, issuer=self.discovery.issuer, jwks=self.discovery.jwks,
            ca_bundle=self.contexts.signer.authority.pem(), version=s.version, image_pull_policy=s.image_pull_policy,
            image_pull_secrets=s.image_pull_secrets, storage_class=s.storage_class or None,
            export_configured=s.export_dir is not None, cluster_domain=s.cluster_domain, cluster_dns_cidrs=s.cluster_dns_cidrs,
            cluster_cidrs=s.cluster_cidrs, witness_url=s.witness_url,
            witness_key=self.fence.witness.key if self.fence.witness is not None else "",
        )  # fmt: skip


@dataclass
class Door:
    """One listening application, for as long as the block lasts."""

    app: web.Application
    host: str
    port: int
    tls: ssl.SSLContext | None

    async def __aenter__(self) -> Door:
        self._runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=2.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, ssl_context=self.tls).start()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self._runner.cleanup()


def _utc() -> datetime:
    return datetime.now(UTC)


def _seconds() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
