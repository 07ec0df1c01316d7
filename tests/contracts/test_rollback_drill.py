"""The drill without a witness: a real log whose volume is restored from a snapshot is found out by the operator's memory alone.

Real log on a disk, real reports over TLS with a real token to the operator's endpoint, the in-memory API server behind it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from folkmoot_cli.dev.issuer import ISSUER, Issuer
from folkmoot_core import names
from folkmoot_core.document import LogReport, Report
from folkmoot_core.entries import Actor, Producer, new_entry
from folkmoot_core.errors import Conflict, Unavailable
from folkmoot_operator import ca
from folkmoot_operator.app import _utc
from folkmoot_operator.cache import Cache
from folkmoot_operator.discovery import Discovery
from folkmoot_operator.endpoint import Endpoint
from folkmoot_operator.fake_kube import FakeKube
from folkmoot_operator.fence import Fence
from folkmoot_operator.kinds import CONFIG_MAP, NAMESPACE, TENANT
from folkmoot_operator.metrics import Metrics
from folkmoot_operator.report import ReportWriter
from folkmoot_runtime import settings as environment
from folkmoot_runtime.conductor.logwatch import LogWatch
from folkmoot_runtime.conductor.reports import OperatorClient
from folkmoot_runtime.ledger.log import Log, Options, open_log
from folkmoot_runtime.ledger.wal import SMALLEST_SEGMENT
from folkmoot_runtime.trust import Trust

NS = names.tenant_namespace("acme")
CONDUCTOR = Producer(id="core/conductor")
NOW = 1_800_000_000.0


@dataclass
class Core:
    """What matters of a core: a log, who watches it, and who reports it."""

    log: Log
    watch: LogWatch
    operator: OperatorClient
    sequence: int = 0

    async def grow(self, what: str) -> None:
        entry = new_entry("session.start", Actor(kind="service", id="conductor"), id=f"fact-{what}", data={"what": what}, now=NOW)
        await self.log.append([entry], CONDUCTOR)
        await self.log.publish()

    async def report(self) -> None:
        await self.watch._look()
        self.sequence += 1
        try:
            await self.operator.report(Report(reporter="core", sequence=self.sequence, log=self.watch.current))
        except Conflict as error:
            self.watch.forked(error.message)


class Standing:
    """`logwatch.Watched` over a log in this process."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def status(self) -> LogReport:
        return self._log.status()

    async def freeze(self, reason: str, message: str) -> LogReport:
        await self._log.freeze(reason, message)
        return self._log.status()


