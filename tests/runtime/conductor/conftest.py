"""A tenant without a cluster: the conductor over its twins, agents that answer by a function, and a store that can crash.

Time is virtual: the clock is the loop's, threads are inline. A crash is the conductor dropped at a chosen transaction; ledger,
bus, agents and the database file live on.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from folkmoot_core import identity
from folkmoot_core.calls import Usage
from folkmoot_core.council import DeliberationContext
from folkmoot_core.deliberation import AskAgent, Deliberation, Note, Outcome
from folkmoot_core.document import AgentEntry, CouncilEntry, Identity, SessionOrder, SessionReport, TenantDocument
from folkmoot_core.identity import GrantsV1
from folkmoot_core.messages import Envelope, Task, TaskResult
from folkmoot_core.resources import AgentSpec, CouncilSpec, ProviderSpec
from folkmoot_runtime.bus.interface import Delivery
from folkmoot_runtime.bus.memory import MemoryBus, MemoryHub
from folkmoot_runtime.conductor.assembly import Conductor, Options, Peers
from folkmoot_runtime.conductor.runner import Protocols
from folkmoot_runtime.conductor.store import InlineExecutor, Store
from folkmoot_runtime.conductor.twins import MemoryCalls, MemoryLedger, MemoryOperator, MemorySandbox
from folkmoot_runtime.ledger.twin import MemoryLog
from folkmoot_runtime.trust import Trust

EPOCH = 1_790_000_000.0
TENANT = "acme"
AGENTS = ("ana", "ben", "cyd")
UID = "11111111-2222-4333-8444-555555555555"


class Crash(BaseException):
    """The process is gone."""


class CrashingStore(Store):
    """Dies at transaction number `at`, before or after it reached the disk; nothing works afterwards."""

    def __init__(self, path: Path, at: int = 0, *, after: bool = False) -> None:
        super().__init__(path, InlineExecutor())
        self.at, self.after, self.count = at, after, 0
        self.crashed = asyncio.Event()
        self.full = False

    def _open(self) -> None:
        super()._open()
        assert self._connection is not None
        self._connection.execute("PRAGMA synchronous=OFF")  # the process dies here, never the machine

    async def run(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        if self.crashed.is_set():
            raise Crash
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        self.count += 1
        mine = self.count == self.at
        if mine and not self.after:
            self.crashed.set()
            raise Crash
        value = await super().run(work, *args, **kwargs)
        if mine:
            self.crashed.set()
            raise Crash
        return value


Reply = Callable[[Task], dict[str, Any] | None]


@dataclass
class FakeAgent:
    """Answers tasks by `reply` (fields of a TaskResult; None: says nothing), never the same request twice."""

    name: str
    bus: MemoryBus
    reply: Reply
    log: list[Envelope] = field(default_factory=list)
    worked: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    async def run(self) -> None:
        done: set[str] = set()
        while True:
            for delivery in await self.bus.receive(60):
                envelope = delivery.envelope
                self.log.append(envelope)
                if envelope.kind == "cancel":
                    self.cancelled.append(json.loads(envelope.body)["task"])
                elif envelope.request_id not in done:
                    done.add(envelope.request_id)
                    await self._work(envelope)
                await self.bus.done(delivery.id)

    async def _work(self, envelope: Envelope) -> None:
        task = Task.model_validate_json(envelope.body)
        self.worked.append(task.task)
        await self.bus.send(message(self.name, "ack", envelope.request_id, "{}"))
        fields = self.reply(task)
        if fields is not None:
            result = TaskResult(**{"task": task.task, "session": task.session, "status": "done", **fields})
            await self.bus.send(message(self.name, "result", envelope.request_id, result.model_dump_json()))


def message(sender: str, kind: Any, ack_for: str, body: str, suffix: str = "") -> Envelope:
    return Envelope(
        request_id=f"{kind}-{suffix}{ack_for}"[:64], ack_for=ack_for, tenant=TENANT, sender=sender, to="core", kind=kind,
        created_ms=0, body=body,
    )  # fmt: skip


def say(task: Task) -> dict[str, Any]:
    """The usual agent: says its kind of task, uses ten tokens."""
    output: Any = f"{task.kind} done" if task.output is None else {"vote": "For"}
    return {
        "output": output, "usage": Usage(input_tokens=7, output_tokens=3), "cost": "0.01", "currency": "USD", "calls": 1,
        "provider": "claude", "model_observed": "claude-sonnet-5-5", "family": "invented",
    }  # fmt: skip


def three_steps(context: DeliberationContext) -> Deliberation:
    """A small deliberation with everything that a crash could tear: one question, two at once, notes."""
    answers = yield (AskAgent(id="plan", agent="ana", task="plan", prompt=context.session.spec.task, timeout_seconds=60),)
    first = answers["plan"]
    assert isinstance(first, TaskResult)
    yield (Note(id="plan/note", entry="council.plan", actor="ana", data={"status": first.status}),)
    votes = yield tuple(
        AskAgent(id=f"vote/1/{name}", agent=name, task="vote", prompt="vote", timeout_seconds=60) for name in ("ben", "cyd")
    )
    said = [str(vote.output) for vote in votes.values() if isinstance(vote, TaskResult) and vote.status == "done"]
    yield (
        Note(id="decision", entry="council.decision", data={"for": len(said), "against": 2 - len(said), "dissent": []}),
        Note(id="verdict", entry="gate.verdict", data={"verdict": "Approved", "submission": 1, "shapes": []}),
    )
    return Outcome(
        phase="Succeeded", reason="Decided", message="the council decided", result=f"{first.output}: {'; '.join(said)}",
        votes_for=len(said), verdict="Approved", submission=1, unfinished=("write the changelog",),
    )  # fmt: skip


def one_answer(context: DeliberationContext) -> Deliberation:
    """The Agent target."""
    target, prompt = context.session.spec.target.name, context.session.spec.task + context.previous_note
    answers = yield (
        AskAgent(id="answer", agent=target, task="answer", prompt=prompt, inputs=context.inputs, workspace=context.workspace,
                 timeout_seconds=3600),
    )  # fmt: skip
    result = answers["answer"]
    assert isinstance(result, TaskResult)
    if result.status != "done":
        return Outcome(phase="Failed", reason=result.reason, message=result.error)
    return Outcome(
        phase="Succeeded", reason="Answered", message="answered", result=str(result.output), workspace=result.workspace
    )


def an_identity(name: str, scope: str) -> Identity:
    seed = identity.seed(name, scope, f"I am {name}.")
    grants = GrantsV1()
    commitment = identity.commitment(seed, identity.ROOT_PARENT, grants.digest())
    return Identity(name=name, scope=scope, cause=f"I am {name}.", seed=seed, commitment=commitment, grants=grants)


def a_document(
    generation: int = 1, agents: tuple[str, ...] = AGENTS, asleep: tuple[str, ...] = (), **fields: Any
) -> TenantDocument:
    spec = {"cause": "I work.", "model": {"provider": "claude", "name": "claude-sonnet-5-5"}, "systemPrompt": "secret of {name}"}
    entries = tuple(
        AgentEntry(
            name=name, spec=AgentSpec.model_validate({**spec, "systemPrompt": f"prompt of {name}"}), system_prompt=f"prompt of {name}",
            identity=an_identity(name, f"f/o/{TENANT}/{name}"), suspended=name in asleep,
        )
        for name in agents
    )  # fmt: skip
    council = CouncilSpec.model_validate(
        {"cause": "We decide.", "coordinator": {"agentRef": {"name": "ana"}},
         "members": [{"agentRef": {"name": name}, "role": "voice"} for name in ("ben", "cyd")]}
    )  # fmt: skip
    provider = ProviderSpec.model_validate({"name": "claude", "type": "Anthropic"})
    return TenantDocument(
        tenant=TENANT, tenant_uid="t-uid", namespace=f"folkmoot-{TENANT}", generation=generation,
        identity=an_identity(TENANT, f"f/o/{TENANT}"), agents=entries, providers=(provider,),
        councils=(CouncilEntry(name="moot", spec=council),), **fields,
    )  # fmt: skip


def an_order(uid: str = UID, name: str = "review", kind: str = "Council", target: str = "moot", **fields: Any) -> SessionOrder:
    inputs = fields.pop("inputs", {})
    generation = fields.pop("generation", 1)
    spec = {"target": {"kind": kind, "name": target}, "task": "Do it.", **fields}
    return SessionOrder.model_validate({"uid": uid, "name": name, "generation": generation, "spec": spec, "inputs": inputs})


class SpyingBus:
    """The core's end of the bus; `sent` keeps what went through."""

    def __init__(self, bus: MemoryBus, sent: list[Envelope]) -> None:
        self._bus = bus
        self._sent = sent

    async def send(self, envelope: Envelope) -> None:
        await self._bus.send(envelope)
        self._sent.append(envelope)

    async def receive(self, block: float) -> list[Delivery]:
        return await self._bus.receive(block)

    async def done(self, delivery_id: str) -> None:
        await self._bus.done(delivery_id)

    async def alive(self) -> None:
        await self._bus.alive()

    async def aclose(self) -> None:
        await self._bus.aclose()


