"""What the broker's tests share: a tenant document, calls, a provider made of a list of outcomes, an engine around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from folkmoot_core.calls import CallEnvelope, Message, ModelRequest, ModelResult, TextPart, Usage
from folkmoot_core.document import AgentEntry, Identity, TenantDocument
from folkmoot_core.identity import GrantsV1
from folkmoot_core.resources.agent import AgentModel, AgentSpec
from folkmoot_core.resources.tenant import ModelSpec, Price, ProviderSpec
from folkmoot_runtime.broker.attempts import Attempts
from folkmoot_runtime.broker.engine import Engine
from folkmoot_runtime.broker.journal import Journal
from folkmoot_runtime.broker.providers.interface import Provider, ProviderError
from folkmoot_runtime.broker.slots import Slots
from folkmoot_runtime.ledger.client import InMemoryLedger

Outcome = str | ProviderError | Callable[[], Awaitable[str]]


@dataclass
class FakeProviders:
    """Answers with the outcomes in order, the last one for ever; `calls` counts what arrived at the vendor."""

    outcomes: list[Outcome] = field(default_factory=lambda: ["hello"])
    calls: int = 0

    @asynccontextmanager
    async def use(self, spec: ProviderSpec) -> AsyncIterator[Provider]:
        yield self

    async def complete(self, model: str, request: ModelRequest, timeout: float) -> ModelResult:
        outcome = self.outcomes[min(self.calls, len(self.outcomes) - 1)]
        self.calls += 1
        if isinstance(outcome, ProviderError):
            raise outcome
        text = outcome if isinstance(outcome, str) else await outcome()
        usage = Usage(input_tokens=1000, output_tokens=500, cached_input_tokens=200)
        return ModelResult(parts=(TextPart(text=text),), stop="end", usage=usage, model_observed=model, response_id="r1")


@dataclass
class Bench:
    """An engine with everything around it that a test looks at."""

    engine: Engine
    providers: FakeProviders
    ledger: InMemoryLedger
    waits: list[float]
    observed: list[tuple[str, str]]
    path: Path
    world: dict[str, TenantDocument | None]

    def entries(self, kind: str = "") -> list[Any]:
        return [entry for entry in self.ledger.entries if kind in entry.type]


def make_document(**changes: Any) -> TenantDocument:
    identity = Identity(name="ana", scope="f/o/t/ana", cause="I help.", seed="a" * 64, commitment="b" * 64, grants=GrantsV1())
    model = AgentModel(provider="claude", name="claude-s", max_output_tokens=1000)
    agent = AgentEntry(name="ana", spec=AgentSpec(cause="I help.", model=model), identity=identity)
    price = Price(input="3", output="15", cached_input="0.3")
    spec = ProviderSpec(
        name="claude", type="Anthropic", region="eu", models=(ModelSpec(name="claude-s", price=price),), concurrency=2
    )
    fields: dict[str, Any] = {
        "tenant": "acme", "tenant_uid": "u", "namespace": "folkmoot-acme", "generation": 1, "identity": identity,
        "agents": (agent,), "providers": (spec,), "currency": "EUR",
    }  # fmt: skip
    return TenantDocument(**{**fields, **changes})


def make_call(step: int = 0, text: str = "secret words", **changes: Any) -> CallEnvelope:
    request = ModelRequest(messages=(Message(role="user", parts=(TextPart(text=text),)),), max_output_tokens=100)
    fields: dict[str, Any] = {"session": "s1", "task": "s1/t1", "step": step, "provider": "claude", "model": "claude-s"}
    return CallEnvelope(request=request, **{**fields, **changes})


@pytest.fixture
def document() -> Callable[..., TenantDocument]:
    return make_document


@pytest.fixture
def call() -> Callable[..., CallEnvelope]:
    return make_call


@pytest.fixture
async def open_bench(tmp_path: Path) -> AsyncIterator[Callable[..., Bench]]:
    """Opens an engine on the same journal each time it is called, like a broker that is started again."""
    opened: list[Engine] = []
    ledger, providers = InMemoryLedger(), FakeProviders()

    def opener(*outcomes: Outcome, deadline: float = 600.0) -> Bench:
        if outcomes:
            providers.outcomes, providers.calls = list(outcomes), 0
        waits: list[float] = []
        observed: list[tuple[str, str]] = []
        world: dict[str, TenantDocument | None] = {"document": make_document()}

        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        attempts = Attempts(providers, Slots(), deadline, jitter=lambda: 0.0, sleep=sleep)
        engine = Engine(
            Journal(tmp_path / "broker" / "calls.db"), ledger, attempts, lambda: world["document"],
            observe=lambda name, reason, _: observed.append((name, reason)), clock=lambda: 1_800_000_000.0,
        )  # fmt: skip
        opened.append(engine)
        return Bench(engine, providers, ledger, waits, observed, tmp_path / "broker" / "calls.db", world)

    yield opener
    for engine in opened:
        await engine.close()


@pytest.fixture
def bench(open_bench: Callable[..., Bench]) -> Bench:
    return open_bench()
