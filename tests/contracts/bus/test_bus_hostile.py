"""What a hostile agent with a good password can do on a real Valkey: harm its own queues, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from folkmoot_core import names
from folkmoot_runtime.bus import router
from folkmoot_runtime.bus.connection import AuthenticationError, NoPermissionError, RedisConnectionError, connect

pytestmark = [pytest.mark.contract]
T = "acme"
INBOX, OUTBOX = names.inbox_key(T, "athena"), names.outbox_key(T, "athena")
PEER_IN, PEER_OUT = names.inbox_key(T, "hermes"), names.outbox_key(T, "hermes")
FORBIDDEN = [
    ("XADD", PEER_IN, "*", "a", "1"),
    ("XADD", PEER_IN, "MAXLEN", "0", "*", "a", "1"),
    ("XADD", PEER_IN, "18446744073709551615-18446744073709551615", "a", "1"),
    ("XADD", PEER_OUT, "*", "a", "1"),
    ("XADD", INBOX, "*", "a", "1"),
    ("XADD", names.inbox_key(T, "core"), "*", "a", "1"),
    ("XADD", names.inbox_key("other", "athena"), "*", "a", "1"),
    ("XREADGROUP", "GROUP", "participant", "x", "STREAMS", PEER_IN, ">"),
    ("XREADGROUP", "GROUP", "router", "router", "STREAMS", OUTBOX, ">"),
    ("XREAD", "STREAMS", PEER_IN, "0"),
    ("XRANGE", INBOX, "-", "+"),
    ("XACK", PEER_IN, "participant", "1-1"),
    ("XACK", OUTBOX, "router", "1-1"),
    ("XCLAIM", PEER_IN, "participant", "x", "0", "1-1"),
    ("XAUTOCLAIM", PEER_IN, "participant", "x", "0", "0-0"),
    ("XPENDING", PEER_IN, "participant"),
    ("XDEL", INBOX, "1-1"),
    ("XTRIM", OUTBOX, "MAXLEN", "0"),
    ("XGROUP", "DESTROY", INBOX, "participant"),
    ("XINFO", "STREAM", PEER_IN),
    ("DEL", PEER_IN),
    ("SET", names.alive_key(T, "hermes"), "x"),
    ("SET", PEER_IN, "x"),
    ("SET", INBOX, "x"),
    ("GET", names.alive_key(T, "athena")),
    ("HGETALL", names.keys_key(T)),
    ("ZADD", names.seen_key(T), "1", "core/task-0001"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "dir", "/data"),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("SCRIPT", "FLUSH"),
    ("EVAL", "return 1", "0"),
    ("FUNCTION", "LIST"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "agent-athena", "+@all"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "USER", "agent-hermes"),
    ("MONITOR",),
    ("SHUTDOWN",),
    ("REPLICAOF", "10.0.0.1", "6379"),
    ("MODULE", "LIST"),
    ("PUBLISH", "x", "y"),
    ("SUBSCRIBE", "x"),
    ("MULTI",),
    ("INFO",),
    ("SORT", PEER_IN),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("command", FORBIDDEN, ids=lambda each: " ".join(each)[:60])
async def test_refused(shared_hostile: Any, command: tuple[str, ...]) -> None:
    with pytest.raises(NoPermissionError):
        await shared_hostile.execute_command(*command)


@pytest.mark.asyncio(loop_scope="module")
async def test_allowed_is_what_the_client_needs(shared_hostile: Any) -> None:
    assert await shared_hostile.ping()
    await shared_hostile.xadd(OUTBOX, {"a": "1"})
    assert await shared_hostile.xreadgroup("participant", "x", {INBOX: ">"}) == []
    await shared_hostile.set(names.alive_key(T, "athena"), "x", ex=30)


async def test_without_a_password_nothing_answers(valkey: Any) -> None:
    from redis.asyncio import Redis  # the test speaks the raw protocol on purpose

    anonymous = Redis(unix_socket_path=str(valkey.server.paths.socket), protocol=2, driver_info=None)
    with pytest.raises(AuthenticationError):
        await anonymous.ping()
    await anonymous.aclose()


async def test_rubbish_in_the_own_outbox_is_refused_and_forgotten(valkey: Any, message: Any) -> None:
    hostile = connect(valkey.server.url, await valkey.login_of("athena"))
    core = await valkey.join("core")
    hermes = await valkey.join("hermes")
    deep = "[" * 5000
    for fields in (
        {"a": "1"},
        {**message("athena", "core", "ack", "ack-00001").to_fields(), "created_ms": "9" * 30},
        {"v": deep},
    ):
        await hostile.xadd(OUTBOX, fields)
    await hermes.send(message("hermes", "core", "heartbeat", "beat-0001"))
    await valkey.settle()
    assert [each["reason"] for each in await valkey.recorded("bus.refused")] == ["Malformed"] * 3
    assert [each.envelope.sender for each in await core.receive(0.01)] == ["hermes"]
    assert await valkey.redis.xlen(OUTBOX) == 0
    await hostile.aclose()


async def test_a_flooding_agent_loses_its_user_and_harms_nobody(valkey: Any, message: Any) -> None:
    hostile = connect(valkey.server.url, await valkey.login_of("athena"))
    pipeline = hostile.pipeline(transaction=False)
    for _ in range(router.MAX_OUTBOX + 1):
        pipeline.xadd(OUTBOX, {"a": "1"})
    await pipeline.execute()
    await valkey.upkeep.once()
    with pytest.raises((AuthenticationError, RedisConnectionError)):
        await hostile.xadd(OUTBOX, {"a": "1"})
    assert [each["reason"] for each in await valkey.recorded("bus.refused")] == ["Flooded"]
    assert await valkey.redis.xlen(OUTBOX) == 0
    core, hermes = await valkey.join("core"), await valkey.join("hermes")
    await hermes.send(message("hermes", "core", "heartbeat", "beat-0001"))
    await valkey.settle()
    assert len(await core.receive(0.01)) == 1
    await hostile.aclose()


async def test_one_message_too_large_to_hold_is_never_read(valkey: Any) -> None:
    hostile = connect(valkey.server.url, await valkey.login_of("athena"))
    await hostile.xadd(OUTBOX, {f"f{number}": "x" * 1_000_000 for number in range(35)})
    assert await valkey.router.step(1) == 0
    assert [each["reason"] for each in await valkey.recorded("bus.refused")] == ["Flooded"]
    await hostile.aclose()


async def test_bytes_that_are_no_text_are_refused_like_any_rubbish(valkey: Any, message: Any) -> None:
    hostile = connect(valkey.server.url, await valkey.login_of("athena"))
    await hostile.xadd(OUTBOX, {b"\xff\xfe": b"\xff", "request_id": b"\xf0\x28"})
    await hostile.xadd(OUTBOX, {**message("athena", "core", "heartbeat", "beat-0001").to_fields(), "body": b'{"a": "\xff"}'})
    await valkey.settle()
    assert [each["reason"] for each in await valkey.recorded("bus.refused")] == ["Malformed", "BadSignature"]
    await hostile.aclose()


async def test_an_agent_that_left_the_document_is_disconnected(valkey: Any, make_document: Any) -> None:
    gone = connect(valkey.server.url, await valkey.login_of("athena"))
    await gone.ping()
    valkey.directory.replace(make_document("hermes"))
    await valkey.upkeep.once()
    with pytest.raises((AuthenticationError, RedisConnectionError)):
        await gone.ping()
    await gone.aclose()


async def test_an_agent_that_moves_its_own_group_to_the_end_of_time_stops_no_upkeep(valkey: Any, message: Any) -> None:
    hostile = connect(valkey.server.url, await valkey.login_of("athena"))
    end = "18446744073709551615-18446744073709551615"
    await hostile.execute_command("XCLAIM", INBOX, "participant", "x", "0", "1-1", "LASTID", end)
    hermes = await valkey.join("hermes")
    core = await valkey.join("core")
    await core.send(message("core", "hermes", "cancel", "cancel-001"))
    await valkey.settle()
    (delivery,) = await hermes.receive(0.01)
    await hermes.done(delivery.id)
    await valkey.upkeep.once()
    assert await valkey.redis.xlen(PEER_IN) == 0  # comes after athena
    await hostile.aclose()


async def test_consumers_without_number_cost_their_agent_its_user(valkey: Any, message: Any) -> None:
    hostile = connect(valkey.server.url, await valkey.login_of("athena"))
    for number in range(70):
        await hostile.xreadgroup("participant", f"{number}" + "x" * 900_000, {INBOX: ">"})
    assert int((await valkey.redis.info("memory"))["used_memory"]) > 60_000_000
    await valkey.upkeep.once()
    with pytest.raises((AuthenticationError, RedisConnectionError)):
        await hostile.ping()
    assert [each["reason"] for each in await valkey.recorded("bus.refused")] == ["Flooded"]
    assert int((await valkey.redis.info("memory"))["used_memory"]) < 30_000_000
    await hostile.aclose()
