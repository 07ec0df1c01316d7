"""Two worlds under the bus's contract: Valkey with the router's parts driven step by step, and the in-memory twin."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from folkmoot_core import names
from folkmoot_core.credentials import CredentialAnswer
from folkmoot_core.document import AgentEntry, Identity, TenantDocument
from folkmoot_core.errors import Unavailable
from folkmoot_core.identity import GrantsV1
from folkmoot_core.messages import Envelope, Task, TaskResult
from folkmoot_core.resources import AgentSpec
from folkmoot_core.signing import SigningKey
from folkmoot_runtime.bus.__main__ import prepare, reach
from folkmoot_runtime.bus.accounts import Accounts
from folkmoot_runtime.bus.connection import RedisError, connect
from folkmoot_runtime.bus.directory import DocumentDirectory
from folkmoot_runtime.bus.interface import Bus
from folkmoot_runtime.bus.memory import MemoryHub
from folkmoot_runtime.bus.recorder import Recorder
from folkmoot_runtime.bus.resp import Login
from folkmoot_runtime.bus.router import Router
from folkmoot_runtime.bus.server import Paths, configuration, find_binary
from folkmoot_runtime.bus.upkeep import Upkeep
from folkmoot_runtime.bus.valkey import Seat, ValkeyBus
from folkmoot_runtime.ledger.client import InMemoryLedger

TENANT = "acme"
AGENTS = ("athena", "hermes")


def document(*agents: str) -> TenantDocument:
    """A tenant document with these agents."""

    def identity(name: str) -> Identity:
        return Identity(
            name=name, scope=f"f/o/{TENANT}/{name}", cause="I test.", seed="1" * 64, commitment="2" * 64, grants=GrantsV1()
        )

    spec = AgentSpec.model_validate({"cause": "I test.", "model": {"provider": "p", "name": "m"}})
    entries = tuple(AgentEntry(name=name, spec=spec, identity=identity(name)) for name in agents)
    return TenantDocument(
        tenant=TENANT, tenant_uid="u", namespace="folkmoot-acme", generation=1, identity=identity(TENANT), agents=entries
    )


def envelope(sender: str, to: str, kind: Any, request_id: str, **fields: Any) -> Envelope:
    """A message that passes every check."""
    task = fields.pop("task", "s1/work")
    bodies = {
        "task": Task(task=task, session="s1", kind="work", prompt="Do it.", deadline_ms=2**40).model_dump_json(),
        "result": TaskResult(task=task, session="s1", status="done", output="ok").model_dump_json(),
    }
    fields.setdefault("body", bodies.get(kind, "{}"))
    fields.setdefault("created_ms", 1_700_000_000_000)
    return Envelope(request_id=request_id, tenant=TENANT, sender=sender, to=to, kind=kind, conversation="s1", **fields)


def new_key() -> SigningKey:
    """A fresh key pair."""
    return SigningKey(Ed25519PrivateKey.generate())


class Server:
    """One Valkey on a Unix socket, which can be killed and started again on the same data."""

    def __init__(self, directory: Path) -> None:
        self.paths = Paths(run=directory / "run", data=directory / "data")
        self.url = f"unix://{self.paths.socket}"
        self.login = prepare(self.paths)
        self.paths.data.mkdir(parents=True)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        file = self.paths.run / "valkey.conf"
        file.write_text(configuration(self.url, self.paths, "127.0.0.1"))
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(find_binary(tls=False), str(file), stdout=quiet, stderr=quiet)
        probe = connect(self.url, self.login)
        await reach(probe)
        await probe.aclose()

    async def kill(self) -> None:
        """SIGKILL, as the kernel would."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None


class Granting:
    """The router's door without HTTP."""

    def __init__(self, accounts: Accounts, participant: str, pod: str) -> None:
        self.accounts = accounts
        self.granted = 0
        self._who = (participant, pod)

    async def fetch(self, key: SigningKey) -> CredentialAnswer:
        self.granted += 1
        try:
            return await self.accounts.grant(*self._who, key.public)
        except (RedisError, OSError) as error:
            raise Unavailable("the bus does not answer the router") from error


class World(Protocol):
    """What a contract test drives."""

    async def join(self, participant: str, pod: str = "0", key: SigningKey | None = None) -> Bus: ...
    async def post(self, owner: str, message: Envelope) -> None:
        """Put a message into an outbox as it stands, past the client that would sign it."""

    async def settle(self) -> None:
        """Let the router do all it can."""

    async def miss_acks(self) -> None:
        """Every ACK that is waited for is overdue now; let the router see it."""

    async def recorded(self, type: str) -> list[dict[str, Any]]:
        """Data of the entries of this type."""


