"""One suite for what the operator asks of the witness: the client over TLS to the real door, and the fake that tests use."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp import web as aioweb
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec
from witnessing import GrowingLog

from folkmoot_core import certificates
from folkmoot_core.errors import Conflict, FolkmootError, Invalid, LimitReached, Unavailable
from folkmoot_core.ledger import note, rotation
from folkmoot_core.ledger.cosignature import Ed25519Cosigner, MlDsaSigner
from folkmoot_core.ledger.note import COSIGNATURE, Ed25519Signer
from folkmoot_operator import ca
from folkmoot_operator.app import _utc
from folkmoot_operator.fake_witness import FakeWitness
from folkmoot_operator.tls import load_pair
from folkmoot_operator.witness_client import MAX_ANSWER, HttpWitness, Registration, Witness
from folkmoot_runtime import web
from folkmoot_runtime.witness.door import Witness as Door
from folkmoot_runtime.witness.interface import MAX_LOGS_PER_TENANT, MemoryStore
from folkmoot_runtime.witness.volume import Identity

pytestmark = pytest.mark.contract
UID = "3f0e8a5e-0000-4000-8000-000000000000"
ORIGIN = "folkmoot/one"
OLD, NEW = (Ed25519Signer.from_seed(ORIGIN, seed * 32) for seed in (b"o", b"n"))
LOG = Registration(origin=ORIGIN, vkeys=(OLD.verifier().vkey(),))


@dataclass
class Rig:
    """The operator's CA, and sessions that are closed at the end."""

    authority: certificates.Authority
    contexts: ca.Contexts
    sessions: list[aiohttp.ClientSession]

    def client(self, port: int, context: ssl.SSLContext | None = None) -> HttpWitness:
        connector = aiohttp.TCPConnector(ssl=context or self.contexts.client)
        self.sessions.append(aiohttp.ClientSession(connector=connector))
        return HttpWitness(self.sessions[-1], f"https://127.0.0.1:{port}")

    def serving(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_pair(context, *self.contexts.signer.serving_pair(["127.0.0.1"]))
        context.load_verify_locations(cadata=self.authority.pem())
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    authority = certificates.make_authority(ec.generate_private_key(ec.SECP256R1()), "CA", certificates.Moment(_utc(), 5))
    made = Rig(authority, ca.Contexts(ca.Signer(authority, _utc), ["x"]), [])
    yield made
    for session in made.sessions:
        await session.close()


@dataclass
class Served:
    door: Door
    port: int


@pytest.fixture
async def served(rig: Rig, unused_tcp_port: int) -> AsyncIterator[Served]:
    identity = Identity(Ed25519Cosigner.from_seed("w", b"w" * 32), MlDsaSigner.from_seed("w", b"v" * 32))
    door = Door(MemoryStore(), identity, lambda: 1_800_000_000.0)
    serving = asyncio.create_task(
        web.serve(door.operator(), host="127.0.0.1", port=unused_tcp_port, context=rig.serving(), http="httptools")
    )
    client = rig.client(unused_tcp_port)
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(Unavailable):
                await client.key()
                break
            await asyncio.sleep(0.01)
    yield Served(door, unused_tcp_port)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


@pytest.fixture(params=["http", "fake"])
async def witness(request: pytest.FixtureRequest, rig: Rig, served: Served) -> Witness:
    return rig.client(served.port) if request.param == "http" else FakeWitness()


async def test_its_key_is_a_cosigners(witness: Witness) -> None:
    assert note.parse_vkey(await witness.key()).algorithm == COSIGNATURE


async def test_a_log_is_known_once_it_is_registered_and_to_its_tenant_alone(witness: Witness) -> None:
    assert await witness.logs(UID) == ()
    await witness.register(UID, LOG)
    await witness.register(UID, LOG)
    (seen,) = await witness.logs(UID)
    assert (seen.origin, seen.size, seen.fork) == (ORIGIN, 0, "")
    assert await witness.logs("another-tenant") == ()


async def test_other_keys_need_the_note_of_their_exchange(witness: Witness) -> None:
    await witness.register(UID, LOG)
    exchanged = Registration(origin=ORIGIN, vkeys=(NEW.verifier().vkey(),))
    with pytest.raises(Conflict):
        await witness.register(UID, exchanged)
    signed = rotation.make(OLD, NEW, [NEW.verifier()]).decode()
    await witness.register(UID, exchanged.model_copy(update={"rotation": signed}))


async def test_keys_that_are_not_the_logs_are_refused(witness: Witness) -> None:
    with pytest.raises(Invalid):
        await witness.register(UID, Registration(origin="folkmoot/two", vkeys=LOG.vkeys))


# -- the client alone ---------------------------------------------------------------------------------------------------


async def test_a_fork_is_told(rig: Rig, served: Served) -> None:
    client = rig.client(served.port)
    log, other = GrowingLog(), GrowingLog(salt=b"other")
    await client.register(UID, Registration(origin=log.origin, vkeys=tuple(key.vkey() for key in log.keys)))
    await served.door.add(log.request(0, 5))
    (seen,) = await client.logs(UID)
    assert (seen.size, seen.fork) == (5, "")
    await served.door.add(other.request(5, 5))
    (seen,) = await client.logs(UID)
    assert seen.fork.startswith(log.origin)


async def test_a_tenant_that_brings_too_many_logs_is_told_so(rig: Rig, served: Served) -> None:
    client = rig.client(served.port)
    for number in range(MAX_LOGS_PER_TENANT):
        vkey = Ed25519Signer.from_seed(f"folkmoot/{number}", b"x" * 32).verifier().vkey()
        await client.register(UID, Registration(origin=f"folkmoot/{number}", vkeys=(vkey,)))
    with pytest.raises(LimitReached):
        await client.register(UID, LOG)


async def test_without_the_operators_certificate_nothing_is_said(rig: Rig, served: Served) -> None:
    anybody = ssl.create_default_context(cadata=rig.authority.pem())
    with pytest.raises(Unavailable):
        await rig.client(served.port, anybody).key()


@pytest.mark.parametrize("text", ["", "[]", '{"vkeys": 1}', '{"vkeys": []}', '{"vkeys": ["w+1+x"]}', "x" * (MAX_ANSWER + 1)])
async def test_rubbish_is_refused(rig: Rig, text: str) -> None:
    async def handle(_: aioweb.Request) -> aioweb.Response:
        return aioweb.Response(text=text)

    app = aioweb.Application()
    app.router.add_get("/{path:.*}", handle)
    server = TestServer(app, scheme="https", host="127.0.0.1")
    await server.start_server(ssl=rig.serving())
    assert server.port is not None
    with pytest.raises(FolkmootError):
        await rig.client(server.port).key()
    await server.close()
