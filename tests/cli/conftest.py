"""A conductor and a kubectl for the CLI's tests: a Starlette app behind real TLS, and a small program on a PATH of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import stat
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from folkmoot_core import certificates
from folkmoot_core.certificates import Moment

NAMESPACE = "folkmoot-acme"
TOKEN = "token-of-the-owner"


def moment() -> Moment:
    return Moment(datetime.now(UTC), x509.random_serial_number())


@dataclass
class Conductor:
    """Serves what the test puts in. `cuts` are the numbers after which a stream of events breaks off, once each."""

    events: list[dict[str, Any]] = field(default_factory=list)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    evidence: bytes = b"evidence of a tenant"
    cuts: list[int] = field(default_factory=list)
    unknown: int = 0
    """How many times a session is not known yet."""
    orders: list[dict[str, Any]] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    """Method, path and body of what was asked about erasure, holds and the log; `told` is answered."""
    told: dict[str, Any] = field(default_factory=dict)
    port: int = 0
    ca: str = ""
    log: dict[str, bytes] = field(default_factory=dict)
    """Files of the tenant's ledger, which the same port serves here."""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/sessions", self._sessions, methods=["GET", "POST"]),
                Route("/v1/sessions/{name}", self._session),
                Route("/v1/sessions/{name}/events", self._events),
                Route("/v1/evidence", self._evidence),
                Route("/v1/erasures", self._privacy, methods=["GET", "POST"]),
                Route("/v1/holds", self._privacy, methods=["GET", "POST"]),
                Route("/v1/holds/{id}", self._privacy, methods=["DELETE"]),
                Route("/v1/log", self._privacy, methods=["GET"]),
                Route("/v1/log/{act}", self._privacy, methods=["POST"]),
                Route("/{path:path}", self._file),
            ]
        )

    async def _file(self, request: Request) -> Response:
        data = self.log.get(request.path_params["path"])
        return self._refusal(request) or (Response(data) if data is not None else problem(404, "this log has none"))

    def _refusal(self, request: Request) -> Response | None:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return problem(401, "token refused: expected audience folkmoot-conductor")
        return None

    async def _sessions(self, request: Request) -> Response:
        if request.method == "POST":
            self.orders.append(await request.json())
            return self._refusal(request) or JSONResponse(next(iter(self.reports.values())))
        return self._refusal(request) or JSONResponse({"sessions": list(self.reports.values())})

    async def _session(self, request: Request) -> Response:
        found = self.reports.get(request.path_params["name"])
        return self._refusal(request) or (JSONResponse(found) if found else problem(404, "no such session"))

    async def _events(self, request: Request) -> Response:
        if self.unknown:
            self.unknown -= 1
            return problem(404, "no such session")
        after = int(request.headers.get("last-event-id", "0"))
        self.resumed.append(str(after))
        return self._refusal(request) or StreamingResponse(self._stream(after), media_type="text/event-stream")

    async def _stream(self, after: int) -> AsyncIterator[str]:
        yield ": hello\n\n"
        for event in self.events:
            if event["n"] > after:
                yield f"id: {event['n']}\ndata: {json.dumps(event)}\n\n"
                if event["n"] in self.cuts:
                    self.cuts.remove(event["n"])
                    return

    async def _privacy(self, request: Request) -> Response:
        self.asked.append((request.method, request.url.path, json.loads(await request.body() or b"{}")))
        return self._refusal(request) or JSONResponse(self.told)

    async def _evidence(self, request: Request) -> Response:
        return self._refusal(request) or Response(self.evidence, media_type="application/x-tar")


def problem(status: int, detail: str) -> Response:
    return JSONResponse({"type": "X", "detail": detail, "status": status}, status_code=status)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
def conductor(tmp_path: Path) -> Iterator[Conductor]:
    """Listens on the loopback with a certificate that names the Service, not the loopback."""
    authority = certificates.make_authority(ec.generate_private_key(ec.SECP256R1()), "test", moment())
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = certificates.sign_serving(authority, key.public_key(), [f"core.{NAMESPACE}.svc", "localhost"], moment())
    (tmp_path / "leaf.pem").write_text(certificates.pem(leaf))
    (tmp_path / "leaf.key").write_bytes(certificates.key_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "leaf.pem", tmp_path / "leaf.key")
    made = Conductor(ca=authority.pem())
    listener = socket.create_server(("127.0.0.1", 0))
    made.port = listener.getsockname()[1]
    config = uvicorn.Config(made.app(), log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    config.load()
    config.ssl = context
    server = _Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    yield made
    server.should_exit = True
    thread.join(10)
    listener.close()


@dataclass
class FakeKubectl:
    """A kubectl whose cluster is a directory: `objects/<kind>.<name>.json`, `refuse/<account>`; calls are recorded."""

    directory: Path

    def put(self, kind: str, name: str, manifest: dict[str, Any]) -> None:
        (self.directory / "objects" / f"{kind}.{name}.json").write_text(json.dumps(manifest))

    def refuse_token(self, account: str) -> None:
        (self.directory / "refuse" / account).touch()

    def calls(self) -> list[list[str]]:
        log = self.directory / "calls"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def applied(self) -> list[dict[str, Any]]:
        log = self.directory / "applied"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def kubectl(tmp_path: Path, conductor: Conductor, monkeypatch: pytest.MonkeyPatch) -> FakeKubectl:
    """On a PATH of its own; its port-forward leads to the conductor's port."""
    place = tmp_path / "kubectl"
    for name in ("objects", "refuse", "bin"):
        (place / name).mkdir(parents=True)
    program = place / "bin" / "kubectl"
    source = (Path(__file__).parent / "fake_kubectl.py").read_text()
    program.write_text(f"#!{sys.executable}\nDIRECTORY = {str(place)!r}\nPORT = {conductor.port}\nTOKEN = {TOKEN!r}\n{source}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(place / "bin"))
    fake = FakeKubectl(place)
    fake.put("configmap", "folkmoot-trust", {"data": {"ca.crt": conductor.ca}})
    return fake
