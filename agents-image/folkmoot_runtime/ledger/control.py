"""The conductor's routes at the ledger's Unix socket: how the log stands, and what a person or the operator decided about it.

`GET /v1/status` · `POST /v1/freeze` · `POST /v1/rotate` · `POST /v1/anchor` · `POST /v1/close`. The socket's peer uid says who asks;
nobody but the conductor gets in, which lets in those whom docs/architecture.md names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from folkmoot_core.document import LogReport
from folkmoot_core.errors import Forbidden
from folkmoot_runtime import web
from folkmoot_runtime.ledger.interface import Ledger
from folkmoot_runtime.ledger.peers import CONDUCTOR, Socket


class Controlled(Ledger, Protocol):
    """A log on a volume, as far as people decide about it."""

    def status(self) -> LogReport:
        """How it stands."""

    async def freeze(self, reason: str, message: str) -> None:
        """Take and show nothing new until a person has decided. Idempotent."""

    async def rotate(self) -> str:
        """Exchange the signing keys; the new vkey."""

    async def anchor(self) -> None:
        """Have the newest checkpoint timestamped now, whatever the cadence."""


class Freeze(BaseModel):
    """Body of `POST /v1/freeze`."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z]+$")
    message: str = Field(max_length=1024)


def routes(socket: Socket, log: Callable[[], Controlled]) -> list[Route]:
    """The routes at one socket. `log` raises `Unavailable` while the log is being recovered."""

    def route(path: str, act: Callable[[Request], Awaitable[Response]], method: str) -> Route:
        async def guarded(request: Request) -> Response:
            producer = socket.producer(request)
            if producer.id != CONDUCTOR:
                raise Forbidden(f"{producer.id} may not ask for {path}; the conductor does, when it was asked itself")
            return await act(request)

        return Route(path, guarded, methods=[method])

    async def status(_: Request) -> Response:
        return web.answer(log().status())

    async def freeze(request: Request) -> Response:
        asked = await web.parse(request, Freeze, 4096)
        await log().freeze(asked.reason, asked.message)
        return web.answer(log().status())

    async def rotate(_: Request) -> Response:
        return JSONResponse({"vkey": await log().rotate()})

    async def anchor(_: Request) -> Response:
        await log().anchor()
        return web.answer(log().status())

    async def close(_: Request) -> Response:
        return JSONResponse({"size": await log().close_log()})

    return [
        route("/v1/status", status, "GET"), route("/v1/freeze", freeze, "POST"), route("/v1/rotate", rotate, "POST"),
        route("/v1/anchor", anchor, "POST"), route("/v1/close", close, "POST"),
    ]  # fmt: skip
