"""The real process, alone: ready without ledger, bus or anybody to report to, its doors guarded, gone soon after SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from folkmoot_cli.dev.issuer import Issuer
from folkmoot_cli.dev.stand_in import StandIn
from folkmoot_cli.main import main
from folkmoot_core import names
from folkmoot_runtime import web
from folkmoot_runtime.conductor.__main__ import _endpoints, _number
from folkmoot_runtime.ledger.client import LedgerClient
from folkmoot_runtime.ledger.export import write_directory

NAMESPACE = "folkmoot-acme"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Installation:
    """One conductor process beside a stand-in for the operator's endpoint."""

    directory: Path
    stand_in: StandIn
    service: int
    operator: int
    env: dict[str, str]

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[LedgerClient]:
        """The tenant's ledger process, which takes the conductor's word at the socket that the conductor is told of."""
        path = self.directory / "none.sock"
        env = {
            **self.env, "FOLKMOOT_DATA": f"{self.directory}/log", "FOLKMOOT_RUN": f"{self.directory}/run-ledger",
            "FOLKMOOT_PORT": str(free_port()), "FOLKMOOT_LEDGER_SOCKETS": f"{path}=core/conductor",
        }  # fmt: skip
        started = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "folkmoot_runtime.ledger", env=env,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        client = LedgerClient(f"unix://{path}", None, None, 60)
        try:
            await client.status()
            yield client
        finally:
            await client.aclose()
            started.kill()
            await started.wait()

    @asynccontextmanager
    async def process(self) -> AsyncIterator[asyncio.subprocess.Process]:
        started = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "folkmoot_runtime.conductor", env=self.env,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await self.ready(started)
            yield started
        finally:
            with suppress(ProcessLookupError):
                started.kill()
            await started.wait()

    async def ready(self, started: asyncio.subprocess.Process) -> None:
        async with asyncio.timeout(60), self.client(self.stand_in.client_context(self.directory)) as client:
            while started.returncode is None:
                with suppress(httpx2.TransportError, ssl.SSLError):
                    if (await client.get(f"https://127.0.0.1:{self.operator}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.1)
        pytest.fail(f"the process ended with {started.returncode}")

    @asynccontextmanager
    async def client(self, context: ssl.SSLContext) -> AsyncIterator[httpx2.AsyncClient]:
        async with httpx2.AsyncClient(verify=context, trust_env=False) as client:
            yield client

    def anonymous(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.stand_in.authority.pem())

    def serving(self) -> ssl.SSLContext:
        """The certificate that the core itself was given: a tenant's own, and no client's."""
        context = self.anonymous()
        own = self.directory / "run" / "conductor"
        context.load_cert_chain(own / "tls.crt", own / "tls.key")
        return context


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    issuer = Issuer()
    stand_in = StandIn(issuer)
    stand_in.write_trust(tmp_path / "trust")
    audiences = (names.AUDIENCE_OPERATOR, names.AUDIENCE_BUS, names.AUDIENCE_SANDBOX)
    issuer.project(tmp_path / "tokens", NAMESPACE, names.SA_CORE, audiences, "core-0")
    issuer.project(tmp_path / "owner", NAMESPACE, names.SA_OWNER, (names.AUDIENCE_CONDUCTOR,), "")
    endpoint, service, operator, nowhere = (free_port() for _ in range(4))
    env = {
        "PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"], "FOLKMOOT_TENANT": "acme", "FOLKMOOT_NAMESPACE": NAMESPACE,
        "FOLKMOOT_LISTEN_HOST": "127.0.0.1", "FOLKMOOT_PORT": str(service), "FOLKMOOT_OPERATOR_PORT": str(operator),
        "FOLKMOOT_DATA": str(tmp_path / "data"), "FOLKMOOT_RUN": str(tmp_path / "run"), "FOLKMOOT_TOKENS": str(tmp_path / "tokens"),
        "FOLKMOOT_TRUST": str(tmp_path / "trust"), "FOLKMOOT_OPERATOR_URL": f"https://127.0.0.1:{endpoint}",
        "FOLKMOOT_LEDGER_URL": f"unix://{tmp_path}/none.sock", "FOLKMOOT_ROUTER_URL": f"https://127.0.0.1:{nowhere}",
        "FOLKMOOT_BUS_URL": f"redis://127.0.0.1:{nowhere}",
    }  # fmt: skip
    serving = asyncio.create_task(
        web.serve(stand_in.app(), host="127.0.0.1", port=endpoint, context=stand_in.server_context(tmp_path))
    )
    yield Installation(tmp_path, stand_in, service, operator, env)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_it_serves_alone_and_keeps_what_it_was_given(installation: Installation, make: Any) -> None:
    operator = f"https://127.0.0.1:{installation.operator}/operator/v1"
    kubernetes = installation.stand_in.client_context(installation.directory)
    token = (installation.directory / "owner" / names.AUDIENCE_CONDUCTOR).read_text()
    async with installation.process() as process:
        async with installation.client(kubernetes) as client:
            put = await client.put(f"{operator}/document", content=make.document().model_dump_json())
            assert put.json()["digest"] == make.document().digest()
            accepted = await client.put(f"{operator}/sessions/{make.uid}", content=make.order().model_dump_json())
            assert accepted.json()["phase"] == "Pending"
        process.kill()
        assert await process.wait() == -signal.SIGKILL
    async with installation.process() as process:
        async with installation.client(kubernetes) as client:
            listed = (await client.get(f"{operator}/sessions")).json()["sessions"]
            assert [s["name"] for s in listed] == ["review"]
        async with installation.client(installation.anonymous()) as client:
            url = f"https://127.0.0.1:{installation.service}/v1/sessions/review"
            assert (await client.get(url, headers={"Authorization": f"Bearer {token}"})).json()["uid"] == make.uid
            assert (await client.get(url)).status_code == 401
        process.terminate()
        async with asyncio.timeout(10):
            assert await process.wait() == 0


async def test_the_operators_door_admits_the_operators_certificate_alone(installation: Installation) -> None:
    url = f"https://127.0.0.1:{installation.operator}/operator/v1/sessions"
    async with installation.process():
        for context in (installation.anonymous(), installation.serving()):
            async with installation.client(context) as client:
                with pytest.raises((httpx2.TransportError, ssl.SSLError)):
                    await client.get(url)
        async with installation.client(installation.stand_in.client_context(installation.directory)) as client:
            assert (await client.get(url)).status_code == 200


async def test_people_control_the_log_through_the_conductor(
    installation: Installation, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`folkmoot ledger status|rotate|anchor` at a real conductor beside a real ledger, and what `folkmoot verify` then says."""
    (tmp_path / "ca.pem").write_text(installation.stand_in.authority.pem())
    there = ["--server", f"https://127.0.0.1:{installation.service}", "--ca", f"{tmp_path}/ca.pem"]
    there += ["--token-file", f"{tmp_path}/owner/{names.AUDIENCE_CONDUCTOR}"]

    async def said(*words: str) -> str:
        assert await asyncio.to_thread(main, [*words]) == 0
        return capsys.readouterr().out

    async with installation.ledger() as ledger, installation.process():
        before = json.loads(await said("ledger", "status", "-o", "json", *there))
        rotated = json.loads(await said("ledger", "rotate", "-o", "json", *there))
        assert before["vkeys"] != rotated["vkeys"]
        assert "state       Open" in await said("ledger", "anchor", *there)
        await until_published(ledger)
        await write_directory(ledger.read, tmp_path / "copy")
    verified = json.loads(await said("verify", f"{tmp_path}/copy", "--key", before["vkeys"][0], "-o", "json"))
    assert (verified["types"]["log.control"], verified["types"]["log.key.rotated"]) == (2, 1)
    shown = await said("ledger", "search", "--source", f"{tmp_path}/copy", "--type", "log.control", "-o", "json")
    assert [json.loads(line)["entry"]["data"]["act"] for line in shown.splitlines()] == ["rotate", "anchor"]


async def until_published(ledger: LedgerClient) -> None:
    async with asyncio.timeout(30):
        while (report := await ledger.status()).size < report.entries:
            await asyncio.sleep(0.05)


def test_wrong_environments_are_refused_with_a_sentence() -> None:
    from folkmoot_core.errors import Invalid

    assert (
        subprocess.run([sys.executable, "-m", "folkmoot_runtime.conductor"], env={}, check=False, capture_output=True).returncode
        == 1
    )
    assert _endpoints("a=http://x/,b=http://y") == {"a": "http://x", "b": "http://y"}
    for text in ("a", "=x", "a="):
        with pytest.raises(Invalid):
            _endpoints(text)
    for text in ("0", "x", "-1", "70000"):
        with pytest.raises(Invalid):
            _number({"K": text}, "K", 5)
    assert _number({"K": ""}, "K", 5) == 5
