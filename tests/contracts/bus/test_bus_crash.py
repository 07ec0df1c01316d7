"""Kills: of Valkey under writers, of the router between any two steps, of agents. What was acknowledged survives, once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from folkmoot_core import names, routing
from folkmoot_core.errors import Unavailable
from folkmoot_runtime.bus.accounts import LIFETIME, Accounts

pytestmark = pytest.mark.contract


async def test_acknowledged_writes_survive_sigkill_of_the_server(valkey: Any, message: Any) -> None:
    writers = [await valkey.join("athena", f"pod-{number}") for number in range(4)]
    acknowledged: set[str] = set()
    enough = asyncio.Event()

    async def write(number: int) -> None:
        for count in range(10_000):
            request_id = f"w{number}-{count:06d}"
            await writers[number].send(message("athena", "core", "heartbeat", request_id))
            acknowledged.add(request_id)
            if len(acknowledged) > 200:
                enough.set()

    tasks = [asyncio.create_task(write(number)) for number in range(4)]
    await enough.wait()
    await valkey.server.kill()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await valkey.server.start()
    await valkey.restart_router()
    stored = {fields["request_id"] for _, fields in await valkey.redis.xrange(names.outbox_key("acme", "athena"))}
    assert acknowledged <= stored


async def test_clients_come_back_by_themselves_after_a_server_restart(valkey: Any, message: Any) -> None:
    core, athena = await valkey.join("core"), await valkey.join("athena")
    await core.send(message("core", "athena", "task", "task-0001"))
    await valkey.settle()
    [delivery] = await athena.receive(0.01)
    await valkey.server.kill()
    with pytest.raises(Unavailable):
        await athena.receive(0.01)
    await valkey.server.start()
    await valkey.restart_router()
    granted = valkey.granting["athena", "0"].granted
    await athena.send(message("athena", "core", "result", "result-0001", ack_for="task-0001"))
    assert valkey.granting["athena", "0"].granted > granted, "the restarted server knew no agent's password"
    assert await athena.receive(0.01) == [], "what is in hand is not handed out again"
    await athena.done(delivery.id)
    await valkey.settle()
    assert [each.envelope.kind for each in await core.receive(0.01)] == ["result"]


async def test_an_expired_password_is_replaced_without_loss(valkey: Any, message: Any) -> None:
    athena, core = await valkey.join("athena"), await valkey.join("core")
    await valkey.accounts.remove("athena")
    await athena.send(message("athena", "core", "heartbeat", "beat-0001"))
    await valkey.settle()
    assert len(await core.receive(0.01)) == 1


async def test_passwords_per_pod_are_bounded_and_expire(valkey: Any, make_key: Any) -> None:
    now = [1000.0]
    accounts = Accounts(valkey.redis, "acme", clock=lambda: now[0])
    for pod in ("a", "a", "a", "a", "a", "a", "b"):
        await accounts.grant("hermes", pod, make_key().public)
    assert len((await valkey.redis.acl_getuser("agent-hermes"))["passwords"]) == 4 + 1
    assert len(accounts.keys("hermes", 0)) == 7
    now[0] += LIFETIME + 1
    await accounts.expire()
    assert await valkey.redis.acl_getuser("agent-hermes") is None
    assert accounts.keys("hermes", int(now[0] * 1000)) == ()
    assert len(accounts.keys("hermes", 1_000_000)) == 7, "signed in time, looked at late"


async def test_a_router_killed_before_it_settled_settles_after_its_restart(valkey: Any, message: Any) -> None:
    core, athena = await valkey.join("core"), await valkey.join("athena")
    for number in range(5):
        await core.send(message("core", "athena", "task", f"task-000{number}"))
    outbox = names.outbox_key("acme", "core")
    taken = await valkey.redis.xreadgroup("router", "router", {outbox: ">"}, count=3)  # read, and then the kill
    assert len(taken[0][1]) == 3
    await valkey.restart_router()
    await valkey.settle()
    assert sorted(each.envelope.request_id for each in await athena.receive(0.01)) == [f"task-000{n}" for n in range(5)]
    assert await valkey.redis.xlen(outbox) == 0


async def test_a_restarted_router_knows_the_keys_and_the_deadlines(valkey: Any, message: Any) -> None:
    core, athena = await valkey.join("core"), await valkey.join("athena")
    await core.send(message("core", "athena", "task", "task-0001"))
    await valkey.settle()
    await athena.receive(0.01)
    await athena.send(message("athena", "core", "heartbeat", "beat-0001"))
    await valkey.restart_router()
    await valkey.settle()
    assert [each.envelope.kind for each in await core.receive(0.01)] == ["heartbeat"]
    await valkey.miss_acks()
    assert len(await valkey.recorded("bus.resent")) == 1


async def test_a_record_is_paid_once_though_the_router_dies_in_between(valkey: Any, message: Any) -> None:
    await valkey.post("athena", message("athena", "core", "heartbeat", "beat-0001"))
    await valkey.settle()
    key = names.record_key("acme")
    [(note_id, fields)] = await valkey.redis.xrange(key)
    assert len(await valkey.recorded("bus.refused")) == 1
    await valkey.redis.xadd(key, fields, id=f"{int(note_id.split('-')[0])}-{int(note_id.split('-')[1]) + 1}")
    assert len(await valkey.recorded("bus.refused")) == 2
    assert await valkey.redis.xlen(key) == 0


async def test_a_dead_pods_work_is_taken_over_and_a_live_ones_is_not(valkey: Any, message: Any) -> None:
    core = await valkey.join("core")
    dead, live = await valkey.join("athena", "dead"), await valkey.join("athena", "live")
    await core.send(message("core", "athena", "task", "task-0001"))
    await valkey.settle()
    [mine] = await dead.receive(0.01)
    inbox = names.inbox_key("acme", "athena")
    assert await live.receive(0.01) == []
    await valkey.redis.xclaim(inbox, "participant", "dead", 0, [mine.id], idle=61_000, justid=True)
    await dead.alive()  # it lives after all: the delivery is renewed
    live._took_over = -1e9
    assert await live.receive(0.01) == []
    await valkey.redis.xclaim(inbox, "participant", "dead", 0, [mine.id], idle=61_000, justid=True)
    live._took_over = -1e9
    [taken] = await live.receive(0.01)
    assert taken.id == mine.id
    await dead.alive()  # wakes up late: it must not steal the delivery back
    [pending] = await valkey.redis.xpending_range(inbox, "participant", "-", "+", 10)
    assert pending["consumer"] == "live"


async def test_a_message_that_kills_its_readers_is_buried(valkey: Any, message: Any) -> None:
    core = await valkey.join("core")
    await core.send(message("core", "athena", "task", "task-0001"))
    await valkey.settle()
    for _ in range(routing.MAX_HANDOUTS + 1):
        reader = await valkey.join("athena", "unlucky")
        assert len(await reader.receive(0.01)) == 1
    await valkey.upkeep.once()
    [dead] = await valkey.recorded("bus.dead")
    assert dead["reason"] == "Poison"
    assert "Poison" in (await core.receive(0.01))[0].envelope.body
    assert await (await valkey.join("athena", "unlucky")).receive(0.01) == []


async def test_read_messages_are_trimmed_and_unread_ones_never(valkey: Any, message: Any) -> None:
    core, athena = await valkey.join("core"), await valkey.join("athena")
    inbox = names.inbox_key("acme", "athena")
    for number in range(4):
        await core.send(message("core", "athena", "task", f"task-000{number}"))
    await valkey.settle()
    first, second, *_ = await athena.receive(0.01)
    await athena.done(second.id)
    await valkey.upkeep.once()
    assert await valkey.redis.xlen(inbox) == 4, "the oldest is still in hand"
    await athena.done(first.id)
    await valkey.upkeep.once()
    assert await valkey.redis.xlen(inbox) == 2
    await core.send(message("core", "athena", "task", "task-0009"))
    await valkey.settle()
    await valkey.upkeep.once()
    assert await valkey.redis.xlen(inbox) == 3
