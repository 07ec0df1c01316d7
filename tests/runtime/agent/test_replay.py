"""SIGKILL at every single point where the agent waits for somebody, and again on the way back: nothing is lost or done twice."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TASK = "s1/work/1"


def story(kit: Any) -> list[Any]:
    """Two rounds of tools, then the answer."""
    return [
        kit.wants(("write", {"path": "a.txt", "content": "one"}), ("bash", {"command": "make"})),
        kit.wants(("write", {"path": "b.txt", "content": "two"})),
        kit.says("finished"),
    ]


async def play(world: Any, kit: Any, kills: list[int]) -> Any:
    """Give the task, die at these points (counted anew in each life), then live on; the one result."""
    world.script = story(kit)
    await world.give(kit.task(workspace=world.workspace(a__txt="zero")))
    for kill in kills:
        world.points, world.kill_at = 0, kill
        await world.live()
        if not world.dead:
            break
    world.points, world.kill_at = 0, -1
    await world.live()
    mail = await world.mail()
    assert Counter(each.kind for each in mail) == {"ack": 1, "result": 1}, "acknowledged once, answered once"
    return kit.result.model_validate_json(next(each.body for each in mail if each.kind == "result"))


def check(world: Any, result: Any) -> None:
    """What holds after any history."""
    assert (result.status, result.output, result.task) == ("done", "finished", TASK)
    assert set(world.ran.values()) <= {1}, "no command ran twice"
    assert len(world.answers) == len({each.model_dump_json() for each in world.requests}), "equal steps ask for equal keys"
    assert {each["state"] for each in world.journal.values()} <= {"done", "interrupted"}
    intents = {each.data["call"] for each in world.ledger.entries if each.type == "tool.call.intent"}
    outcomes = Counter(each.data["call"] for each in world.ledger.entries if each.type == "tool.call.outcome")
    assert {int(identity.split("/")[3]) for identity in world.ran} <= intents, "what ran was announced"
    assert intents <= set(outcomes)
    if all(each["state"] == "done" for each in world.journal.values()):
        assert world.stored(result.workspace) == {"a.txt": b"one", "b.txt": b"two"}
        assert len(world.answers) == 3, "no call was paid for twice"
    assert world.hub.refused == []


async def points_of(make_world: Any, kit: Any) -> int:
    world = make_world()
    check(world, await play(world, kit, []))
    return int(world.points)


async def test_a_kill_at_every_point(make_world: Any, kit: Any) -> None:
    total = await points_of(make_world, kit)
    assert total > 80
    for kill in range(1, total + 1):
        world = make_world()
        check(world, await play(world, kit, [kill]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.integers(1, 110), min_size=2, max_size=5))
async def test_any_history_of_kills(make_world: Any, kit: Any, kills: list[int]) -> None:
    world = make_world()
    check(world, await play(world, kit, kills))


async def test_a_call_found_started_is_interrupted_and_the_model_is_told(world: Any, kit: Any) -> None:
    world.script = [kit.wants(("bash", {"command": "deploy"})), kit.says("I looked")]
    world.journal[0] = {"step": 0, "call_id": f"{TASK}/0/c0", "tool": "bash", "state": "started"}
    before = world.workspace(a="x")
    await world.give(kit.task(workspace=before))
    await world.live()
    assert not world.ran
    assert "interrupted" in world.requests[1].request.messages[-1].parts[0].text
    [outcome] = world.ledger.entries
    assert outcome.data["state"] == "interrupted"
    [_, result] = await world.mail()
    assert json.loads(result.body)["workspace"] == before


async def test_a_resend_while_the_task_runs_or_after_it_changes_nothing(world: Any, kit: Any) -> None:
    world.script = story(kit)
    task = kit.task(workspace=world.workspace())
    await world.give(task)
    world.hub._put(next(iter(world.hub._inboxes["athena"].entries.values())).envelope.model_copy(update={"attempt": 2}))
    await world.live()
    assert Counter(each.kind for each in await world.mail()) == {"ack": 1, "result": 1}
    assert set(world.ran.values()) == {1}
