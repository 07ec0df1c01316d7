"""The sockets' protocol under requests that come together, in pieces, too large, too slow, broken, or while it shuts down.

Real sockets and a real log, whose syncs a test may hold back. What must hold whatever is sent: the server goes on, and a receipt
means that the entry is durable.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvicorn
from quick_os import QuickOs
from uvicorn.server import ServerState

from folkmoot_core.entries import Actor, new_entry
from folkmoot_runtime import web
from folkmoot_runtime.ledger.app import Doors
from folkmoot_runtime.ledger.log import Log, Options, open_log
from folkmoot_runtime.ledger.peers import CONDUCTOR, Socket
from folkmoot_runtime.ledger.protocol import LONGEST_HEAD, PeerProtocol, protocol
from folkmoot_runtime.ledger.segments import SMALLEST_SEGMENT
from folkmoot_runtime.trust import Trust

CASES = 1500
RECEIPT = re.compile(rb'\{"index":(\d+),"leaf":"([0-9a-f]{64})"')


class HeldOs(QuickOs):
    """A disk whose syncs wait while `go` is not set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()

    def fdatasync(self, fd: int) -> None:
        self.go.wait()


class World:
    """A log behind one socket."""

    def __init__(self, directory: Path, log: Log, disk: HeldOs) -> None:
        self.log, self.disk = log, disk
        self.path = directory / "socket"
        self.state = ServerState()
        self.failures: list[object] = []
        doors = Doors(Trust(directory, "folkmoot-acme"))
        doors.ledger = log
        socket = Socket(self.path, {os.getuid(): CONDUCTOR})
        self.kind = protocol(lambda body, uid: doors.begin(body, socket.of(uid)))
        self.config = uvicorn.Config(
            doors.unix(socket), lifespan="off", log_config=None, access_log=False, server_header=False, proxy_headers=False,
            http=self.kind,
        )  # fmt: skip
        self.config.load()

    def connection(self) -> PeerProtocol:
        return self.kind(config=self.config, server_state=self.state, app_state={})

    def shut_down(self) -> None:
        """What uvicorn does to each connection when it is asked to stop."""
        for one in list(self.state.connections):
            one.shutdown()

    async def send(self, *parts: bytes, eof: bool = False) -> bytes:
        """All that is answered to these bytes until the other side closes; with `eof` it is told that there is no more."""
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            if eof:
                writer.write_eof()
            return await reader.read()
        except (BrokenPipeError, ConnectionResetError):  # it closed while we were sending
            return b""
        finally:
            writer.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    disk = HeldOs()
    log = await open_log(
        tmp_path / "log", Options(tenant="acme", first_segment=SMALLEST_SEGMENT, checkpoint_interval=3600.0, calls=disk)
    )
    made = World(tmp_path, log, disk)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: made.failures.append(context))
    server = await loop.create_unix_server(made.connection, str(made.path))
    yield made
    disk.go.set()
    server.close()
    await log.aclose()
    assert made.failures == []


def fact(name: str, size: int = 10) -> bytes:
    entry = new_entry(
        "session.start", Actor(kind="service", id="conductor"), id=f"request-{name}", data={"pad": "x" * size}, now=1.0
    )
    return entry.model_dump_json().encode()


def post(body: bytes, *headers: str, target: str = "/v1/entries") -> bytes:
    lines = [f"POST {target} HTTP/1.1", "host: ledger", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: ledger", *headers, "", ""]).encode()


def answers(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers and body of each answer."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", "0"))
        found.append((int(status.split(" ")[1]), headers, data[:length]))
        data = data[length:]
    return found


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


# -- several requests ---------------------------------------------------------------------------------------------------


async def test_one_connection_serves_append_after_append(world: World) -> None:
    reader, writer = await asyncio.open_unix_connection(str(world.path))
    for number in range(1, 4):
        writer.write(post(fact(str(number))))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        assert b"connection: close" not in head
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length))["index"] == number
    writer.close()


async def test_what_is_sent_behind_an_append_is_not_read_and_its_answer_closes(world: World) -> None:
    world.disk.go.clear()
    asked = asyncio.create_task(world.send(post(fact("one")) + post(fact("two")), get("/checkpoint")))
    await until(lambda: len(world.state.connections) == 1)
    world.disk.go.set()
    ((status, headers, body),) = answers(await asked)
    assert (status, headers["connection"], json.loads(body)["index"]) == (200, "close", 1)
    assert world.log.size == 2


async def test_an_append_behind_another_request_is_answered_after_it(world: World) -> None:
    data = await world.send(get("/log.vkey") + post(fact("one"), "connection: close"))

    first, second = answers(data)
    assert first[2].decode().strip() == world.log.vkey
    assert (second[0], json.loads(second[2])["index"]) == (200, 1)


async def test_nonsense_behind_an_append_takes_nothing_from_its_receipt(world: World) -> None:
    world.disk.go.clear()
    asked = asyncio.create_task(world.send(post(fact("one")), b"\x00\xff nonsense\r\n\r\n"))
    await until(lambda: any(one._last for one in world.state.connections))  # type: ignore[attr-defined]
    world.disk.go.set()
    ((status, headers, body),) = answers(await asked)
    assert (status, headers["connection"], json.loads(body)["index"]) == (200, "close", 1)


