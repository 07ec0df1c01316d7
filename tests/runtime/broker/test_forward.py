"""The log's way out: real HTTPS servers beyond the broker's door, who may use it, what is bounded, what is said when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx2
import jwt
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from folkmoot_core import certificates, names
from folkmoot_core.certificates import Authority, Moment
from folkmoot_core.document import AuditEntry, TenantDocument, TimestampAuthorityEntry, WitnessEntry
from folkmoot_core.ledger import witness
from folkmoot_runtime import web
from folkmoot_runtime.broker import forward
from folkmoot_runtime.broker.forward import Forwarder
from folkmoot_runtime.trust import Trust

NAMESPACE, ISSUER = "folkmoot-acme", "https://kubernetes.test"
Handler = Callable[[Request], Awaitable[Response]]
Serve = Callable[..., Awaitable[str]]


def moment() -> Moment:
    return Moment(datetime.datetime.now(datetime.UTC), x509.random_serial_number())


def authority(name: str) -> Authority:
    return certificates.make_authority(ec.generate_private_key(ec.SECP256R1()), name, moment())


def context(issuer: Authority, directory: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = certificates.sign_serving(issuer, key.public_key(), ["127.0.0.1"], moment())
    (directory / "server.pem").write_bytes(certificates.key_pem(key) + certificates.pem(leaf).encode())
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(directory / "server.pem")
    return made


class World:
    """A broker's door in this process; `document` is what it goes by."""

    def __init__(self, root: Path, document: TenantDocument) -> None:
        self.document: TenantDocument | None = document
        self.ca = authority("installation")
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.trust = root / "trust"
        self.trust.mkdir()
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        (self.trust / "jwks.json").write_text(json.dumps({"keys": [{**public, "kid": "k", "alg": "ES256"}]}))
        (self.trust / "issuer").write_text(ISSUER)
        (self.trust / "ca.crt").write_text(self.ca.pem())
        self.forwarder = Forwarder(lambda: self.document, Trust(self.trust, NAMESPACE), deadline=30)

    def name(self, url: str, name: str = "cluster") -> None:
        """Have the document name a witness and an authority there."""
        assert self.document is not None
        audit = AuditEntry(
            witnesses=(WitnessEntry(name=name, key="k", url=url),),
            authorities=(TimestampAuthorityEntry(name=name, url=f"{url}/tsa", certificates="c"),),
        )
        self.document = self.document.model_copy(update={"audit": audit})

    def token(self, account: str = names.SA_CORE, audience: str = names.AUDIENCE_BROKER, namespace: str = NAMESPACE) -> str:
        claims = {"iss": ISSUER, "aud": audience, "sub": f"system:serviceaccount:{namespace}:{account}", "exp": time.time() + 600}
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": "k"})

    async def ask(self, path: str, body: bytes = b"old 0\n", token: str | None = None) -> httpx2.Response:
        door = httpx2.ASGITransport(app=web.app(self.forwarder.routes(), ready=lambda: True))
        headers = {"Authorization": f"Bearer {self.token() if token is None else token}"}
        async with httpx2.AsyncClient(transport=door, base_url="https://broker") as client:
            return await client.post(path, content=body, headers=headers)


WITNESS, TIMESTAMP = "/v1/witnesses/cluster/add-checkpoint", "/v1/timestamps/cluster"


@pytest.fixture
async def world(tmp_path: Path, document: Callable[..., TenantDocument]) -> AsyncIterator[World]:
    made = World(tmp_path, document())
    yield made
    await made.forwarder.aclose()


class Quiet(uvicorn.Server):
    """A server that leaves signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts a server on the loopback, with TLS by `issuer` or without; gives its URL."""
    running: list[tuple[Quiet, asyncio.Task[None]]] = []

    async def start(issuer: Authority | None, handler: Handler) -> str:
        async def endpoint(request: Request) -> Response:
            return await handler(request)

        app = Starlette(routes=[Route("/{path:path}", endpoint, methods=["GET", "POST"])])
        config = uvicorn.Config(app, log_config=None, lifespan="off")
        config.load()
        if issuer is not None:
            config.ssl = context(issuer, tmp_path)
        listener = socket.create_server(("127.0.0.1", 0))  # listens already: nobody need wait for the server
        server = Quiet(config)
        running.append((server, asyncio.create_task(server.serve(sockets=[listener]))))
        return f"{'https' if issuer else 'http'}://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for server, task in running:
        server.should_exit = server.force_exit = True
        await task


