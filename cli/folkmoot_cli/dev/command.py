"""`folkmoot dev PATH…`: gather the manifests, make the plans, start the processes, follow the sessions, print the result."""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import os
import shutil
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx2
import uvicorn

from folkmoot_cli import events as lines
from folkmoot_cli.dev import follow, witness, world
from folkmoot_cli.dev.issuer import ISSUER, REFRESH, Issuer
from folkmoot_cli.dev.layout import LOOPBACK, Layout
from folkmoot_cli.dev.machine import free_ports, isolation
from folkmoot_cli.dev.processes import Processes
from folkmoot_cli.dev.stand_in import StandIn
from folkmoot_cli.dev.world import World
from folkmoot_core import names
from folkmoot_core.document import SessionReport, TenantDocument
from folkmoot_core.errors import Invalid, Missing, Unavailable
from folkmoot_core.plan import document as plan_document
from folkmoot_core.plan import session as plan_session
from folkmoot_core.plan.types import Installation, Problems

READY_SECONDS = 60.0
POLL_SECONDS = 0.05
INTERRUPTED = 130  # 128 + SIGINT, as shells say it


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], summary: str) -> None:
    """`folkmoot dev`."""
    parser = subparsers.add_parser("dev", help=summary, description=summary)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="directories or files with manifests")
    parser.add_argument("--models", metavar="URL", help="replaces @MODELS@ in the manifests: where a model simulator listens")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="keep data there (a short path); default: a directory that is removed"
    )
    parser.add_argument("--export", type=Path, metavar="DIR", help="write each tenant's evidence there at the end, as TENANT.tar")
    parser.add_argument("--stay", action="store_true", help="keep running after the last session, until Ctrl-C")
    parser.add_argument("--federation", default="local", help="first part of every identity's scope (default: local)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exit code 0 when every session succeeded, 1 when one did not, 3 when it could not be run."""
    manifests = world.read(args.paths, {"@MODELS@": args.models} if args.models else {})
    kept: Path | None = args.state
    root = kept or Path(tempfile.mkdtemp(prefix="fm-", dir="/tmp" if os.path.isdir("/tmp") else None))  # noqa: S108 - sockets need a short path
    root.mkdir(parents=True, exist_ok=True)
    try:
        return asyncio.run(_Dev(manifests, root.resolve(), args).run())
    finally:
        if kept is None:
            shutil.rmtree(root, ignore_errors=True)


class _Server(uvicorn.Server):
    """Signals are this command's own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class _Tenant:
    layout: Layout
    results: dict[str, SessionReport] = field(default_factory=dict)

    @property
    def document(self) -> TenantDocument:
        return self.layout.document


class _Dev:
    """One run. The order is that of the operator: trust → endpoint → processes → document → sessions."""

    def __init__(self, manifests: World, root: Path, args: argparse.Namespace) -> None:
        self._world = manifests
        self._root = root
        self._args = args
        self._isolation = isolation()
        self._issuer = Issuer()
        self._stand_in = StandIn(self._issuer)
        self._processes = Processes(root / "logs")
        self._operator_url = f"https://{LOOPBACK}:{free_ports(['endpoint'])['endpoint']}"
        self._witness = witness.Witness(root / witness.TENANT, root / "trust", self._operator_url, free_ports(witness.DOORS))
        self._witness_key = ""  # as in a cluster: empty until it was asked
        self._tenants: list[_Tenant] = []

    async def run(self) -> int:
        started = time.monotonic()
        self._stand_in.write_trust(self._root / "trust")
        self._project_witness()
        self._tenants = [self._tenant(view.name) for view in self._world.tenants]
        self._say_isolation()
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        work = asyncio.create_task(self._work(started, stop))
        others = [asyncio.create_task(c) for c in (self._endpoint(), self._refresh_tokens(), _until(stop))]
        try:
            await asyncio.wait({work, *others}, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                if task.done():
                    task.result()  # raises what ended the endpoint; a plain end is Ctrl-C
            return work.result() if work.done() else INTERRUPTED
        finally:
            for running in (work, *others):
                running.cancel()
            await asyncio.gather(work, *others, return_exceptions=True)
            await self._processes.stop()

    async def _work(self, started: float, stop: asyncio.Event) -> int:
        operator = self._stand_in.client_context(self._root)
        async with httpx2.AsyncClient(verify=operator, timeout=httpx2.Timeout(30, read=None)) as client:
            self._processes.start(self._witness.spec())
            for tenant in self._tenants:
                for spec in tenant.layout.specs():
                    self._processes.start(spec)
            await self._wait_for(client, f"{witness.TENANT}/{witness.NAME}", self._witness.url)
            self._witness_key = await self._witness.key(client)
            for tenant in self._tenants:
                await self._ready(client, tenant)
                log = await witness.reported(tenant.layout.ledger_socket("conductor"))
                await self._witness.register(client, tenant.document.tenant_uid, log)
                await self._put_document(client, tenant)
            _say(f"up after {time.monotonic() - started:.1f} s; logs in {self._root}/logs")
            await asyncio.gather(*(self._sessions(client, tenant) for tenant in self._tenants))
            if self._args.stay:
                _say("running until Ctrl-C")
                await stop.wait()
            if self._args.export:
                await self._export(client)
        return self._summary()

    def _document(self, name: str) -> TenantDocument:
        view = next(t for t in self._world.tenants if t.name == name)
        return plan_document.document(
            view, [a for a in self._world.agents if a.meta.namespace == view.namespace],
            [c for c in self._world.councils if c.meta.namespace == view.namespace],
            [g for g in self._world.gates if g.meta.namespace == view.namespace], self._prompts(view.namespace), self._installation(),
        )  # fmt: skip

    def _tenant(self, name: str) -> _Tenant:
        document = self._document(name)
        mine = [a for a in self._world.agents if a.meta.namespace == document.namespace]
        missing = sorted({a.name for a in mine} - {a.name for a in document.agents})
        if missing:
            raise Invalid(
                f"tenant {name}: agents {', '.join(missing)} were refused: their grants exceed the tenant's, or a prompt's ConfigMap is missing"
            )
        layout = Layout(
            document=document, root=self._root / name, trust=self._root / "trust", operator_url=self._operator_url,
            ports=free_ports(Layout.doors(document)), isolation=self._isolation,
        )  # fmt: skip
        self._lay_out(layout)
        return _Tenant(layout)

    def _lay_out(self, layout: Layout) -> None:
        """The files that the kubelet would mount: tokens, provider keys, CA bundles, scripts."""
        for account, audiences in layout.accounts():
            self._issuer.project(layout.tokens(account), layout.document.namespace, account, audiences, account)
        namespace = layout.document.namespace
        for provider in layout.document.providers:
            secret, bundle, script = provider.api_key_secret_ref, provider.ca_bundle, provider.script
            if secret and (data := self._world.secrets.get((namespace, secret.name))) and secret.key in data:
                _write(layout.root / "keys" / provider.name / "key", data[secret.key])
            if bundle and (data := self._world.config_maps.get((namespace, bundle.name))) and bundle.key in data:
                _write(layout.root / "provider-ca" / provider.name / "ca.crt", data[bundle.key])
            if script and (data := self._world.config_maps.get((namespace, script.name))) and script.key in data:
                _write(layout.root / "scripts" / provider.name / "script.yaml", data[script.key])

    def _prompts(self, namespace: str) -> dict[str, str]:
        found = {}
        for agent in self._world.agents:
            source = agent.spec.system_prompt_from
            if source is None or agent.meta.namespace != namespace:
                continue
            ref = source.config_map_key_ref
            data = self._world.config_maps.get((namespace, ref.name), {})
            if ref.key in data:
                found[agent.name] = data[ref.key].decode()
        return found

    def _installation(self) -> Installation:
        return Installation(
            system_namespace=names.SYSTEM_NAMESPACE, federation=self._args.federation, operator_service_url=self._operator_url,
            operator_image="", runtime_image="", issuer=ISSUER, jwks=self._issuer.jwks(),
            ca_bundle=self._stand_in.authority.pem(), version="dev", witness_url=self._witness.url, witness_key=self._witness_key,
        )  # fmt: skip

    async def _endpoint(self) -> None:
        """The stand-in's own door."""
        port = int(self._operator_url.rsplit(":", 1)[1])
        config = uvicorn.Config(self._stand_in.app(), host=LOOPBACK, port=port, log_config=None, access_log=False, lifespan="off")
        config.load()
        config.ssl = self._stand_in.server_context(self._root)
        await _Server(config).serve()

    async def _refresh_tokens(self) -> None:
        while True:
            await asyncio.sleep(REFRESH)
            self._project_witness()
            for tenant in self._tenants:
                for account, audiences in tenant.layout.accounts():
                    self._issuer.project(tenant.layout.tokens(account), tenant.document.namespace, account, audiences, account)

    def _project_witness(self) -> None:
        self._issuer.project(self._witness.tokens, names.SYSTEM_NAMESPACE, names.SA_WITNESS, witness.AUDIENCES, witness.NAME)

    async def _ready(self, client: httpx2.AsyncClient, tenant: _Tenant) -> None:
        for door in ("conductor", "ledger", "router", "broker"):
            await self._wait_for(client, f"{tenant.document.tenant}/{door}", tenant.layout.url(door))

    async def _wait_for(self, client: httpx2.AsyncClient, name: str, url: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx2.TransportError, ssl.SSLError):
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(POLL_SECONDS)
        tail = _tail(self._processes.log(name))
        raise Unavailable(
            f"{name} did not become ready within {READY_SECONDS:.0f} s; its log ({self._processes.log(name)}) ends:\n{tail}"
        )

    async def _put_document(self, client: httpx2.AsyncClient, tenant: _Tenant) -> None:
        tenant.layout = replace(tenant.layout, document=self._document(tenant.document.tenant))  # the witness's key is known now
        url = f"{tenant.layout.url('operator-door')}/operator/v1/document"
        answer = await client.put(url, content=tenant.document.model_dump_json(by_alias=True))
        if answer.is_error:
            raise Invalid(f"tenant {tenant.document.tenant}: the conductor refused the document: {answer.text[:300]}")

    async def _sessions(self, client: httpx2.AsyncClient, tenant: _Tenant) -> None:
        mine = [s for s in self._world.sessions if s.meta.namespace == tenant.document.namespace]
        agents, councils = {a.name for a in tenant.document.agents}, {c.name for c in tenant.document.councils}
        for view in mine:
            config_maps = {
                name: {"binaryData": {k: base64.b64encode(v).decode() for k, v in data.items()}}
                for (namespace, name), data in self._world.config_maps.items() if namespace == tenant.document.namespace
            }  # fmt: skip
            order = plan_session.order(view, config_maps, agents, councils)
            if isinstance(order, Problems):
                raise Missing(f"Session {view.name}: " + "; ".join(str(p) for p in order.items))
            url = f"{tenant.layout.url('operator-door')}/operator/v1/sessions/{order.uid}"
            answer = await client.put(url, content=order.model_dump_json(by_alias=True))
            if answer.is_error:
                raise Invalid(f"Session {view.name}: the conductor refused it: {answer.text[:300]}")
        await asyncio.gather(*(self._follow(client, tenant, view.name) for view in mine))

    async def _follow(self, client: httpx2.AsyncClient, tenant: _Tenant, name: str) -> None:
        base = f"{tenant.layout.url('conductor')}/v1/sessions/{name}"
        token_file = tenant.layout.tokens(names.SA_OWNER) / names.AUDIENCE_CONDUCTOR
        async for event in follow.events(client, f"{base}/events", token_file.read_text):
            text = lines.line(event)
            if text:
                _say(f"{tenant.document.tenant}/{name}  {text}")
        answer = await client.get(base, headers={"Authorization": f"Bearer {token_file.read_text()}"})
        answer.raise_for_status()
        tenant.results[name] = SessionReport.model_validate_json(answer.content)

    async def _export(self, client: httpx2.AsyncClient) -> None:
        self._args.export.mkdir(parents=True, exist_ok=True)
        for tenant in self._tenants:
            file = self._args.export / f"{tenant.document.tenant}.tar"
            async with client.stream("GET", f"{tenant.layout.url('operator-door')}/operator/v1/evidence") as answer:
                answer.raise_for_status()
                with file.open("wb") as out:
                    async for chunk in answer.aiter_bytes():
                        out.write(chunk)
            _say(f"evidence of {tenant.document.tenant}: {file} (check it: folkmoot verify {file})")

    def _summary(self) -> int:
        failed = False
        for tenant in self._tenants:
            for name, report in sorted(tenant.results.items()):
                failed = failed or report.phase != "Succeeded"
                gate = f", gate {report.gate_verdict} at submission {report.gate_submission}" if report.gate_verdict else ""
                votes = f", votes {report.votes_for}:{report.votes_against}" if report.votes_for + report.votes_against else ""
                cost = f", {report.cost} {report.currency}" if report.cost else ""
                why = "" if report.phase == "Succeeded" else f" ({report.reason}: {report.message})"
                _say(f"{tenant.document.tenant}/{name}: {report.phase}{why}{gate}{votes}{cost}")
                if report.result_preview:
                    _say(f"  {report.result_preview}")
        return 1 if failed else 0

    def _say_isolation(self) -> None:
        tenant = self._tenants[0]
        jail = (
            "bubblewrap jails"
            if tenant.layout.isolation == "bwrap"
            else "plain processes: a tool can read this machine's files and reach its network"
        )
        _say(f"without a cluster: sandboxes are {jail}; processes share one user and one network; the bus speaks no TLS")


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    path.write_bytes(data)


def _tail(path: Path, count: int = 8) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-count:])
    except OSError:
        return "(no log)"