class World:
    """Everything around one conductor. `conductor` is the one that runs now."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loop = asyncio.get_running_loop()
        self.skipped = 0.0  # seconds that passed while nothing ran
        self.hub = MemoryHub(TENANT, AGENTS, self.clock)
        self.ledger = MemoryLedger(MemoryLog(TENANT, self.clock))
        self.operator = MemoryOperator()
        self.calls = MemoryCalls()
        self.sandbox = MemorySandbox(lambda command, files: (0, "ok"))
        self.replies: dict[str, Reply] = dict.fromkeys(AGENTS, say)
        self.agents = {name: FakeAgent(name, self.hub.join(name), self._reply(name)) for name in AGENTS}
        self.protocols = Protocols(council=three_steps, agent=one_answer)
        self.limit = 8
        self.sent: list[Envelope] = []
        self.endpoints = {"ana": "http://127.0.0.1:9"}
        self.conductor: Conductor
        self.work: asyncio.Task[None]
        self._tasks = [asyncio.create_task(agent.run()) for agent in self.agents.values()]

    def clock(self) -> float:
        return EPOCH + self.skipped + self.loop.time()

    def _reply(self, name: str) -> Reply:
        return lambda task: self.replies[name](task)

    def make(self, store: Store | None = None) -> Conductor:
        options = Options(
            tenant=TENANT, directory=self.directory, limit=self.limit, protocols=self.protocols, clock=self.clock,
            executor=InlineExecutor(),
        )  # fmt: skip
        peers = Peers(
            bus=SpyingBus(self.hub.join("core", "core-0"), self.sent), ledger=self.ledger, operator=self.operator,
            trust=Trust(self.directory / "trust", f"folkmoot-{TENANT}", self.clock), sandbox=self.sandbox,
            broker=self.calls, checks_endpoint="http://checks", endpoints=self.endpoints,
        )  # fmt: skip
        self.conductor = Conductor(options, peers, store)
        return self.conductor

    def store(self, at: int = 0, *, after: bool = False) -> CrashingStore:
        return CrashingStore(self.directory / "conductor.sqlite", at, after=after)

    @asynccontextmanager
    async def running(self, store: Store | None = None) -> AsyncIterator[Conductor]:
        """A conductor at work; leaving is a kill, not an end."""
        conductor = self.make(store or self.store())
        await conductor.start()
        work = self.work = asyncio.create_task(conductor.run())
        try:
            yield conductor
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError, BaseExceptionGroup, Crash):
                await work
            Store._close(conductor.store)

    async def until(self, check: Callable[[], Any], limit: float = 36_000) -> None:
        """Virtual time passes until `check` holds."""
        async with asyncio.timeout(limit):
            while not check():
                await asyncio.sleep(0.05)

    async def ended(self, conductor: Conductor, name: str = "review", limit: float = 36_000) -> SessionReport:
        async with asyncio.timeout(limit):
            while not (report := await conductor.sessions.report(name)).finished:
                await asyncio.sleep(0.05)
        return report

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.aclose()


@pytest.fixture
def make() -> Any:
    """The makers of documents and orders, for test modules (helpers cannot be imported under importlib mode)."""

    class Make:
        document = staticmethod(a_document)
        order = staticmethod(an_order)
        suspending = staticmethod(lambda *agents, generation=1: a_document(generation, asleep=agents))
        message = staticmethod(message)
        say = staticmethod(say)
        crash = Crash
        uid = UID
        agents = AGENTS

    return Make