class Recording:
    """A server's handler: keeps what came, answers what it is told to."""

    def __init__(self, answer: Callable[[], Response]) -> None:
        self.answer = answer
        self.requests: list[tuple[str, bytes, dict[str, str]]] = []

    async def __call__(self, request: Request) -> Response:
        self.requests.append((request.url.path, await request.body(), dict(request.headers)))
        return self.answer()


async def test_a_request_passes_out_and_its_answer_back_as_they_are(world: World, serve: Serve) -> None:
    seen = Recording(lambda: Response(b"7\n", 409, {"Content-Type": "text/x.tlog.size", "Set-Cookie": "a=b"}))
    world.name(await serve(world.ca, seen))
    for _ in range(2):
        answer = await world.ask(WITNESS, b"old 3\n\nnote")
        assert (answer.status_code, answer.headers["Content-Type"], answer.content) == (409, "text/x.tlog.size", b"7\n")
        assert "Set-Cookie" not in answer.headers
    path, body, headers = seen.requests[1]
    assert (path, body, headers["content-type"]) == ("/add-checkpoint", b"old 3\n\nnote", "text/plain; charset=utf-8")
    assert not headers.keys() & {"authorization", "cookie"}


async def test_a_timestamp_query_goes_where_the_document_says(world: World, serve: Serve) -> None:
    seen = Recording(lambda: Response(b"\x30\x00", 200, {"Content-Type": "application/timestamp-reply"}))
    world.name(await serve(world.ca, seen))
    answer = await world.ask(TIMESTAMP, b"\x30\x01")
    assert (answer.status_code, answer.headers["Content-Type"], answer.content) == (
        200,
        "application/timestamp-reply",
        b"\x30\x00",
    )
    path, body, headers = seen.requests[0]
    assert (path, body, headers["content-type"]) == ("/tsa", b"\x30\x01", "application/timestamp-query")


async def test_a_plain_http_server_is_asked_where_the_document_says_so(world: World, serve: Serve) -> None:
    world.name(f"{await serve(None, Recording(lambda: PlainTextResponse('fine')))}/prefix/", "partner")
    assert (await world.ask("/v1/witnesses/partner/add-checkpoint")).text == "fine"


async def test_only_the_core_may_ask(world: World, serve: Serve) -> None:
    seen = Recording(lambda: PlainTextResponse("fine"))
    world.name(await serve(world.ca, seen))
    cases = [
        (world.token("agent-ana"), 403), (world.token("broker"), 403), (world.token(audience=names.AUDIENCE_LEDGER), 401),
        (world.token(namespace="folkmoot-globex"), 401), ("", 401),
    ]  # fmt: skip
    for path in (WITNESS, TIMESTAMP):
        for token, status in cases:
            assert (await world.ask(path, token=token)).status_code == status
    assert seen.requests == []


async def test_who_is_not_in_the_document_is_not_asked(world: World) -> None:
    world.name("https://127.0.0.1:1", "cluster")
    for path in ("/v1/witnesses/partner/add-checkpoint", "/v1/timestamps/partner"):
        answer = await world.ask(path)
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
        assert "'partner'; it names cluster" in answer.json()["detail"]
    world.document = None
    assert ((await world.ask(WITNESS)).status_code, (await world.ask(TIMESTAMP)).json()["type"]) == (503, "NoDocument")


async def test_requests_are_bounded(world: World, serve: Serve) -> None:
    seen = Recording(lambda: PlainTextResponse("fine"))
    world.name(await serve(world.ca, seen))
    for path, bound in ((WITNESS, witness.MAX_REQUEST), (TIMESTAMP, forward.MAX_TIMESTAMP)):
        assert (await world.ask(path, b"x" * bound)).status_code == 200
        assert (await world.ask(path, b"x" * (bound + 1))).json()["type"] == "BodyTooLarge"
    assert len(seen.requests) == 2


async def test_answers_are_bounded(world: World, serve: Serve) -> None:
    async def long() -> AsyncIterator[bytes]:  # without a Content-Length
        for _ in range(65):
            yield b"x" * 1024

    world.name(await serve(world.ca, Recording(lambda: StreamingResponse(long()))))
    for path in (WITNESS, TIMESTAMP):
        answer = await world.ask(path)
        assert (answer.status_code, answer.headers["Content-Type"]) == (502, "application/problem+json")
        assert "larger than 65536 bytes" in answer.json()["detail"]