class Drill:
    """The operator's side, and cores over directories; `now` moves with every look."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.now = directory, NOW
        self.kube = FakeKube()
        self.issuer = Issuer()
        self.kube.blobs = {
            "/openid/v1/jwks": self.issuer.jwks().encode(),
            "/.well-known/openid-configuration": f'{{"issuer": "{ISSUER}"}}'.encode(),
        }
        self.open: list[Log] = []

    def clock(self) -> float:
        self.now += 1
        return self.now

    async def begin(self) -> TestServer:
        cache = Cache()
        labels = {names.LABEL_MANAGED_BY: names.MANAGER, names.LABEL_TENANT: "acme"}
        for name in (NS, names.SYSTEM_NAMESPACE):
            cache.put(NAMESPACE, await self.kube.create(NAMESPACE, {"metadata": {"name": name, "labels": labels}}))
        cache.put(TENANT, await self.kube.create(TENANT, {"metadata": {"name": "acme"}, "spec": {}}))
        cache.filled.set()
        keys = Discovery(self.kube)
        await keys.refresh()
        authority = await ca.ensure(self.kube, names.SYSTEM_NAMESPACE, _utc)
        contexts = ca.Contexts(ca.Signer(authority, _utc), ["127.0.0.1"])
        writer = ReportWriter(
            self.kube, cache, lambda kind, key: None, Fence(self.kube, names.SYSTEM_NAMESPACE, epoch=self.clock)
        )
        endpoint = Endpoint(contexts.signer, keys, cache, writer, Metrics(), names.SYSTEM_NAMESPACE)
        server = TestServer(endpoint.app(), scheme="https", host="127.0.0.1")
        await server.start_server(ssl=contexts.server)
        trust = self.directory / "trust"
        trust.mkdir()
        for file, text in (("ca.crt", authority.pem()), ("jwks.json", self.issuer.jwks()), ("issuer", ISSUER)):
            (trust / file).write_text(text)
        self.issuer.project(self.directory / "tokens", NS, names.SA_CORE, (names.AUDIENCE_OPERATOR,), "core-0")
        self.settings = environment.from_environment({
            "FOLKMOOT_TENANT": "acme", "FOLKMOOT_NAMESPACE": NS, "FOLKMOOT_TOKENS": str(self.directory / "tokens"),
            "FOLKMOOT_TRUST": str(trust), "FOLKMOOT_OPERATOR_URL": f"https://127.0.0.1:{server.port}",
        })  # fmt: skip
        return server

    async def core(self, volume: Path, sequence: int = 0) -> Core:
        log = await open_log(
            volume, Options(tenant="acme", first_segment=SMALLEST_SEGMENT, clock=self.clock, checkpoint_interval=3600.0)
        )
        self.open.append(log)
        client = OperatorClient(self.settings, Trust(self.settings.trust, NS))
        return Core(log, LogWatch(Standing(log), self.clock), client, sequence)

    async def stop(self, core: Core) -> None:
        self.open.remove(core.log)
        await core.log.aclose()

    def audit(self) -> dict[str, object]:
        found = self.kube.peek(TENANT, "acme")
        assert found is not None
        audit: dict[str, object] = found["status"]["audit"]
        return audit


@pytest.fixture
async def drill(tmp_path: Path) -> AsyncIterator[Drill]:
    made = Drill(tmp_path)
    server = await made.begin()
    yield made
    for log in made.open:
        await log.aclose()
    await server.close()


async def test_a_restored_snapshot_is_found_out_frozen_and_shown(drill: Drill, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    core = await drill.core(volume)
    await core.grow("before the snapshot")
    await core.report()
    await drill.stop(core)
    await asyncio.to_thread(shutil.copytree, volume, tmp_path / "snapshot")
    core = await drill.core(volume, core.sequence)
    for number in range(5):
        await core.grow(f"to be forgotten {number}")
    drill.now += 60
    await core.report()
    remembered = core.log.size
    await drill.stop(core)

    restored = await drill.core(tmp_path / "snapshot", 1)  # the counter of its reports came back with it
    assert restored.log.size < remembered
    await restored.report()
    assert "rolled back" in str(drill.audit()["fork"])
    await restored.watch._look()
    status = restored.log.status()
    assert (status.state, status.reason) == ("Frozen", "ForkDetected")
    with pytest.raises(Unavailable):
        await restored.grow("after the freeze")
    restored.sequence = 100
    await restored.report()  # a frozen log's report is taken as ever
    assert drill.audit()["state"] == "Frozen"
    assert [obj["metadata"]["name"] for obj in drill.kube.all(CONFIG_MAP)] == [
        names.log_memory(drill.kube.peek(TENANT, "acme")["metadata"]["uid"])  # type: ignore[index]
    ]


async def test_a_log_that_only_goes_on_is_left_alone(drill: Drill, tmp_path: Path) -> None:
    core = await drill.core(tmp_path / "volume")
    for number in range(4):
        await core.grow(f"fact {number}")
        drill.now += 61
        await core.report()
    await drill.stop(core)
    core = await drill.core(tmp_path / "volume", core.sequence)
    await core.report()
    assert "fork" not in drill.audit()
    assert core.log.status().state == "Open"


async def test_another_certificate_authority_gets_no_report(drill: Drill, tmp_path: Path) -> None:
    core = await drill.core(tmp_path / "volume")
    (drill.settings.trust / "ca.crt").write_text((await ca.ensure(FakeKube(namespaces=False), "x", _utc)).pem())
    with pytest.raises(Unavailable):
        await core.report()
