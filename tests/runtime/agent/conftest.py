"""A whole world around one agent, in memory: conductor, broker, sandbox behind one transport, ledger, bus.

Every operation passes `World.point` before and after its effect, where the process can be killed: from then on nothing it does
has any effect, as after SIGKILL. What the world keeps (artefacts, journal, stored answers, streams) outlives the process.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest

from folkmoot_core.calls import CallAnswer, CallEnvelope, ModelResult, Part, TextPart, ToolCallPart, Usage, call_key
from folkmoot_core.canonical import digest
from folkmoot_core.document import AgentEntry, Identity, TenantDocument
from folkmoot_core.entries import EntryRequest, Receipt
from folkmoot_core.identity import GrantsV1
from folkmoot_core.messages import Envelope, Task, TaskResult, WorkspaceFile, WorkspaceManifest
from folkmoot_core.resources import AgentSpec
from folkmoot_core.workspace import Lease, ToolAnswer, ToolCall
from folkmoot_runtime.agent.mailbox import Mailbox
from folkmoot_runtime.agent.peers import Broker, Conductor, Peer, Sandbox
from folkmoot_runtime.agent.record import Recorder, Standing
from folkmoot_runtime.agent.worker import Doors, Worker
from folkmoot_runtime.bus.interface import Delivery
from folkmoot_runtime.bus.memory import MemoryHub
from folkmoot_runtime.ledger.client import InMemoryLedger

FAR = int(time.time() * 1000) + 3_600_000


class Killed(BaseException):
    """SIGKILL."""


def says(text: str, stop: Any = "end", tokens: int = 10) -> ModelResult:
    """A model's answer in words."""
    return ModelResult(
        parts=(TextPart(text=text),), stop=stop, usage=Usage(input_tokens=tokens, output_tokens=tokens), model_observed="claude-x"
    )


def wants(*calls: tuple[str, dict[str, Any]]) -> ModelResult:
    """A model's answer that asks for tools."""
    parts: tuple[Part, ...] = tuple(
        ToolCallPart(id=f"c{number}", name=name, arguments=arguments) for number, (name, arguments) in enumerate(calls)
    )
    return ModelResult(parts=parts, stop="tool_use", usage=Usage(input_tokens=10, output_tokens=10), model_observed="claude-x")


def entry(**tools: str) -> AgentEntry:
    """The agent; all tools allowed unless said otherwise."""
    builtin = {name: "Allow" for name in ("bash", "read", "write", "edit", "glob", "grep")} if not tools else tools
    spec = AgentSpec.model_validate(
        {"cause": "I test.", "model": {"provider": "main", "name": "claude-x"}, "tools": {"builtin": builtin}}
    )
    identity = Identity(
        name="athena", scope="f/o/acme/athena", cause="I test.", seed="1" * 64, commitment="2" * 64, grants=GrantsV1()
    )
    return AgentEntry(name="athena", spec=spec, system_prompt="You are Athena.", identity=identity)


def document(found: AgentEntry) -> TenantDocument:
    """A tenant document with this agent."""
    return TenantDocument(
        tenant="acme", tenant_uid="u", namespace="folkmoot-acme", generation=1, identity=found.identity, agents=(found,)
    )