async def test_a_redirect_is_an_answer_and_leads_nowhere(world: World, serve: Serve) -> None:
    elsewhere = Recording(lambda: PlainTextResponse("fine"))
    there = await serve(None, elsewhere)
    world.name(await serve(world.ca, Recording(lambda: RedirectResponse(f"{there}/add-checkpoint", 307))))
    answer = await world.ask(WITNESS)
    assert (answer.status_code, "Location" in answer.headers) == (307, False)
    assert elsewhere.requests == []


@pytest.mark.parametrize("status", [204, 304, 777])
async def test_an_odd_status_does_no_harm(world: World, serve: Serve, status: int) -> None:
    world.name(await serve(world.ca, Recording(lambda: Response(status_code=status))))
    assert (await world.ask(WITNESS)).status_code == (502 if status == 777 else status)


@pytest.mark.parametrize("kind", ["text/€", "text/\xff", "application/timestamp-reply\tx"])
async def test_an_odd_content_type_does_no_harm(world: World, serve: Serve, kind: str) -> None:
    async def odd(scope: object, receive: object, send: Callable[..., Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode())]})
        await send({"type": "http.response.body", "body": b"fine"})

    world.name(await serve(world.ca, Recording(lambda: odd)))
    answer = await world.ask(TIMESTAMP)
    assert (answer.status_code, answer.text) == (200, "fine")


async def test_a_silent_server_is_given_up_with_its_name(world: World, serve: Serve) -> None:
    async def silent(_: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    url = await serve(world.ca, silent)
    world.name(url)
    world.forwarder = Forwarder(lambda: world.document, Trust(world.trust, NAMESPACE), deadline=0.3)
    answer = await world.ask(WITNESS)
    assert (answer.status_code, answer.headers["Content-Type"]) == (504, "application/problem+json")
    assert answer.json()["detail"] == f"witness cluster at {url.removeprefix('https://')} did not answer within 0.3 s"
    await world.forwarder.aclose()


async def test_the_installations_witness_is_known_by_its_ca_alone_and_nobody_else_is(world: World, serve: Serve) -> None:
    seen = Recording(lambda: PlainTextResponse("fine"))
    stranger = await serve(authority("stranger"), seen)
    world.name(stranger)
    answer = await world.ask(WITNESS)
    assert answer.status_code == 502
    assert answer.json()["detail"].startswith(f"witness cluster at {stranger.removeprefix('https://')} is not reached: ")
    ours = await serve(world.ca, seen)
    world.name(ours, "partner")
    assert (await world.ask("/v1/witnesses/partner/add-checkpoint")).status_code == 502
    assert (await world.ask("/v1/timestamps/partner")).status_code == 502
    assert seen.requests == []
    world.name(ours)
    assert (await world.ask(WITNESS)).status_code == 200


async def test_a_changed_ca_holds_from_then_on(world: World, serve: Serve) -> None:
    other = authority("renewed")
    first, second = [await serve(ca, Recording(lambda: PlainTextResponse("fine"))) for ca in (world.ca, other)]
    world.name(first)
    assert (await world.ask(WITNESS)).status_code == 200
    (world.trust / "ca.crt").write_text(other.pem())
    assert (await world.ask(WITNESS)).status_code == 502
    world.name(second)
    assert (await world.ask(WITNESS)).status_code == 200


@pytest.mark.parametrize(
    "url", ["ftp://a.example", "https://good@evil.example", "nonsense", "https://[::1", "https://a.example:x"]
)
async def test_a_url_that_is_none_is_said_to_be_none(world: World, url: str) -> None:
    world.name(url)
    answer = await world.ask(WITNESS)
    assert (answer.status_code, answer.headers["Content-Type"]) == (502, "application/problem+json")
    assert answer.json()["detail"].startswith("witness cluster")


async def test_nobody_there(world: World) -> None:
    world.name("https://127.0.0.1:1")
    answer = await world.ask(TIMESTAMP)
    assert answer.status_code == 502
    assert answer.json()["detail"].startswith("timestamp authority cluster at 127.0.0.1:1 is not reached: ")