async def test_a_client_that_says_that_it_sends_no_more_gets_its_receipt(world: World) -> None:
    world.disk.go.clear()
    asked = asyncio.create_task(world.send(post(fact("one")), eof=True))
    await until(lambda: any(one._last for one in world.state.connections))  # type: ignore[attr-defined]
    world.disk.go.set()
    ((status, _, body),) = answers(await asked)
    assert (status, json.loads(body)["index"]) == (200, 1)


# -- sizes and times ----------------------------------------------------------------------------------------------------


async def test_a_body_that_comes_byte_by_byte_is_an_append(world: World) -> None:
    request = post(fact("one"), "connection: close")
    ((status, _, body),) = answers(await world.send(*(request[i : i + 1] for i in range(len(request)))))
    assert (status, json.loads(body)["index"]) == (200, 1)


async def test_a_chunked_body_is_an_append(world: World) -> None:
    body = fact("one")
    head = b"POST /v1/entries HTTP/1.1\r\nhost: ledger\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = [b"%x\r\n%b\r\n" % (len(body[i : i + 50]), body[i : i + 50]) for i in range(0, len(body), 50)]
    reader, writer = await asyncio.open_unix_connection(str(world.path))
    writer.write(head + b"".join(pieces) + b"0\r\n\r\n")
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    writer.close()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_beyond_the_bound_is_refused_and_nothing_of_it_recorded(world: World, chunked: bool) -> None:
    body = fact("one") + b" " * web.MAX_BODY
    if chunked:
        head = b"POST /v1/entries HTTP/1.1\r\nhost: ledger\r\ntransfer-encoding: chunked\r\n\r\n"
        request = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        request = post(body)
    reader, writer = await asyncio.open_unix_connection(str(world.path))
    writer.write(request + post(fact("two")))
    ((status, headers, answer),) = answers(await reader.read())
    assert (status, headers["connection"], json.loads(answer)["type"]) == (429, "close", "BodyTooLarge")
    assert world.log.size == 1
    writer.close()


