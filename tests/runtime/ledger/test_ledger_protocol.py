"""HTTP on the Unix socket, byte by byte: what the parser said of a head holds for the same bytes alone, and changes no answer."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from folkmoot_core.entries import Actor, new_entry
from folkmoot_runtime import web
from folkmoot_runtime.ledger.app import Doors
from folkmoot_runtime.ledger.log import Options, open_log
from folkmoot_runtime.ledger.peers import CONDUCTOR, Socket
from folkmoot_runtime.ledger.protocol import MAX_HEADS, PeerProtocol, protocol
from folkmoot_runtime.ledger.twin import MemoryLog
from folkmoot_runtime.trust import Trust

HEAD = "POST /v1/entries HTTP/1.1\r\nHost: ledger\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
OTHER = "POST /v1/entries HTTP/1.1\r\nhost: l\r\nContent-Length: {}\r\nX-More: 1\r\n\r\n"


def body(number: int) -> bytes:
    request = new_entry("session.start", Actor(kind="service", id="conductor"), id=f"request-{number:06d}", data={}, now=1.0)
    return request.model_dump_json().encode()


def plain(number: int, head: str = HEAD) -> bytes:
    return head.format(len(body(number))).encode() + body(number)


def chunked(number: int) -> bytes:
    data = body(number)
    head = b"POST /v1/entries HTTP/1.1\r\nHost: ledger\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)


@dataclass
class Door:
    """A socket, and what became of its connections."""

    path: Path
    doors: Doors
    log: MemoryLog
    parsed: int = 0
    connections: list[PeerProtocol] = field(default_factory=list)
    opened: list[Connection] = field(default_factory=list)

    async def connect(self) -> Connection:
        while True:
            try:
                self.opened.append(Connection(*await asyncio.open_unix_connection(str(self.path))))
                return self.opened[-1]
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(0.01)


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, *parts: bytes) -> tuple[int, dict[str, Any], bool]:
        """Status, answer, and whether the connection stays."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            for _ in range(5):  # turns of the loop, in which the other side reads it
                await asyncio.sleep(0)
        return await self.answer()

    async def answer(self) -> tuple[int, dict[str, Any], bool]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        found = await self.reader.readexactly(length)
        return int(head.split(" ")[1]), json.loads(found), "connection: close" not in head


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    doors = Doors(Trust(tmp_path, "folkmoot-acme"))
    doors.ledger = log = MemoryLog("acme")
    socket = Socket(tmp_path / "s", {os.getuid(): CONDUCTOR})
    made = Door(socket.path, doors, log)

    class Watched(protocol(lambda data, uid: doors.begin(data, socket.of(uid)))):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            made.connections.append(self)

        def on_url(self, url: bytes) -> None:
            made.parsed += 1
            super().on_url(url)

    server = asyncio.create_task(web.serve(doors.unix(socket), uds=str(socket.path), http=Watched, proxy_headers=False))
    yield made
    for connection in made.opened:
        connection.writer.close()
        await asyncio.gather(connection.writer.wait_closed(), return_exceptions=True)
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)


async def test_the_same_head_is_parsed_once_on_each_connection(door: Door) -> None:
    for connection in (await door.connect(), await door.connect()):
        before = door.parsed
        indexes = [(await connection.ask(plain(10 * before + number)))[1]["index"] for number in range(5)]
        assert indexes == list(range(indexes[0], indexes[0] + 5))
        assert door.parsed == before + 1


async def test_another_length_another_head_and_a_part_of_a_body_are_parsed(door: Door) -> None:
    connection = await door.connect()
    await connection.ask(plain(1))
    whole = plain(2)
    for parts in ((plain(3, OTHER),), (whole[:-1], whole[-1:]), (chunked(4),), (HEAD.format(2).encode() + b"{}",)):
        before = door.parsed
        await connection.ask(*parts)
        assert door.parsed == before + 1
    assert door.log.size == 1 + 4


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_the_order_and_the_cuts_the_answers_are_the_same(door: Door, seed: int) -> None:
    rng = random.Random(seed)
    connection = await door.connect()
    expected = 1
    for number in range(60):
        kind = rng.choice(["plain", "plain", "plain", "other", "chunked", "wrong", "again", "read", "close"])
        data = {
            "plain": plain(number), "other": plain(number, OTHER), "chunked": chunked(number),
            "wrong": HEAD.format(len(body(number))).encode() + b"{" * len(body(number)),
            "again": plain(0), "read": b"GET /log.vkey HTTP/1.1\r\nHost: ledger\r\n\r\n",
            "close": plain(number, HEAD.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")),
        }[kind]  # fmt: skip
        if kind == "read":
            connection.writer.write(data)
            assert b"200 OK" in await connection.reader.readuntil(b"\r\n\r\n")
            await connection.reader.readline()
            continue
        cut = rng.randrange(len(data))
        status, answer, _ = await connection.ask(*([data] if rng.random() < 0.6 else [data[:cut], data[cut:]]))
        if kind == "wrong":
            assert (status, answer["type"]) == (400, "Invalid")
        elif kind == "again" and answer["duplicate"]:
            assert status == 200
        else:
            assert (status, answer["index"]) == (200, expected)
            expected += 1
        if kind == "close":
            assert await connection.reader.read() == b""
            connection = await door.connect()
    assert door.log.size == expected


async def test_who_does_not_wait_for_the_answer_is_answered_once(door: Door, tmp_path: Path) -> None:
    door.doors.ledger = log = await open_log(tmp_path / "log", Options())  # whose entries are durable a little later
    connection = await door.connect()
    for number in (1, 2):
        assert (await connection.ask(plain(number)))[2]
    status, answer, stays = await connection.ask(plain(3) + plain(4))
    assert (status, answer["index"], stays) == (200, 3, False)
    assert await connection.reader.read() == b""
    await log.aclose()
    assert log.size == 4


async def test_a_connection_is_closed_when_it_is_idle_and_not_before(door: Door) -> None:
    connection = await door.connect()
    await connection.ask(plain(1))
    await connection.ask(plain(2))
    (served,) = door.connections
    served.timeout_keep_alive_handler()  # what the timer calls: there was a request since it began
    assert (await connection.ask(plain(3)))[0] == 200
    served.timeout_keep_alive_handler()
    served.timeout_keep_alive_handler()
    assert await connection.reader.read() == b""


async def test_few_heads_are_remembered(door: Door) -> None:
    connection = await door.connect()
    await connection.ask(plain(1))
    heads = door.connections[0].heads
    heads.update({b"%d" % number: 0 for number in range(MAX_HEADS - len(heads))})
    await connection.ask(plain(2, OTHER))
    assert len(heads) == 1
