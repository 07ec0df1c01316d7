"""kill -9 between every two steps, then the same call again: never two billed calls for a stored answer, nothing unrecorded."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folkmoot_core.calls import CallAnswer, CallEnvelope, ModelRequest, ModelResult, TextPart
from folkmoot_core.document import TenantDocument
from folkmoot_core.errors import Conflict as InDoubt
from folkmoot_core.resources.tenant import ProviderSpec
from folkmoot_runtime.broker.attempts import Attempts
from folkmoot_runtime.broker.engine import Engine, ProviderFailed
from folkmoot_runtime.broker.journal import Journal
from folkmoot_runtime.broker.providers.interface import Provider, ProviderError
from folkmoot_runtime.broker.slots import Slots
from folkmoot_runtime.ledger.client import InMemoryLedger

RUNNER = Path(__file__).with_name("crashing_broker.py")
STEPS = ("prepared", "announced", "sent", "came back", "stored", "recorded")
SCENARIO = {
    "name": "crash",
    "rules": [{"id": "any", "when": {"last_user": "secret"}, "reply": {"text": "paid for"}, "usage": {"input": 10, "output": 2}}],
}


@pytest.fixture
def simulator(tmp_path: Path, unused_tcp_port: int) -> Any:
    """The model simulator as a process of its own: it counts what was billed."""
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(yaml.safe_dump(SCENARIO))
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", "--scenario", str(scenario), "--port", str(unused_tcp_port)],
        stderr=subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert process.stderr is not None
    assert b"serving" in process.stderr.readline()
    yield f"http://127.0.0.1:{unused_tcp_port}"
    process.send_signal(signal.SIGTERM)
    process.communicate()


def run(directory: Path, die_at: str) -> subprocess.CompletedProcess[bytes]:
    environment = {"PYTHONPATH": ":".join(sys.path)}
    return subprocess.run([sys.executable, str(RUNNER), str(directory), die_at], capture_output=True, env=environment, timeout=60)


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_and_asked_again(
    step: str, simulator: str, tmp_path: Path, document: Callable[..., TenantDocument], call: Callable[..., CallEnvelope]
) -> None:
    spec = ProviderSpec(name="claude", type="OpenAICompatible", base_url=f"{simulator}/v1", timeout="10s")
    (tmp_path / "document.json").write_text(document(providers=(spec,)).model_dump_json())
    (tmp_path / "call.json").write_text(call().model_dump_json())

    died = run(tmp_path, step)
    assert died.returncode == -signal.SIGKILL
    assert died.stdout == b""
    answers = [CallAnswer.model_validate_json(run(tmp_path, "").stdout) for _ in range(2)]

    assert answers[0].result.parts == (TextPart(text="paid for"),)
    assert answers[1] == answers[0].model_copy(update={"stored": True})
    stored_before = step in ("stored", "recorded")
    assert answers[0].stored == stored_before
    with urllib.request.urlopen(f"{simulator}/_sim/counts") as response:
        billed = json.load(response)["billed"]
    assert billed == (2 if step == "came back" else 1)  # between answer and disk: in doubt, repeated once, on record
    entries = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    doubted = step in ("sent", "came back")
    outcomes = [entry["data"].get("folkmoot.outcome") for entry in entries]
    assert outcomes == ([None, "in_doubt"] if doubted else []) + [None, "answered"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


class Vendor:
    """Counts what it produced; each attempt ends as the plan says."""

    def __init__(self, plan: list[str]) -> None:
        self.plan = plan
        self.billed = 0

    @asynccontextmanager
    async def use(self, spec: ProviderSpec) -> AsyncIterator[Provider]:
        yield self

    async def complete(self, model: str, request: ModelRequest, timeout: float) -> ModelResult:
        fate = self.plan.pop(0) if self.plan else "answer"
        if fate in ("status", "connect"):
            raise ProviderError(fate, "no", status=529 if fate == "status" else 0)  # type: ignore[arg-type]
        self.billed += 1
        if fate in ("timeout", "lost"):
            raise ProviderError(fate, "gone")  # type: ignore[arg-type]
        return ModelResult(parts=(TextPart(text=f"answer {self.billed}"),), stop="end", usage={}, model_observed=model)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kills=st.lists(st.none() | st.integers(0, 12), min_size=1, max_size=6),
    plan=st.lists(st.sampled_from(["answer", "status", "connect", "timeout", "lost"]), max_size=8),
)
def test_any_sequence_of_crashes_and_failures(
    kills: list[int | None], plan: list[str], document: Callable[..., TenantDocument], call: Callable[..., CallEnvelope]
) -> None:
    """Each round is a process: it dies at its n-th step (None: lives). Then one that lives."""
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_rounds(Path(directory), [*kills, None], Vendor(plan), (document(), call())))


async def _rounds(directory: Path, kills: list[int | None], vendor: Vendor, given: tuple[TenantDocument, CallEnvelope]) -> None:
    ledger = InMemoryLedger()
    answers: list[CallAnswer] = []
    billed_when_stored: int | None = None
    for kill in kills:
        taken = 0

        def step(name: str, kill: int | None = kill) -> None:
            nonlocal taken, billed_when_stored
            if name == "stored":
                billed_when_stored = vendor.billed
            if kill is not None and taken == kill:
                raise Killed
            taken += 1

        async def no_wait(_: float) -> None: ...

        attempts = Attempts(vendor, Slots(), 600.0, jitter=lambda: 0.0, sleep=no_wait)
        engine = Engine(Journal(directory / "calls.db"), ledger, attempts, lambda: given[0], step=step)
        try:
            await engine.recover()
            await engine.flush()
            answers.append(await engine.ask("ana", given[1]))
        except (Killed, ProviderFailed, InDoubt):
            pass
        if kill is None:
            await engine.flush()
        await engine.close()
    _check(ledger, vendor, answers, billed_when_stored)


def _check(ledger: InMemoryLedger, vendor: Vendor, answers: list[CallAnswer], billed_when_stored: int | None) -> None:
    outcomes = [entry.data["folkmoot.outcome"] for entry in ledger.entries if entry.type == "model.call.outcome"]
    intents = [entry.data["folkmoot.run"] for entry in ledger.entries if entry.type == "model.call.intent"]
    assert intents == list(range(1, len(intents) + 1))  # runs are announced in order, none twice
    assert outcomes.count("answered") <= 1
    assert outcomes.count("in_doubt") <= 2
    assert vendor.billed <= outcomes.count("in_doubt") + outcomes.count("answered")  # nothing billed is off the record
    if billed_when_stored is not None:
        assert vendor.billed == billed_when_stored  # a stored answer is never paid for again
    assert len({answer.result.model_dump_json() for answer in answers}) <= 1
    if answers:
        assert outcomes.count("answered") == 1
