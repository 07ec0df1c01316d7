"""Tasks and results: who may answer, once, in which shape; what happens when nobody does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from folkmoot_core.calls import OutputSchema
from folkmoot_core.deliberation import AskAgent, Outcome
from folkmoot_core.messages import TaskResult, WorkspaceManifest
from folkmoot_runtime.conductor import rows, sealed_rows
from folkmoot_runtime.conductor.runner import Protocols
from folkmoot_runtime.conductor.tasks import request_id

pytestmark = pytest.mark.looptime
SCHEMA = OutputSchema(name="plan", json_schema={"type": "object", "additionalProperties": False})


def asking(agent: str = "ana", seconds: int = 60, **fields: Any) -> Any:
    """A deliberation that asks once and tells what it was answered."""

    def deliberation(context: Any) -> Any:
        need = AskAgent(id="q", agent=agent, task="work", prompt=fields.pop("prompt", "?"), timeout_seconds=seconds, **fields)
        result = (yield (need,))["q"]
        told = f"{result.status} {result.reason} {result.output}"
        return Outcome(phase="Succeeded", reason="Told", message="told", result=told, workspace=result.workspace)

    return deliberation


async def told(world: Any, make: Any, deliberation: Any, within: Any = None) -> str:
    world.protocols = Protocols(council=deliberation, agent=deliberation)
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        if within is not None:
            await within(conductor)
        report = await world.ended(conductor)
    assert report.phase == "Succeeded"
    return str(report.result_preview)


def result_body(make: Any, output: Any = "forged", **fields: Any) -> str:
    return TaskResult(
        **{"task": f"{make.uid}/q", "session": make.uid, "status": "done", "output": output, **fields}
    ).model_dump_json()


async def test_a_result_of_another_agent_does_not_count(world: Any, make: Any) -> None:
    world.replies["ana"] = lambda task: None

    async def forge(conductor: Any) -> None:
        await world.until(lambda: world.agents["ana"].worked)
        await world.agents["ben"].bus.send(make.message("ben", "result", "y" * 40, result_body(make)))
        await asyncio.sleep(5)
        assert conductor.sessions.open_reports()[0].phase == "Running"
        mine = make.message("ana", "result", request_id(make.uid, "q"), result_body(make, "true"))
        await world.agents["ana"].bus.send(mine)

    assert await told(world, make, asking(), forge) == "done  true"


async def test_the_first_of_two_results_wins(world: Any, make: Any) -> None:
    world.replies["ana"] = lambda task: None

    async def twice(conductor: Any) -> None:
        await world.until(lambda: world.agents["ana"].worked)
        for n, output in enumerate(("first", "second")):
            answer = make.message("ana", "result", request_id(make.uid, "q"), result_body(make, output), suffix=str(n))
            await world.agents["ana"].bus.send(answer)

    assert await told(world, make, asking(), twice) == "done  first"
    assert [e.type for e in world.ledger.entries.values()].count("task.result") == 1


@pytest.mark.parametrize(
    "body", [{"task": "other/q"}, {"task": "11111111-2222-4333-8444-555555555555/none"}, {"session": "other"}]
)
async def test_results_for_other_tasks_change_nothing(world: Any, make: Any, body: dict[str, str]) -> None:
    world.replies["ana"] = lambda task: None

    async def stray(conductor: Any) -> None:
        await world.until(lambda: world.agents["ana"].worked)
        await world.agents["ana"].bus.send(make.message("ana", "result", "z" * 40, result_body(make, **body)))

    assert await told(world, make, asking(seconds=30), stray) == "failed DeadlineExceeded None"


async def test_a_task_past_its_deadline_fails_and_is_withdrawn(world: Any, make: Any) -> None:
    world.replies["ana"] = lambda task: None
    assert await told(world, make, asking(seconds=90)) == "failed DeadlineExceeded None"
    assert world.loop.time() == pytest.approx(90, abs=1)
    assert world.agents["ana"].cancelled == [f"{make.uid}/q"]


async def test_the_deadline_is_that_of_the_first_asking(world: Any, make: Any) -> None:
    world.replies["ana"] = lambda task: None
    world.protocols = Protocols(council=asking(seconds=90), agent=asking())
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        await world.until(lambda: world.agents["ana"].worked)
        await asyncio.sleep(60)
    async with world.running() as conductor:
        await world.ended(conductor)
    assert world.loop.time() == pytest.approx(90, abs=1)


async def test_an_agent_that_never_acknowledges_is_a_failed_result(world: Any, make: Any) -> None:
    async def silence(conductor: Any) -> None:
        await world.until(lambda: world.agents["ana"].worked)
        for _ in range(4):
            await asyncio.sleep(70)
            world.hub.scan()

    for agent in world.agents.values():
        agent._work = _swallow(agent)
    assert await told(world, make, asking(seconds=1700), silence) == "failed Unresponsive None"


def _swallow(agent: Any) -> Any:
    async def work(envelope: Any) -> None:
        agent.worked.append(envelope.request_id)

    return work


async def test_a_router_that_does_not_know_the_agent_yet_is_asked_again(world: Any, make: Any) -> None:
    participants = world.hub._participants
    world.hub._participants = participants - {"ana"}

    async def learn(conductor: Any) -> None:
        await world.until(lambda: len(world.sent) >= 3)
        world.hub._participants = participants

    assert (await told(world, make, asking(seconds=300), learn)).startswith("done")


async def test_an_agent_the_router_never_learns_of_fails(world: Any, make: Any) -> None:
    assert await told(world, make, asking("nobody", seconds=300)) == "failed UnknownRecipient None"
    assert 59 <= world.loop.time() <= 70


@pytest.mark.parametrize(("schema", "output"), [(None, {"a": 1}), (None, None), (SCHEMA, "prose"), (SCHEMA, [1])])
async def test_the_wrong_shape_is_no_answer(world: Any, make: Any, schema: Any, output: Any) -> None:
    world.replies["ana"] = lambda task: {**make.say(task), "output": output}
    assert await told(world, make, asking(output=schema)) == "failed ResultInvalid None"


async def test_a_workspace_that_is_not_there_is_no_answer(world: Any, make: Any) -> None:
    world.replies["ana"] = lambda task: {**make.say(task), "workspace": "sha256:" + "0" * 64}
    assert await told(world, make, asking()) == "failed ResultInvalid None"


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "a/./b", "", "a\\b", "a\nb"])
async def test_a_workspace_with_a_path_that_leaves_it_is_no_answer(world: Any, make: Any, path: str) -> None:
    async def prepare(conductor: Any) -> None:
        await conductor.store.run(sealed_rows.assign_subject, make.uid, None, None, "ref", 0)
        blob = await conductor.artefacts.put(make.uid, b"x")
        manifest = WorkspaceManifest.model_validate({"files": [{"path": path, "digest": blob, "size": 1}]})
        digest = await conductor.artefacts.put(make.uid, manifest.canonical())
        world.replies["ana"] = lambda task: {**make.say(task), "workspace": digest}

    world.protocols = Protocols(council=asking(), agent=asking())
    async with world.running() as conductor:
        await prepare(conductor)
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        report = await world.ended(conductor)
    assert report.result_preview == "failed ResultInvalid None"


async def test_the_family_is_looked_up_and_not_believed(world: Any, make: Any) -> None:
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        await world.ended(conductor)
        needs = await conductor.store.run(rows.get_needs, make.uid)
    assert {need.answer.family for need in needs.values() if need.answer} == {"claude"}


async def test_numbers_out_of_this_world_do_not_break_the_record(world: Any, make: Any) -> None:
    usage = {"input_tokens": 10**30, "output_tokens": 1}
    world.replies["ana"] = lambda task: {**make.say(task), "usage": usage, "cost": "NaN", "error": "\x1b[31m" * 1000}
    assert (await told(world, make, asking())).startswith("done")
    entry = next(e for e in world.ledger.entries.values() if e.type == "task.result")
    assert (entry.data["gen_ai.usage.input_tokens"], entry.data["cost"]) == (0, None)


@pytest.mark.parametrize("claim", [{"usage": {"input_tokens": 2**53 - 1}}, {"cost": "1E+999998"}, {"cost": "1E+50000000"}])
async def test_claims_that_would_not_fit_into_the_sum_count_nothing(world: Any, make: Any, claim: dict[str, Any]) -> None:
    world.replies["ana"] = lambda task: {**make.say(task), "usage": {}, "cost": None, **claim}

    def twice(context: Any) -> Any:
        needs = tuple(AskAgent(id=f"ask/{n}", agent="ana", task="answer", prompt="?", timeout_seconds=60) for n in range(2))
        answers = yield needs
        return Outcome(phase="Succeeded", reason="Ran", message="ran", result=" ".join(answers[n.id].status for n in needs))

    assert await told(world, make, twice) == "done done"
    end = next(e for e in world.ledger.entries.values() if e.type == "session.end")
    assert (end.data["gen_ai.usage.input_tokens"], end.data["cost"]) == (0, None)


async def test_a_task_too_large_for_the_bus_fails(world: Any, make: Any) -> None:
    assert await told(world, make, asking(prompt="x" * 600_000)) == "failed TaskTooLarge None"
    assert not world.sent


async def test_a_bus_that_is_away_is_waited_for(world: Any, make: Any) -> None:
    world.hub.down = True

    async def back(conductor: Any) -> None:
        await asyncio.sleep(30)
        assert conductor.sessions.open_reports()[0].phase == "Running"
        world.hub.down = False

    for task in world._tasks:
        task.cancel()
    assert await told_with_agents_later(world, make, back) == "done  work done"


async def told_with_agents_later(world: Any, make: Any, back: Any) -> str:
    async def within(conductor: Any) -> None:
        await back(conductor)
        world._tasks.append(asyncio.create_task(world.agents["ana"].run()))

    return await told(world, make, asking(seconds=300), within)


async def test_critical_sessions_ask_for_a_faster_ack(world: Any, make: Any) -> None:
    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order(priority="Critical"))
        await world.ended(conductor)
    tasks = [e for e in world.sent if e.kind == "task"]
    assert {(e.priority, e.deadline_ms - e.created_ms) for e in tasks} == {("critical", 30_000)}


async def test_what_agents_said_is_committed_to_and_can_be_opened(world: Any, make: Any) -> None:
    """The entry holds no content; artefact and salt open its commitment."""
    from folkmoot_core import sealing
    from folkmoot_core.canonical import commit

    async with world.running() as conductor:
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        await world.ended(conductor)
        openings = {o.commit: o for o in await conductor.store.run(sealed_rows.get_openings)}
        committed = [e for e in world.ledger.entries.values() if e.payload is not None]
        for entry in committed:
            opening = openings[entry.payload.commit]
            ref, (secret, content) = await conductor.artefacts.opened_for(make.uid, opening.digest)
            assert commit(sealing.salt(secret, entry.id), content) == entry.payload.commit
            assert entry.data["subject_ref"] == opening.ref == ref
            assert len(content) == entry.payload.size
    assert len(committed) == 8
    assert "Do it." not in json.dumps([e.model_dump() for e in world.ledger.entries.values()])