@pytest.mark.parametrize("piece", [b"x" * 1000, b"x-header: " + b"y" * 990 + b"\r\n"])
async def test_a_head_without_end_is_refused(world: World, piece: bytes) -> None:
    start = b"POST /v1/" if piece.startswith(b"xx") else b"GET /checkpoint HTTP/1.1\r\n"
    data = await world.send(start, *([piece] * (LONGEST_HEAD // 1000 + 20)))
    assert [(status, json.loads(body)["type"]) for status, _, body in answers(data)] in ([(429, "HeadTooLarge")], [])
    await until(lambda: not world.state.connections)
    assert world.log.size == 1


@pytest.mark.parametrize(
    "sent", [b"POST /v1/ent", post(fact("one"))[:-5], post(fact("one"), target="/v1/entries?wait=checkpoint")[:-5]]
)
async def test_a_request_that_does_not_end_is_given_up(world: World, sent: bytes) -> None:
    world.kind.request_seconds = 0.01
    reader, writer = await asyncio.open_unix_connection(str(world.path))
    writer.write(sent)
    data = await reader.read()  # until it closes
    if b"wait=" not in sent:  # there, an application was asked already
        ((status, headers, answer),) = answers(data)
        assert (status, headers["connection"], json.loads(answer)["type"]) == (429, "close", "RequestTooSlow")
    assert world.log.size == 1
    writer.close()


async def test_patience_ends_with_the_request(world: World) -> None:
    request = post(fact("one"))
    reader, writer = await asyncio.open_unix_connection(str(world.path))
    writer.write(request[:40])
    await until(lambda: any(one._patience for one in world.state.connections))  # type: ignore[attr-defined]
    writer.write(request[40:])
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    assert not any(one._patience for one in world.state.connections)  # type: ignore[attr-defined]
    writer.close()


# -- shutting down ------------------------------------------------------------------------------------------------------


async def test_an_append_in_flight_is_answered_before_the_connection_closes(world: World) -> None:
    world.disk.go.clear()
    reader, writer = await asyncio.open_unix_connection(str(world.path))
    writer.write(post(fact("one")))
    await until(lambda: any(one._answering for one in world.state.connections))  # type: ignore[attr-defined]
    world.shut_down()
    world.disk.go.set()
    ((status, headers, body),) = answers(await reader.read())
    assert (status, headers["connection"], json.loads(body)["index"]) == (200, "close", 1)
    writer.close()


@pytest.mark.parametrize("sent", [b"", b"POST /v1/ent", post(fact("one"))[:-1]])
async def test_what_is_not_complete_is_not_answered_and_not_recorded(world: World, sent: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(str(world.path))
    writer.write(sent)
    await until(lambda: any(one._reading or not sent for one in world.state.connections))  # type: ignore[attr-defined]
    world.shut_down()
    assert await reader.read() == b""
    assert world.log.size == 1
    writer.close()


async def test_a_client_that_leaves_disturbs_nobody(world: World) -> None:
    world.disk.go.clear()
    _, writer = await asyncio.open_unix_connection(str(world.path))
    writer.write(post(fact("one")))
    await until(lambda: any(one._answering for one in world.state.connections))  # type: ignore[attr-defined]
    writer.transport.abort()
    await until(lambda: any(one._last for one in world.state.connections))  # type: ignore[attr-defined]
    world.disk.go.set()
    await until(lambda: not world.state.connections)
    ((status, _, body),) = answers(await world.send(post(fact("one"), "connection: close")))
    assert (status, json.loads(body)["index"]) == (200, 1)


# -- broken requests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
        b"nonsense\r\n\r\n",
        b"POST /v1/entries HTTP/9.9\r\n\r\n",
        b"POST /v1/entries HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST /v1/entries HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/entries HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        b"POST /v1/entries HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/entries HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/entries HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST http://[::bad HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
async def test_broken_requests_are_refused_and_close(world: World, sent: bytes) -> None:
    data = await world.send(sent, eof=True)
    assert all(status >= 400 for status, _, _ in answers(data))
    await until(lambda: not world.state.connections)
    assert world.log.size == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"entries":[]}', b"\xff\xfe", b"null", b"1e999", b'{"entries":[{}]}'])
async def test_bodies_that_are_no_entries_are_refused_and_the_connection_goes_on(world: World, body: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(str(world.path))
    writer.write(post(body))
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 400 " in head
    await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
    writer.write(post(fact("one")))
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    writer.close()


def changed(rng: random.Random, data: bytes) -> bytes:
    """A request as it was not meant."""
    made = bytearray(data)
    for _ in range(rng.choice([0, 0, 0, 1, 1, 8])):
        at = rng.randrange(len(made))
        match rng.randrange(4):
            case 0:
                made[at] ^= 1 << rng.randrange(8)
            case 1:
                del made[at : at + rng.randrange(1, 30)]
            case 2:
                made[at:at] = rng.randbytes(rng.randrange(1, 20))
            case _:
                made[at:at] = rng.choice([b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"\0", b"content-length: 3\r\n", b"HTTP/1.1"])
        if not made:
            return b"x"
    return bytes(made)


def requests(rng: random.Random, case: int) -> bytes:
    """A few requests after one another, some of them broken."""
    parts = []
    for number in range(rng.randrange(1, 4)):
        name = f"{case}-{number}" if rng.random() < 0.8 else "the-same"
        body = fact(name, rng.randrange(2000))
        kind = rng.choice([*[post(body)] * 5, post(body, "connection: close"), post(body, target="/v1/entries?x=1"),
                           post(body, "expect: 100-continue"), post(body, "connection: upgrade", "upgrade: websocket"),
                           get("/checkpoint"), get("/tile/0/000.p/1"), post(b"{}", target="/v1/close2")])  # fmt: skip
        parts.append(changed(rng, kind))
    return b"".join(parts)


def held(world: World, data: bytes) -> int:
    """How many receipts there are in these answers; each is of an entry that is durable."""
    found = RECEIPT.findall(data)
    for index, leaf in found:
        assert int(index) < world.log._volume.wal.size  # which grows behind the sync
        assert world.log._sequence.rows.leaf(int(index)).hex() == leaf.decode()
    return len(found)


async def test_what_follows_heads_that_are_remembered_is_read_as_it_is(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The same head again and again, so that it is not parsed any more, and then one that is not quite it."""
    receipts = 0
    for case in range(CASES // 3):
        rng = random.Random(case)
        reader, writer = await asyncio.open_unix_connection(str(world.path))
        for number in range(2):
            writer.write(post(fact(f"{case:06d}-{number}", 100)))
            head = await reader.readuntil(b"\r\n\r\n")
            assert held(world, await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))) == 1
        before = world.log.size
        whole = post(fact(f"{case:06d}-2", 100))
        sent = changed(rng, whole)
        cut = rng.randrange(len(sent) + 1)
        for part in (sent[:cut], sent[cut:]) if rng.random() < 0.5 else (sent,):
            writer.write(part)
            await asyncio.sleep(0)
        writer.write_eof()
        found = held(world, await reader.read())
        receipts += found
        assert world.log.size - before >= found
        if sent == whole:
            assert found == 1
        writer.close()
    assert receipts > CASES // 10
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_whatever_is_sent_the_server_goes_on_and_a_receipt_is_a_durable_entry(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    receipts = 0
    for case in range(CASES):
        rng = random.Random(case)
        sent = requests(rng, case)
        cuts = sorted(rng.randrange(len(sent) + 1) for _ in range(rng.randrange(4)))
        data = await asyncio.wait_for(
            world.send(*(sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)), eof=True), timeout=20
        )
        receipts += held(world, data)
    assert receipts > CASES // 10
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not world.log.stopped.is_set()
    ((status, _, _),) = answers(await world.send(post(fact("at-the-end"), "connection: close")))
    assert status == 200