@dataclass
class World:
    """See the module's docstring. `script[n]` is the model's answer at step n."""

    directory: Path
    script: list[ModelResult] = field(default_factory=list)
    agent: AgentEntry = field(default_factory=entry)
    artefacts: dict[str, bytes] = field(default_factory=dict)
    journal: dict[int, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, CallAnswer] = field(default_factory=dict)
    requests: list[CallEnvelope] = field(default_factory=list)
    ran: Counter[str] = field(default_factory=Counter)
    files: dict[str, bytes] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    refuse: dict[str, httpx2.Response] = field(default_factory=dict)  # "METHOD /path" prefix → answer instead
    on_tool: Callable[[ToolCall], ToolAnswer | None] | None = None
    config: str = "sha256:" + "c" * 64
    """Digest of the whole document, which the conductor says and the agent is not shown."""
    fence: int = 0
    nonce: str = ""
    kill_at: int = -1
    points: int = 0
    dead: bool = False

    def __post_init__(self) -> None:
        self.ledger = InMemoryLedger()
        self.hub = MemoryHub("acme", ("athena",))
        self.core = self.hub.join("core")
        (self.directory / "token").write_text("t")

    # -- life and death ---------------------------------------------------------------------------------------------
    async def point(self) -> None:
        """Somewhere the process may die."""
        await asyncio.sleep(0)
        if self.dead:
            raise Killed
        self.points += 1
        if self.points == self.kill_at:
            self.dead = True
            raise Killed

    def doors(self) -> Doors:
        """The doors of a new process."""
        transport = httpx2.MockTransport(self._handle)

        def peer(url: str) -> Peer:
            return Peer(url, self.directory / "token", None, 5.0, transport)

        conductor = Conductor(peer("http://conductor"))
        recorder = Recorder(_Ledger(self), conductor.put_artifact, time.time)
        return Doors(conductor, Broker(peer("http://broker")), lambda lease: Sandbox(peer("http://sandbox"), lease), recorder)

    def worker(self, task: Task) -> Worker:
        """A worker of a new process."""
        return Worker(self.doors(), task, Standing(self.agent, self.config), time.time)

    def mailbox(self) -> Mailbox:
        """The consumer loop of a new process on the same pod."""
        return Mailbox(_Bus(self), "acme", "athena", lambda task: self.worker(task).run(), time.time)

    async def live(self) -> None:
        """One life of the process: until it is killed, or has nothing left to do."""
        self.dead = False
        running = asyncio.ensure_future(self.mailbox().run())
        idle = asyncio.ensure_future(self._nothing_left())
        try:
            await asyncio.wait({running, idle}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()
            running.cancel()
            await asyncio.gather(running, idle, return_exceptions=True)

    async def _nothing_left(self) -> None:
        while self.hub._inboxes["athena"].entries:
            await asyncio.sleep(0)

    async def give(self, task: Task, request_id: str = "task-0001") -> None:
        """The core sends a task."""
        body = task.model_dump_json()
        await self.core.send(
            Envelope(request_id=request_id, tenant="acme", sender="core", to="athena", kind="task", conversation="s1",
                     created_ms=1, body=body)
        )  # fmt: skip

    async def mail(self) -> list[Envelope]:
        """What the core received."""
        found = await self.core.receive(0.001)
        for delivery in found:
            await self.core.done(delivery.id)
        return [delivery.envelope for delivery in found]

    def workspace(self, **files: str) -> str:
        """Store a workspace; its manifest's digest."""
        return self._store_manifest({name.replace("__", "."): text.encode() for name, text in files.items()})

    def stored(self, manifest_digest: str) -> dict[str, bytes]:
        """Files of a stored manifest."""
        manifest = WorkspaceManifest.model_validate_json(self.artefacts[manifest_digest])
        return {file.path: self.artefacts[file.digest] for file in manifest.files}

    def _store_manifest(self, files: dict[str, bytes]) -> str:
        for content in files.values():
            self.artefacts[digest(content)] = content
        canonical = self._manifest(files).canonical()
        self.artefacts[digest(canonical)] = canonical
        return digest(canonical)

    def _manifest(self, files: dict[str, bytes]) -> WorkspaceManifest:
        return WorkspaceManifest(
            files=tuple(WorkspaceFile(path=p, digest=digest(c), size=len(c)) for p, c in sorted(files.items()))
        )

    # -- the peers --------------------------------------------------------------------------------------------------
    async def _handle(self, request: httpx2.Request) -> httpx2.Response:
        await self.point()
        body = await request.aread()
        path = unquote(request.url.path)
        self.calls.append((request.method, f"{request.url.host}{path}"))
        for prefix, answer in self.refuse.items():
            if f"{request.method} {request.url.host}{path}".startswith(prefix):
                return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)
        response = await getattr(self, f"_{request.url.host}")(request, path, body)
        await self.point()
        assert isinstance(response, httpx2.Response)
        return response

    async def _broker(self, request: httpx2.Request, path: str, body: bytes) -> httpx2.Response:
        envelope = CallEnvelope.model_validate_json(body)
        key = call_key("athena", envelope)
        self.requests.append(envelope)
        if key not in self.answers:
            result = self.script[envelope.step]
            self.answers[key] = CallAnswer(
                call_key=key, result=result, family="claude", provider="main", cost="0.5", currency="USD"
            )
        return httpx2.Response(200, content=self.answers[key].model_dump_json())

    async def _conductor(self, request: httpx2.Request, path: str, body: bytes) -> httpx2.Response:
        if path == "/v1/artifacts":
            self.artefacts[digest(body)] = body
            return httpx2.Response(200, json={"digest": digest(body)})
        if path.startswith("/v1/artifacts/"):
            content = self.artefacts.get(path.rsplit("/", 1)[-1])
            return problem(404, "NotFound") if content is None else httpx2.Response(200, content=content)
        if path == "/v1/leases":
            self.granted = getattr(self, "granted", 0) + 1
            lease = Lease(session="s1", endpoint="http://sandbox", nonce=f"nonce-{self.granted:020d}", fence=self.granted)
            return httpx2.Response(200, content=lease.model_dump_json())
        if path == "/v1/document":
            return httpx2.Response(
                200, content=document(self.agent).model_dump_json(by_alias=True), headers={"ETag": f'"{self.config}"'}
            )
        if request.method == "PUT":
            record = json.loads(body)
            self.journal[record["step"]] = record
            return httpx2.Response(204)
        return httpx2.Response(200, json=[self.journal[n] for n in sorted(self.journal)])

    async def _sandbox(self, request: httpx2.Request, path: str, body: bytes) -> httpx2.Response:
        if request.method == "POST" and path == "/v1/lease":
            lease = Lease.model_validate_json(body)
            if lease.fence < self.fence:
                return problem(409, "Fenced")
            if lease.fence > self.fence:
                self.fence, self.nonce, self.files = lease.fence, lease.nonce, {}
            return httpx2.Response(200, json={"fence": lease.fence})
        if request.headers.get("Folkmoot-Lease") != self.nonce:
            return problem(409, "LeaseLost")
        if request.method == "PUT":
            self.files[path.removeprefix("/v1/files/")] = body
            return httpx2.Response(204)
        if request.method == "DELETE":
            self.nonce = ""
            return httpx2.Response(204)
        if request.method == "GET":
            found = [content for content in self.files.values() if digest(content) == path.rsplit("/", 1)[-1]]
            return httpx2.Response(200, content=found[0]) if found else problem(404, "NotFound")
        call = ToolCall.model_validate_json(body)
        self.ran[call.id] += 1
        answer = self.on_tool(call) if self.on_tool else None
        return httpx2.Response(200, content=(answer or self._run(call)).model_dump_json())

    def _run(self, call: ToolCall) -> ToolAnswer:
        if call.name == "write":
            self.files[call.arguments["path"]] = call.arguments["content"].encode()
        return ToolAnswer(text=f"{call.name} ran", exit_code=0, workspace=self._manifest(self.files))


