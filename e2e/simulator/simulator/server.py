"""The only module with a socket: accepts connections, reads requests, does what `app` says should be done.

Started by `__main__` and by tests. Never logs a header, a query or a body.
"""

from __future__ import annotations

import asyncio
import logging

from simulator.app import App, Outcome
from simulator.http1 import Head, HttpProblem, Limits, read_body, read_head, response_head

logger = logging.getLogger("simulator")

_LINGER_SECONDS = 2.0
"""How long a refused sender may go on sending: closing at once would reset the connection under our answer."""
_WATCH_SECONDS = 0.1
"""How often a hanging connection is checked for a caller who has left."""


class Server:
    """Use as an async context manager, or `start` and `close`."""

    def __init__(self, app: App, limits: Limits | None = None) -> None:
        self._app = app
        self._limits = limits or Limits()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        """The port listened on, once started."""

    async def start(self, host: str, port: int) -> None:
        self._server = await asyncio.start_server(self._connected, host, port, limit=self._limits.head)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stops listening and drops every connection, answered or not."""
        if self._server is None:
            return
        self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await self._server.wait_closed()

    async def __aenter__(self) -> Server:
        await self.start("127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._connections) > self._limits.connections:
                await self._write(Outcome(503, b"too many connections\n"), writer, keep_alive=False)
                return
            while await self._serve_one(reader, writer):
                pass
        except OSError:
            logger.info("caller left")
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection stays open for another."""
        head: Head | None = None
        try:
            head = await read_head(reader, self._limits)
            if head is None:
                return False
            outcome = self._app.handle(head, await read_body(head, reader, writer, self._limits))
        except HttpProblem as problem:
            unread = head or Head("", "", has_query_key=False, headers={})
            await self._carry_out(self._app.refuse(unread, problem.status, problem.message), reader, writer, False)
            await _linger(reader, writer)
            return False
        return await self._carry_out(outcome, reader, writer, head.keep_alive)

    async def _carry_out(
        self, outcome: Outcome, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep_alive: bool
    ) -> bool:
        # The wait is not cut short when the caller leaves: the model goes on working, and is paid for it.
        await asyncio.sleep(outcome.delay)
        if outcome.hang is not None:
            await _hang(outcome.hang, reader)
            return False
        call = outcome.call
        if call is not None:
            call.status = outcome.status
            if outcome.billed and outcome.observed is not None:
                outcome.observed.billed(call)
            logger.info("call n=%d wire=%s rule=%s status=%d", call.n, call.wire, call.rule, outcome.status)
        if outcome.cut:
            half = outcome.body[: len(outcome.body) // 2]
            writer.write(response_head(outcome.status, outcome.headers, len(outcome.body), keep_alive) + half)
            await writer.drain()
            return False
        here = not reader.at_eof() and not writer.is_closing()
        await self._write(outcome, writer, keep_alive)
        if call is not None:
            call.delivered = here
        return keep_alive

    async def _write(self, outcome: Outcome, writer: asyncio.StreamWriter, keep_alive: bool) -> None:
        writer.write(response_head(outcome.status, outcome.headers, len(outcome.body), keep_alive) + outcome.body)
        async with asyncio.timeout(self._limits.write_seconds):
            await writer.drain()


async def _hang(seconds: float, reader: asyncio.StreamReader) -> None:
    """Silence, until the time is over or the caller has gone."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end and not reader.at_eof():  # noqa: ASYNC110 - a stream has no event for its end
        await asyncio.sleep(min(_WATCH_SECONDS, end - loop.time()))


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says that nothing more will come, and lets the sender find that out."""
    writer.write_eof()
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while await reader.read(65536):
                pass
    except TimeoutError:
        return
