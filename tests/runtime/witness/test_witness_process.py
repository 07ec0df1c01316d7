"""The real process: certificate from the operator's endpoint, both doors over TLS, killed at any moment, started twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from witnessing import GrowingLog

from folkmoot_cli.dev.issuer import Issuer
from folkmoot_cli.dev.stand_in import StandIn
from folkmoot_core import names
from folkmoot_core.ledger import note, witness
from folkmoot_core.ledger.checkpoint import open_checkpoint
from folkmoot_core.ledger.note import VerifierKey
from folkmoot_core.ledger.witness import Behind, Cosignatures, Refused
from folkmoot_runtime import web

KILLS = int(os.environ.get("FOLKMOOT_WITNESS_KILLS", "8"))
TENANT = "3f0e8a5e-0000-4000-8000-000000000000"


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@dataclass
class Installation:
    """One witness process after the other over one directory."""

    directory: Path
    stand_in: StandIn
    public: int
    operator: int
    env: dict[str, str]

    async def start(self, **more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "folkmoot_runtime.witness", env={**self.env, **more}, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    @asynccontextmanager
    async def process(self) -> AsyncIterator[asyncio.subprocess.Process]:
        started = await self.start()
        try:
            await self.ready(started)
            yield started
        finally:
            with suppress(ProcessLookupError):
                started.kill()
            await started.communicate()

    async def ready(self, started: asyncio.subprocess.Process) -> None:
        async with asyncio.timeout(60), self.kubernetes() as client:
            while started.returncode is None:
                with suppress(httpx2.TransportError, ssl.SSLError):
                    if (await client.get(f"https://127.0.0.1:{self.operator}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)
        pytest.fail(f"the process ended with {started.returncode}")

    def kubernetes(self) -> httpx2.AsyncClient:
        """The operator: the one who has a client certificate."""
        return httpx2.AsyncClient(verify=self.stand_in.client_context(self.directory), trust_env=False)

    def anybody(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.stand_in.authority.pem())

    async def keys(self) -> tuple[VerifierKey, ...]:
        async with self.kubernetes() as client:
            answer = await client.get(f"https://127.0.0.1:{self.operator}/operator/v1/vkeys")
        return tuple(note.parse_vkey(vkey) for vkey in answer.json()["vkeys"])

    async def enrol(self, log: GrowingLog) -> None:
        async with self.kubernetes() as client:
            body = {"origin": log.origin, "vkeys": [key.vkey() for key in log.keys]}
            answer = await client.put(f"https://127.0.0.1:{self.operator}/operator/v1/logs/{TENANT}", json=body)
        assert answer.status_code == 200, answer.text


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    issuer = Issuer()
    stand_in = StandIn(issuer)
    stand_in.write_trust(tmp_path / "trust")
    issuer.project(
        tmp_path / "tokens", names.SYSTEM_NAMESPACE, names.SA_WITNESS, (names.AUDIENCE_OPERATOR,), "folkmoot-witness-0"
    )
    endpoint, public, operator = (free_port() for _ in range(3))
    env = {
        "PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"], "FOLKMOOT_TENANT": "system",
        "FOLKMOOT_NAMESPACE": names.SYSTEM_NAMESPACE, "FOLKMOOT_LISTEN_HOST": "127.0.0.1", "FOLKMOOT_PORT": str(public),
        "FOLKMOOT_OPERATOR_PORT": str(operator), "FOLKMOOT_DATA": str(tmp_path / "data"), "FOLKMOOT_RUN": str(tmp_path / "run"),
        "FOLKMOOT_TOKENS": str(tmp_path / "tokens"), "FOLKMOOT_TRUST": str(tmp_path / "trust"),
        "FOLKMOOT_OPERATOR_URL": f"https://127.0.0.1:{endpoint}",
    }  # fmt: skip
    serving = asyncio.create_task(
        web.serve(stand_in.app(), host="127.0.0.1", port=endpoint, context=stand_in.server_context(tmp_path))
    )
    yield Installation(tmp_path, stand_in, public, operator, env)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


class Log:
    """A log that goes on submitting, whatever happens to the witness."""

    def __init__(self, client: httpx2.AsyncClient, port: int, keys: tuple[VerifierKey, ...]) -> None:
        self.log = GrowingLog()
        self.cosigned = 0
        """The size whose cosignatures it holds."""
        self._asked = 0
        self._client = client
        self._url = f"https://127.0.0.1:{port}"
        self._keys = keys

    async def submit(self, log: GrowingLog, old: int, size: int) -> Cosignatures | Behind | Refused:
        answer = await self._client.post(f"{self._url}/add-checkpoint", content=log.request(old, size).encode())
        found = (answer.status_code, answer.headers["content-type"], answer.content)
        return witness.read_answer(found, log.point(size).body(), self._keys)

    async def grow(self) -> None:
        """One more checkpoint, from wherever the witness says that it stands."""
        size = self.cosigned + 1
        found = await self.submit(self.log, self._asked, size)
        if isinstance(found, Behind):
            assert found.size >= self.cosigned, "the witness forgot what it had cosigned"
            assert found.size <= size, "the witness cosigned what it was never shown"
            self._asked = found.size
            found = await self.submit(self.log, found.size, size)
        assert isinstance(found, Cosignatures)
        self.cosigned = self._asked = size


async def test_it_serves_both_doors_to_whom_they_are_for(installation: Installation) -> None:
    operator = f"https://127.0.0.1:{installation.operator}/operator/v1/vkeys"
    async with installation.process() as process:
        keys = await installation.keys()
        assert [key.algorithm for key in keys] == [note.COSIGNATURE, note.MLDSA44]
        serving = installation.anybody()  # a serving certificate of this installation is no client's
        own = installation.directory / "run" / "witness-tls"
        serving.load_cert_chain(own / "tls.crt", own / "tls.key")
        for context in (installation.anybody(), serving):
            async with httpx2.AsyncClient(verify=context, trust_env=False) as client:
                with pytest.raises((httpx2.TransportError, ssl.SSLError)):
                    await client.get(operator)
        await installation.enrol(GrowingLog())
        async with httpx2.AsyncClient(verify=installation.anybody(), trust_env=False) as client:
            log = Log(client, installation.public, keys)
            await log.grow()
            path = f"https://127.0.0.1:{installation.public}/{witness.origin_hash(log.log.origin)}/checkpoint"
            served = await client.get(path)
            assert served.headers["content-type"] == witness.TEXT_TYPE
            assert open_checkpoint(served.content, [*log.log.keys, *keys]) == log.log.point(1)
        second = await installation.start(FOLKMOOT_PORT=str(free_port()), FOLKMOOT_OPERATOR_PORT=str(free_port()))
        _, said = await second.communicate()
        assert second.returncode == 1
        assert b"in use by another process" in said
        process.send_signal(signal.SIGTERM)
        await process.communicate()
        assert process.returncode == 0


async def test_killed_at_any_moment_it_forgets_nothing(installation: Installation) -> None:
    """What was cosigned is never fallen behind, a request whose answer was lost is answered, and no fork gets in."""
    choose = random.Random(4)
    async with installation.process():
        keys = await installation.keys()
        await installation.enrol(GrowingLog())
    async with httpx2.AsyncClient(verify=installation.anybody(), trust_env=False) as client:
        log = Log(client, installation.public, keys)
        for _ in range(KILLS):
            async with installation.process() as process:
                assert await installation.keys() == keys
                for _ in range(choose.randrange(3)):
                    await log.grow()
                asking = asyncio.create_task(log.grow())
                await asyncio.sleep(choose.random() * 0.02)
                process.kill()
                with suppress(httpx2.TransportError):
                    await asking
        async with installation.process():
            await log.grow()
            fork = GrowingLog(salt=b"fork ")
            assert await log.submit(fork, log.cosigned, log.cosigned + 1) == Refused(422, fork=True)
            await log.grow()
    assert log.cosigned > KILLS // 2


async def test_a_port_that_is_none_is_refused(installation: Installation) -> None:
    process = await installation.start(FOLKMOOT_OPERATOR_PORT="70000")
    _, said = await process.communicate()
    assert process.returncode == 1
    assert b"FOLKMOOT_OPERATOR_PORT" in said
