"""The ledger's doors: Unix sockets for the core pod, TLS for broker, agents and readers. docs/architecture.md, wiring.md §1.

A producer is what was authenticated (peer uid or token), never what a request claims. Reads on the TLS door are themselves
on record: each reader's first read of a minute is durable before it is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from folkmoot_core import names
from folkmoot_core.entries import Actor, Producer, new_entry
from folkmoot_core.errors import Conflict, Forbidden, Missing, Unavailable
from folkmoot_core.ledger import anchor, tiles
from folkmoot_runtime import web
from folkmoot_runtime.ledger import appends, control, debug
from folkmoot_runtime.ledger.appends import Appends
from folkmoot_runtime.ledger.control import Controlled
from folkmoot_runtime.ledger.interface import AGENTS, OWN
from folkmoot_runtime.ledger.peers import Socket
from folkmoot_runtime.ledger.waiting import Admission
from folkmoot_runtime.trust import Trust

READERS = frozenset({names.SA_OWNER, names.SA_VIEWER, names.SA_AUDITOR})
COVER_SECONDS = 15.0  # that `?wait=checkpoint` waits
READ_PERIOD = 60  # seconds that one `evidence.read` entry stands for


class Doors:
    """The routes over one log, which may still be recovering: until `ledger` is set they answer 503."""

    def __init__(self, trust: Trust, clock: Callable[[], float] = time.time) -> None:
        self._trust = trust
        self._clock = clock
        self._read_minutes: dict[str, int] = {}
        self.ledger: Controlled | None = None
        self._appends: Appends | None = None
        self.certified = False
        """Whether the TLS door has its certificate: part of being ready, not of serving the socket."""

    def ready(self) -> bool:
        """The log is recovered and both doors serve."""
        return self.ledger is not None and self.certified

    def unix(self, socket: Socket) -> Starlette:
        """The door of one Unix socket."""

        async def entries(request: Request) -> Response:
            return await self._append(request, socket.producer(request))

        async def read(request: Request) -> Response:
            socket.producer(request)
            if request.url.path == f"/{tiles.CHECKPOINT}":
                await self._log().publish()  # the conductor's export must cover whatever it holds a receipt for
            return await self._read(request)

        return self._app([
            Route("/v1/entries", entries, methods=["POST"]), *control.routes(socket, self._log), *_files(read),
        ])  # fmt: skip

    def tls(self) -> Starlette:
        """The door for tokens of audience `folkmoot-ledger`."""

        async def entries(request: Request) -> Response:
            caller = self._trust.caller(request.headers.get("authorization"), names.AUDIENCE_LEDGER)
            return await self._append(request, _producer(caller.service_account))

        async def read(request: Request) -> Response:
            caller = self._trust.caller(request.headers.get("authorization"), names.AUDIENCE_LEDGER)
            if caller.service_account not in READERS:
                raise Forbidden(f"{caller.service_account} may not read the log; {', '.join(sorted(READERS))} may")
            await self._record_read(caller.service_account)
            return await self._read(request)

        return self._app([Route("/v1/entries", entries, methods=["POST"]), *_files(read)])

    def debug(self) -> Starlette:
        """The door of `debug.py`: nobody is asked who they are."""

        async def add(request: Request) -> Response:
            leaf = await web.body(request, debug.MAX_LEAF)
            (receipt,) = await self._log().append([debug.entry(leaf, self._clock())], OWN)
            return PlainTextResponse(f"{receipt.index}\n")

        return self._app([Route("/add", add, methods=["POST"]), *_files(self._read)])

    def _app(self, routes: list[Route]) -> Starlette:
        return web.app(routes, ready=self.ready)

    def _log(self) -> Controlled:
        if self.ledger is None:
            raise Unavailable("the ledger is reading its log back", reason="Recovering", retry_after=1)
        return self.ledger

    async def _append(self, request: Request, producer: Producer) -> Response:
        self._log()
        admission, single = self.begin(await web.body(request), producer)
        await admission.durable()
        if request.query_params.get("wait") == "checkpoint":
            await _covered(self._log(), max(index for index, _, _ in admission.results()) + 1)
        return Response(appends.answer(admission, single), media_type="application/json")

    def begin(self, body: bytes, producer: Producer) -> tuple[Admission, bool]:
        """Queue what a body asks for; whether it was one entry alone."""
        log = self._log()
        if self._appends is None or self._appends.ledger is not log:
            self._appends = Appends(log)
        return self._appends.begin(body, producer)

    async def _read(self, request: Request) -> Response:
        path = request.url.path.removeprefix("/")
        data = await self._log().read(path)
        if data is None:
            raise Missing(f"this log has no {path} (yet)")
        if path in (tiles.CHECKPOINT, tiles.VKEY, tiles.MLDSA_VKEY, tiles.POLICY, anchor.CLOSING):
            return Response(data, media_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-cache"})
        headers = {"Cache-Control": "private, max-age=31536000, immutable"}  # private: it was read with a token
        return Response(data, media_type="application/octet-stream", headers=headers)

    async def _record_read(self, reader: str) -> None:
        """`evidence.read`, once a minute and reader; the id makes a second process's or a restart's one the same."""
        minute = int(self._clock()) // READ_PERIOD
        if self._read_minutes.get(reader) == minute:
            return
        entry = new_entry(
            "evidence.read", Actor(kind="human", id=reader), id=f"evidence.read/{reader}/{minute}",
            data={"reader": reader, "period_seconds": READ_PERIOD}, now=self._clock(),
        )  # fmt: skip
        try:
            await self._log().append([entry], OWN)
        except (Conflict, Unavailable) as error:
            if error.reason not in ("LogClosed", "LogFrozen"):  # these are still evidence, and take no more entries
                raise
        self._read_minutes[reader] = minute


async def _covered(log: Controlled, size: int) -> None:
    """The stronger acknowledgement: a published checkpoint covers the entry, with whatever cosignatures it must carry."""
    try:
        async with asyncio.timeout(COVER_SECONDS):
            await log.covered(size)
    except TimeoutError:
        raise Unavailable(
            f"durable, and no published checkpoint covers entry {size - 1} after {COVER_SECONDS:g} s; ask again with the same id",
            reason="NotCovered", retry_after=2,
        ) from None  # fmt: skip


def _producer(service_account: str) -> Producer:
    agent = names.agent_of_service_account(service_account)
    if agent:
        return Producer(id=f"{AGENTS}{agent}")
    if service_account == names.SA_BROKER:
        return Producer(id="broker")
    raise Forbidden(f"{service_account} may not append; the broker and agents may, and the core's containers by Unix socket")


def _files(read: Callable[[Request], Any]) -> list[Route]:
    return [
        Route(f"/{tiles.CHECKPOINT}", read),
        *(Route(f"/{path}", read) for path in (tiles.VKEY, tiles.MLDSA_VKEY, tiles.POLICY)),
        *(Route(f"/{folder}/{{rest:path}}", read) for folder in ("tile", "checkpoints", "anchors")),
    ]
