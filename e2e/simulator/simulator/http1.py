"""HTTP/1.1 over asyncio streams, as much as the SDKs and a broker speak, with a bound on everything.

Used by `server` only. Knows no vendor and keeps nothing: headers may hold keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True)
class Limits:
    """What a caller may take. Seconds and bytes."""

    body: int = 10 * 1024 * 1024
    head: int = 32 * 1024
    """Request line and headers together."""
    connections: int = 256
    idle_seconds: float = 75.0
    """Between requests of one connection; vendors' gateways are in this range."""
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    write_seconds: float = 30.0
    """For a caller that does not read its answer."""


@dataclass(frozen=True)
class Head:
    method: str
    path: str
    """Without the query, which may hold a key."""
    has_query_key: bool
    headers: Mapping[str, str]
    """Names in lower case."""

    @property
    def keep_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"


class HttpProblem(Exception):
    """The request cannot be read any further: answer with `status` and close."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


async def read_head(reader: asyncio.StreamReader, limits: Limits) -> Head | None:
    """The next request's head; None when the caller is done. `reader` must have been made with `limits.head`."""
    try:
        async with asyncio.timeout(limits.idle_seconds):
            first = await reader.read(1)
    except TimeoutError:
        return None
    if not first:
        return None
    try:
        async with asyncio.timeout(limits.head_seconds):
            raw = first + await reader.readuntil(b"\r\n\r\n")
    except TimeoutError as error:
        raise HttpProblem(408, "the request's head took too long") from error
    except asyncio.LimitOverrunError as error:
        raise HttpProblem(431, "the request's head is too large") from error
    except asyncio.IncompleteReadError:
        return None
    return _parse_head(raw)


def _parse_head(raw: bytes) -> Head:
    request_line, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    words = request_line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise HttpProblem(400, "not an HTTP/1.1 request")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise HttpProblem(400, "malformed header")
        headers[name.lower()] = value.strip()
    path, _, query = words[1].partition("?")
    has_key = any(item.startswith("key=") and len(item) > len("key=") for item in query.split("&"))
    return Head(words[0], path, has_key, headers)


async def read_body(head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits) -> bytes:
    """The whole body, by length or chunked. `reader` and `writer` belong to the connection `head` came from."""
    length = head.headers.get("content-length", "0")
    chunked = head.headers.get("transfer-encoding", "").lower() == "chunked"
    if not chunked and (not length.isascii() or not length.isdigit()):
        raise HttpProblem(400, "malformed Content-Length")
    if not chunked and (len(length) > len(str(limits.body)) or int(length) > limits.body):
        raise HttpProblem(413, f"the body exceeds {limits.body} bytes")
    if head.headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await (_read_chunks(reader, limits.body) if chunked else reader.readexactly(int(length)))
    except TimeoutError as error:
        raise HttpProblem(408, "the request's body took too long") from error
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise HttpProblem(400, "the request's body is incomplete") from error


async def _read_chunks(reader: asyncio.StreamReader, most: int) -> bytes:
    body = bytearray()
    while True:
        size_line = (await reader.readuntil(b"\r\n")).split(b";")[0].strip()
        try:
            size = int(size_line, 16)
        except ValueError as error:
            raise HttpProblem(400, "malformed chunk") from error
        if size < 0 or len(body) + size > most:
            raise HttpProblem(413, f"the body exceeds {most} bytes")
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass  # trailers say nothing that matters here
            return bytes(body)
        body += (await reader.readexactly(size + 2))[:size]


def response_head(status: int, headers: Mapping[str, str], length: int, keep_alive: bool) -> bytes:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:  # 529 is nobody's standard
        reason = "Overloaded"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    lines += [f"content-length: {length}", f"connection: {'keep-alive' if keep_alive else 'close'}", "", ""]
    return "\r\n".join(lines).encode("latin-1")
