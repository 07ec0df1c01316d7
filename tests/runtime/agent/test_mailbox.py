"""The consumer loop: acknowledged at once, one at a time, cancelled, failed on record, never dropped."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from folkmoot_core.messages import MAX_BODY, Envelope, TaskResult
from folkmoot_runtime.agent.mailbox import Mailbox


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0)


async def results(world: Any, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        found += [json.loads(each.body) for each in await world.mail() if each.kind == "result"]
    return found


async def test_acknowledged_before_the_work_and_put_away_after_the_answer(world: Any, kit: Any) -> None:
    go = asyncio.Event()

    async def work(task: Any) -> Any:
        await go.wait()
        return TaskResult(task=task.task, session=task.session, status="done", output="ok")

    mailbox = Mailbox(world.hub.join("athena"), "acme", "athena", work, time.time)
    running = asyncio.ensure_future(mailbox.run())
    await world.give(kit.task(), "task-0001")
    await world.give(kit.task(task="s1/work/2"), "task-0002")
    await until(lambda: len(world.hub._inboxes["core"].entries) == 2)
    assert [each.kind for each in await world.mail()] == ["ack", "ack"]
    assert len(world.hub._inboxes["athena"].entries) == 2
    go.set()
    assert [each["task"] for each in await results(world, 2)] == ["s1/work/1", "s1/work/2"]
    await until(lambda: not world.hub._inboxes["athena"].entries)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_cancel_stops_the_running_task_and_those_that_wait(world: Any, kit: Any) -> None:
    stopped = asyncio.Event()
    started = asyncio.Event()

    async def work(task: Any) -> Any:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    mailbox = Mailbox(world.hub.join("athena"), "acme", "athena", work, time.time)
    running = asyncio.ensure_future(mailbox.run())
    for number in (1, 2):
        await world.give(kit.task(task=f"s1/work/{number}"), f"task-000{number}")
    await started.wait()
    for number in (2, 1):
        await world.core.send(
            Envelope(request_id=f"cancel-{number}", ack_for=f"task-000{number}", tenant="acme", sender="core", to="athena",
                     kind="cancel", created_ms=1, body=json.dumps({"task": f"s1/work/{number}"}))
        )  # fmt: skip
    assert [each["reason"] for each in await results(world, 2)] == ["Cancelled", "Cancelled"]
    assert stopped.is_set()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_failure_inside_becomes_a_failed_result_without_content(world: Any, kit: Any, caplog: Any) -> None:
    async def work(_: Any) -> Any:
        raise KeyError("canary-content")

    mailbox = Mailbox(world.hub.join("athena"), "acme", "athena", work, time.time)
    running = asyncio.ensure_future(mailbox.run())
    await world.give(kit.task())
    [result] = await results(world, 1)
    assert (result["status"], result["reason"]) == ("failed", "InternalError")
    assert "canary" not in json.dumps(result) + caplog.text
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_result_too_large_for_the_bus_fails_as_such(world: Any, kit: Any) -> None:
    async def work(task: Any) -> Any:
        return TaskResult(task=task.task, session=task.session, status="done", output="x" * MAX_BODY)

    mailbox = Mailbox(world.hub.join("athena"), "acme", "athena", work, time.time)
    running = asyncio.ensure_future(mailbox.run())
    await world.give(kit.task())
    assert [each["reason"] for each in await results(world, 1)] == ["OutputTooLarge"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_heartbeats_pass_the_router(world: Any, kit: Any) -> None:
    mailbox = Mailbox(world.hub.join("athena"), "acme", "athena", kit.task, time.time)
    await mailbox.heartbeat()
    await mailbox.heartbeat()
    assert [each.kind for each in await world.mail()] == ["heartbeat", "heartbeat"]
    assert world.hub.refused == []