class _Ledger:
    """The ledger with its points of death."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def append(self, request: EntryRequest) -> Receipt:
        await self._world.point()
        receipt = await self._world.ledger.append(request)
        await self._world.point()
        return receipt

    async def aclose(self) -> None: ...


class _Bus:
    """The agent's end of the bus with its points of death; a new one is a restarted process on the same pod."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._bus = world.hub.join("athena", "pod")

    async def send(self, envelope: Envelope) -> None:
        await self._world.point()
        await self._bus.send(envelope)
        await self._world.point()

    async def receive(self, block: float) -> list[Delivery]:
        found = await self._bus.receive(0.001)
        if found:
            await self._world.point()
        return found

    async def done(self, delivery_id: str) -> None:
        await self._world.point()
        await self._bus.done(delivery_id)
        await self._world.point()

    async def alive(self) -> None: ...

    async def aclose(self) -> None: ...


def problem(status: int, reason: str) -> httpx2.Response:
    """A problem document."""
    return httpx2.Response(status, json={"type": reason, "title": reason, "status": status, "detail": f"because {reason}"})


def task(**fields: Any) -> Task:
    """A task of session s1."""
    given = {"task": "s1/work/1", "session": "s1", "kind": "work", "prompt": "Do it.", "deadline_ms": FAR}
    return Task.model_validate({**given, **fields})


class Kit:
    """What tests of the agent are made with."""

    says: Any = staticmethod(says)
    wants: Any = staticmethod(wants)
    entry: Any = staticmethod(entry)
    document: Any = staticmethod(document)
    task: Any = staticmethod(task)
    problem: Any = staticmethod(problem)
    result: Any = TaskResult


@pytest.fixture
def kit() -> Kit:
    """The makers."""
    return Kit()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A fresh world."""
    return World(tmp_path)


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., World]:
    """Fresh worlds, as many as wanted."""
    return lambda **fields: World(tmp_path, **fields)
