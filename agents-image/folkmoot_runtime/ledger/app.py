"""The ledger's two doors: Unix sockets for the core pod, TLS for broker, agents and readers. docs/architecture.md, wiring.md §1.

A producer is what was authenticated (peer uid or token), never what a request claims. Reads on the TLS door are themselves
on record: each reader's first read of a minute is durable before it is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from folkmoot_core import names
from folkmoot_core.entries import Actor, EntryRequest, Producer, new_entry
from folkmoot_core.errors import Conflict, Forbidden, Invalid, Missing, Unavailable
from folkmoot_core.ledger import tiles
from folkmoot_runtime import web
from folkmoot_runtime.ledger import control
from folkmoot_runtime.ledger.client import MAX_BATCH
from folkmoot_runtime.ledger.control import Controlled
from folkmoot_runtime.ledger.interface import AGENTS, OWN, Overloaded
from folkmoot_runtime.ledger.peers import Socket
from folkmoot_runtime.trust import Trust

READERS = frozenset({names.SA_OWNER, names.SA_VIEWER, names.SA_AUDITOR})
COVER_SECONDS = 15.0  # that `?wait=checkpoint` waits
READ_PERIOD = 60  # seconds that one `evidence.read` entry stands for


class _Batch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    entries: tuple[EntryRequest, ...] = Field(min_length=1, max_length=MAX_BATCH)


class Doors:
    """The routes over one log, which may still be recovering: until `ledger` is set they answer 503."""

    def __init__(self, trust: Trust, clock: Callable[[], float] = time.time) -> None:
        self._trust = trust
        self._clock = clock
        self._read_minutes: dict[str, int] = {}
        self.ledger: Controlled | None = None
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

    def _app(self, routes: list[Route]) -> Starlette:
        app = web.app(routes, ready=self.ready)
        app.add_exception_handler(Overloaded, _overloaded)
        return app

    def _log(self) -> Controlled:
        if self.ledger is None:
            raise Unavailable("the ledger is reading its log back", reason="Recovering", retry_after=1)
        return self.ledger

    async def _append(self, request: Request, producer: Producer) -> Response:
        log = self._log()
        requests, single = _requests(await web.body(request))
        receipts = await log.append(requests, producer)
        if request.query_params.get("wait") == "checkpoint":
            await _covered(log, max(receipt.index for receipt in receipts) + 1)
        if single:
            return web.answer(receipts[0])
        return JSONResponse({"receipts": [receipt.model_dump() for receipt in receipts]})

    async def _read(self, request: Request) -> Response:
        path = request.url.path.removeprefix("/")
        data = await self._log().read(path)
        if data is None:
            raise Missing(f"this log has no {path} (yet)")
        if path in (tiles.CHECKPOINT, tiles.VKEY, tiles.MLDSA_VKEY, tiles.POLICY):
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
        except Conflict as error:
            if error.reason != "LogClosed":  # a closed log is still evidence, and takes no more entries
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


def _requests(body: bytes) -> tuple[list[EntryRequest], bool]:
    """One request or a batch; whether it was one."""
    try:
        value: Any = pydantic_core.from_json(body)
    except ValueError as error:
        raise Invalid("the request's body is not JSON") from error
    try:
        if isinstance(value, dict) and "entries" in value:
            return list(_Batch.model_validate(value).entries), False
        return [EntryRequest.model_validate(value)], True
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"EntryRequest: field {where or '(body)'}: {first['msg']}") from None


def _files(read: Callable[[Request], Any]) -> list[Route]:
    return [
        Route(f"/{tiles.CHECKPOINT}", read),
        *(Route(f"/{path}", read) for path in (tiles.VKEY, tiles.MLDSA_VKEY, tiles.POLICY)),
        Route("/tile/{rest:path}", read),
    ]


async def _overloaded(request: Request, error: Exception) -> Response:
    """429 with Retry-After, which load tools and our client obey."""
    answer = await web.problem(request, error)
    answer.status_code = 429
    return answer
