"""One connection to Valkey for a participant: commands in, replies out, nothing retried. `valkey.py` uses it.

Own, and not redis-py, because an agent has 60 MB and needs nine commands: the library costs seven of them, and its silent
retries would have to be switched off one by one (runtime.md §3.3). hiredis frames the protocol. The router uses redis-py
(`connection.py`), which is not imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import hiredis

from folkmoot_core.errors import Invalid
from folkmoot_runtime.trust import Trust

GROUP = "participant"  # consumer group of every inbox; a consumer per pod
ROUTER_GROUP = "router"  # consumer group of every outbox; one consumer
MAX_BLOCK = 2.0  # seconds of one blocking read
COMMAND_TIMEOUT = 5.0  # seconds one command may take; a blocking read may take MAX_BLOCK more
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CHUNK = 64 * 1024


class BusError(Exception):
    """The server refused a command. Only the error's first word is kept: the rest may quote what was sent."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Login:
    """Whom a connection authenticates as."""

    username: str
    password: str = field(repr=False)


class Connection:
    """One command at a time. After any failure in the middle of one, replies could be taken for those of another command, so
    the connection is closed and stays closed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._stream = reader
        self._writer = writer
        self._parser = hiredis.Reader(encoding="utf-8", errors="replace")
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, url: str, login: Login, trust: Trust | None) -> Connection:
        """Connect and authenticate. `url`: rediss://host:port, unix:///path, or redis:// on the loopback."""
        parts = urlsplit(url)
        async with asyncio.timeout(COMMAND_TIMEOUT):
            if parts.scheme == "unix":
                streams = await asyncio.open_unix_connection(parts.path)
            elif parts.scheme == "rediss" and trust is not None:
                streams = await asyncio.open_connection(parts.hostname, parts.port or 6379, ssl=trust.client_context())
            elif parts.scheme == "redis" and parts.hostname in LOOPBACK:
                streams = await asyncio.open_connection(parts.hostname, parts.port or 6379)
            else:
                raise Invalid(f"bus URL {url!r}: expected rediss://host:port, unix:///path, or redis:// on the loopback")
        connection = cls(*streams)
        await connection.call("AUTH", login.username, login.password)
        return connection

    async def call(self, *words: str | int, timeout: float = COMMAND_TIMEOUT) -> Any:
        """One command and its reply. Raises `BusError`, OSError or TimeoutError."""
        async with self._turn:
            if self._writer.is_closing():
                raise ConnectionResetError("the connection was closed")
            try:
                async with asyncio.timeout(timeout):
                    packed: Any = words  # its stub knows tuples of one element alone
                    self._writer.write(hiredis.pack_command(packed))
                    await self._writer.drain()
                    reply = await self._reply()
            except BaseException:
                self._writer.close()
                raise
        if isinstance(reply, hiredis.ReplyError):
            raise BusError(str(reply).split(" ", 1)[0])
        return reply

    async def aclose(self) -> None:
        """Close; what the other side does then is not waited for long."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()

    async def _reply(self) -> Any:
        while (reply := self._parser.gets()) is False:
            data = await self._stream.read(_CHUNK)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self._parser.feed(data)
        return reply


def entries(reply: list[Any]) -> list[tuple[str, dict[str, str]]]:
    """Stream entries of a reply: id and fields. A deleted entry has no fields."""
    return [(each[0], dict(zip(each[1][::2], each[1][1::2], strict=True)) if each[1] else {}) for each in reply if each]
