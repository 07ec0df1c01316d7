"""What every bus keeps: durable hand-over, pending after a restart, deduplication, ACK deadlines, refusals on record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from folkmoot_core.routing import ROUTER
from folkmoot_runtime.bus.interface import Bus

pytestmark = pytest.mark.contract


async def received(bus: Bus) -> list[Any]:
    return [delivery.envelope for delivery in await bus.receive(0.01)]


async def test_a_task_goes_out_and_its_result_comes_back(world: Any, message: Any) -> None:
    core, athena = await world.join("core"), await world.join("athena")
    await core.send(message("core", "athena", "task", "task-0001"))
    await world.settle()
    [delivery] = await athena.receive(0.01)
    assert (delivery.envelope.request_id, delivery.envelope.kind, delivery.envelope.attempt) == ("task-0001", "task", 1)
    await athena.send(message("athena", "core", "ack", "ack-00001", ack_for="task-0001"))
    await athena.send(message("athena", "core", "result", "result-0001", ack_for="task-0001"))
    await athena.done(delivery.id)
    await world.settle()
    assert [each.kind for each in await received(core)] == ["ack", "result"]
    await world.miss_acks()
    assert await world.recorded("bus.resent") == []
    assert await received(athena) == []


async def test_what_was_never_done_is_handed_out_again_after_a_restart(world: Any, message: Any) -> None:
    core, athena = await world.join("core"), await world.join("athena")
    for number in range(3):
        await core.send(message("core", "athena", "task", f"task-000{number}"))
    await world.settle()
    first = await athena.receive(0.01)
    await athena.done(first[1].id)
    await athena.aclose()
    again = await (await world.join("athena")).receive(0.01)
    assert [each.envelope.request_id for each in again] == ["task-0000", "task-0002"]
    assert again[0].id == first[0].id


async def test_the_same_request_id_is_delivered_once(world: Any, message: Any) -> None:
    core, athena = await world.join("core"), await world.join("athena")
    for _ in range(3):
        await core.send(message("core", "athena", "task", "task-0001"))
        await world.settle()
    assert len(await received(athena)) == 1


async def test_request_ids_of_different_senders_do_not_collide(world: Any, message: Any) -> None:
    core, athena, hermes = [await world.join(each) for each in ("core", "athena", "hermes")]
    for sender in (athena, hermes):
        await sender.send(message("athena" if sender is athena else "hermes", "core", "heartbeat", "same-id-0"))
    await world.settle()
    assert sorted(each.sender for each in await received(core)) == ["athena", "hermes"]


async def test_two_pods_share_the_work(world: Any, message: Any) -> None:
    core, one, two = await world.join("core"), await world.join("athena", "pod-1"), await world.join("athena", "pod-2")
    for number in range(4):
        await core.send(message("core", "athena", "task", f"task-000{number}"))
        await world.settle()
    taken = [*(await received(one)), *(await received(two))]
    assert sorted(each.request_id for each in taken) == [f"task-000{number}" for number in range(4)]


async def test_a_missed_ack_is_resent_twice_and_then_the_sender_is_told(world: Any, message: Any) -> None:
    core, athena = await world.join("core"), await world.join("athena")
    await core.send(message("core", "athena", "task", "task-0001", priority="critical"))
    await world.settle()
    await world.miss_acks()
    await world.miss_acks()
    assert [each["attempt"] for each in await world.recorded("bus.resent")] == [2, 3]
    assert await received(core) == []
    await world.miss_acks()
    assert [each["request_id"] for each in await world.recorded("bus.dead")] == ["task-0001"]
    [told] = await received(core)
    body = json.loads(told.body)
    assert (told.kind, told.sender, told.ack_for) == ("result", ROUTER, "task-0001")
    assert (body["status"], body["reason"], body["task"]) == ("failed", "Unresponsive", "s1/work")
    assert await received(athena) == [], "a dead task is taken back from the inbox"
    await world.miss_acks()
    assert len(await world.recorded("bus.dead")) == 1


async def test_resends_carry_the_same_request_id_and_a_late_ack_ends_them(world: Any, message: Any) -> None:
    core, athena = await world.join("core"), await world.join("athena")
    await core.send(message("core", "athena", "task", "task-0001"))
    await world.settle()
    await world.miss_acks()
    copies = await received(athena)
    assert [(each.request_id, each.attempt) for each in copies] == [("task-0001", 1), ("task-0001", 2)]
    await athena.send(message("athena", "core", "ack", "ack-00001", ack_for="task-0001"))
    await world.settle()
    await world.miss_acks()
    assert len(await world.recorded("bus.resent")) == 1
    assert await world.recorded("bus.dead") == []


async def test_nobody_acknowledges_for_somebody_else(world: Any, message: Any) -> None:
    core, _athena, hermes = [await world.join(each) for each in ("core", "athena", "hermes")]
    await core.send(message("core", "athena", "task", "task-0001"))
    await world.settle()
    await hermes.send(message("hermes", "core", "ack", "ack-00001", ack_for="task-0001"))
    await world.settle()
    assert [each["reason"] for each in await world.recorded("bus.refused")] == ["ForeignAck"]
    await world.miss_acks()
    assert len(await world.recorded("bus.resent")) == 1


async def test_refusals_are_on_record_and_deliver_nothing(world: Any, message: Any, make_key: Any) -> None:
    key = make_key()
    core, hermes = await world.join("core"), await world.join("hermes")
    athena = await world.join("athena", key=key)
    good = message("athena", "core", "heartbeat", "beat-0001")
    await world.post("athena", good)  # unsigned
    await world.post("athena", make_key().sign(good))
    await world.post("hermes", key.sign(good))
    await athena.send(message("athena", "core", "heartbeat", "beat-0002").model_copy(update={"tenant": "other"}))
    await athena.send(message("athena", "hermes", "task", "beat-0003"))
    await athena.send(message("athena", "nobody", "ack", "beat-0004"))
    await world.post("athena", key.sign(good).model_copy(update={"body": '{"altered": true}'}))
    await world.settle()
    reasons = [each["reason"] for each in await world.recorded("bus.refused")]
    assert sorted(reasons) == sorted(
        ["BadSignature", "BadSignature", "ForeignSender", "ForeignTenant", "NotAllowed", "UnknownRecipient", "BadSignature"]
    )
    assert await received(core) == []
    assert await received(hermes) == []


async def test_the_core_hears_that_its_task_was_refused(world: Any, message: Any) -> None:
    core = await world.join("core")
    await core.send(message("core", "nobody", "task", "task-0001"))
    await world.settle()
    [told] = await received(core)
    assert (told.ack_for, json.loads(told.body)["reason"]) == ("task-0001", "UnknownRecipient")