class ValkeyWorld:
    """The real thing: `restart_router` makes new parts on the same data, as after a kill."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.ledger = InMemoryLedger()
        self.directory = DocumentDirectory(document(*AGENTS))
        self.granting: dict[tuple[str, str], Granting] = {}
        self._open: list[Any] = []

    async def restart_router(self) -> None:
        self.redis = connect(self.server.url, self.server.login)
        self._open.append(self.redis)
        self.accounts = Accounts(self.redis, TENANT)
        self.router = Router(self.redis, TENANT, self.directory, self.accounts)
        self.upkeep = Upkeep(self.redis, TENANT, self.directory, self.accounts, self.router)
        self.recorder = Recorder(self.redis, TENANT, self.directory, self.ledger)
        await self.accounts.load()
        for each in self.granting.values():
            each.accounts = self.accounts

    async def join(self, participant: str, pod: str = "0", key: SigningKey | None = None) -> Bus:
        granting = self.granting.setdefault((participant, pod), Granting(self.accounts, participant, pod))
        bus = ValkeyBus(self.server.url, Seat(TENANT, participant, pod), key or new_key(), granting)
        await bus.alive()  # registers the key, as a process does when it starts
        self._open.append(bus)
        return bus

    async def post(self, owner: str, message: Envelope) -> None:
        await self.redis.xadd(names.outbox_key(TENANT, owner), dict(message.to_fields()))

    async def settle(self) -> None:
        quiet = 0
        while quiet < 2:  # the first quiet step may have looked at what was pending only
            quiet = 0 if await self.router.step(1) else quiet + 1

    async def miss_acks(self) -> None:
        due = names.ack_due_key(TENANT)
        for name in await self.redis.zrange(due, 0, -1):
            await self.redis.zadd(due, {name: 0})
        await self.upkeep.once()

    async def recorded(self, type: str) -> list[dict[str, Any]]:
        await self.recorder.once()
        return [entry.data for entry in self.ledger.entries if entry.type == type]

    async def login_of(self, participant: str, pod: str = "hostile") -> Login:
        answer = await self.accounts.grant(participant, pod, new_key().public)
        return Login(answer.username, answer.password)

    async def aclose(self) -> None:
        for each in self._open:
            await each.aclose()
        await self.server.kill()


class MemoryWorld:
    """The twin."""

    def __init__(self) -> None:
        self.now = time.time()
        self.hub = MemoryHub(TENANT, AGENTS, clock=lambda: self.now)

    async def join(self, participant: str, pod: str = "0", key: SigningKey | None = None) -> Bus:
        return self.hub.join(participant, pod, key)

    async def post(self, owner: str, message: Envelope) -> None:
        self.hub.post(owner, message.to_fields())

    async def settle(self) -> None: ...

    async def miss_acks(self) -> None:
        self.now += 24 * 3600
        self.hub.scan()

    async def recorded(self, type: str) -> list[dict[str, Any]]:
        if type == "bus.refused":
            return [{"reason": each.reason} for each in self.hub.refused]
        messages = self.hub.resent if type == "bus.resent" else self.hub.dead
        return [{"request_id": each.request_id, "attempt": each.attempt} for each in messages]


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory whose sockets have short enough paths."""
    directory = Path(tempfile.mkdtemp(prefix="fm"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def valkey(short_directory: Path) -> AsyncIterator[ValkeyWorld]:
    """A Valkey with the router's parts."""
    world = ValkeyWorld(Server(short_directory))
    await world.server.start()
    await world.restart_router()
    yield world
    await world.aclose()


@pytest.fixture(params=["valkey", "memory"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Both, one after the other."""
    if request.param == "memory":
        yield MemoryWorld()
    else:
        directory = Path(tempfile.mkdtemp(prefix="fm"))
        real = ValkeyWorld(Server(directory))
        await real.server.start()
        await real.restart_router()
        yield real
        await real.aclose()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def message() -> Any:
    """Makes messages that pass every check."""
    return envelope


@pytest.fixture
def make_key() -> Any:
    """Makes key pairs."""
    return new_key


@pytest.fixture
def make_document() -> Any:
    """Makes tenant documents with the named agents."""
    return document


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_hostile() -> AsyncIterator[Any]:
    """A connection of `athena` to a Valkey that the module's refusals share."""
    directory = Path(tempfile.mkdtemp(prefix="fm"))
    world = ValkeyWorld(Server(directory))
    await world.server.start()
    await world.restart_router()
    hostile = connect(world.server.url, await world.login_of("athena"))
    await world.accounts.ensure_streams("hermes")
    yield hostile
    await hostile.aclose()
    await world.aclose()
    shutil.rmtree(directory, ignore_errors=True)
