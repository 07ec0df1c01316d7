"""The real process under a required witness, over a volume that was restored from an older snapshot. ledger.md §7 no. 3.

Conductor and broker are one server of this test, which hands out the terms and passes checkpoints on to a real witness's doors.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ledger_process import Connection, Process
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from witness_bench import Bench, terms

from folkmoot_cli.dev.issuer import Issuer
from folkmoot_cli.dev.stand_in import StandIn
from folkmoot_core import names
from folkmoot_core.entries import Actor, new_entry
from folkmoot_runtime import web


@dataclass
class Around:
    """A ledger process and what it asks."""

    process: Process
    bench: Bench
    url: str
    issuer: Issuer

    async def start(self) -> Connection:
        """Start it; a connection to its socket, for when it is open."""
        directory = self.process.directory
        await self.process.start(
            FOLKMOOT_WITNESS="required", FOLKMOOT_BROKER_URL=self.url, FOLKMOOT_CONDUCTOR_URL=self.url,
            FOLKMOOT_TOKENS=str(directory / "tokens"), FOLKMOOT_TRUST=str(directory / "trust"),
        )  # fmt: skip
        await self.process.wait_open()
        return Connection(self.process.conductor)

    async def stop(self, connection: Connection) -> None:
        connection.close()
        code, said = await self.process.end(signal.SIGTERM)
        assert code == 0, said


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Around]:
    bench = Bench(time.time)
    document = {"tenant": "acme", "audit": terms(bench.add()).model_dump(mode="json")}

    async def pass_on(request: Request) -> Response:
        answer = await bench.add_checkpoint(request.path_params["witness"], await request.body())
        return Response(answer.body, status_code=answer.status, headers={"Content-Type": answer.content_type})

    async def hand_out(_: Request) -> Response:
        return JSONResponse(document)

    routes = [
        Route("/v1/witnesses/{witness}/add-checkpoint", pass_on, methods=["POST"]),
        Route("/v1/document", hand_out),
    ]
    issuer = Issuer()
    StandIn(issuer).write_trust(tmp_path / "trust")
    (tmp_path / "tokens").mkdir()
    for audience in (names.AUDIENCE_BROKER, names.AUDIENCE_CONDUCTOR):
        (tmp_path / "tokens" / audience).write_text("a token")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = int(bound.getsockname()[1])
    server = asyncio.create_task(web.serve(Starlette(routes=routes), host="127.0.0.1", port=port))
    made = Around(Process(tmp_path), bench, f"http://127.0.0.1:{port}", issuer)
    yield made
    if made.process.running is not None:
        await made.process.end(signal.SIGKILL)
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)


def fact(name: str) -> dict[str, Any]:
    entry = new_entry("session.start", Actor(kind="service", id="conductor"), id=f"request-{name}", data={}, now=1.0)
    return entry.model_dump(mode="json")


async def covered(connection: Connection, name: str) -> int:
    """Append one and wait until a cosigned checkpoint covers it; its index."""
    while True:
        status, answer = await connection.ask("POST", "/v1/entries?wait=checkpoint", json.dumps(fact(name)).encode())
        if status == 200:
            return int(json.loads(answer)["index"])
        assert status == 503, answer
        await asyncio.sleep(0.05)


async def standing(connection: Connection) -> dict[str, Any]:
    """What it reports of itself."""
    status, answer = await connection.ask("GET", "/v1/status")
    assert status == 200, answer
    found: dict[str, Any] = json.loads(answer)
    return found


@pytest.mark.timeout(120)
async def test_a_restored_older_snapshot_takes_nothing_and_says_why(around: Around) -> None:
    connection = await around.start()
    report = await standing(connection)
    await around.bench.register(report["origin"], report["vkeys"])
    assert await covered(connection, "one") == 1
    await around.stop(connection)
    snapshot = around.process.directory / "snapshot"
    shutil.copytree(around.process.log, snapshot)

    connection = await around.start()
    assert await covered(connection, "two") == 2
    await around.stop(connection)

    shutil.rmtree(around.process.log)
    shutil.copytree(snapshot, around.process.log)
    connection = await around.start()  # it serves, so that the evidence can be read
    while (report := await standing(connection))["state"] != "Frozen":
        assert await connection.append([fact("three")]) is None  # not before the witness has spoken
        await asyncio.sleep(0.05)
    assert report["reason"] == "ForkDetected"
    assert "Restore the volume" in report["message"]
    status, answer = await connection.ask("POST", "/v1/entries", json.dumps(fact("three")).encode())
    assert (status, json.loads(answer)["type"]) == (503, "LogFrozen")
    status, signed = await connection.ask("GET", "/checkpoint")
    assert (status, signed.split(b"\n")[1]) == (200, b"2")
    assert (await connection.ask("GET", "/tile/entries/000.p/2"))[0] == 200
    await around.stop(connection)

    around.bench.away.add("cluster")
    connection = await around.start()  # with no witness to ask
    assert (await standing(connection))["state"] == "Frozen"
    await around.stop(connection)
