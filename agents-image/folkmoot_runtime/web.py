"""The HTTP manners that all doors share: problem documents (RFC 9457), bounded bodies, bearer tokens, serving.

A door is a Starlette app made by its package; this module turns errors into answers and runs the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from folkmoot_core import errors

log = logging.getLogger(__name__)
MAX_BODY = 10 * 1024 * 1024
_STATUS: tuple[tuple[type[errors.FolkmootError], int], ...] = (
    (errors.Invalid, 400), (errors.Forbidden, 403), (errors.Unauthorized, 401), (errors.Missing, 404), (errors.Conflict, 409),
    (errors.LimitReached, 429), (errors.Overloaded, 429), (errors.Unavailable, 503),
)  # fmt: skip
Model = TypeVar("Model", bound=BaseModel)


def app(routes: Sequence[BaseRoute], *, ready: Callable[[], bool]) -> Starlette:
    """A door: its routes, `/healthz` (the loop runs) and `/readyz` (this process can serve; never depends on another pod)."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("ok") if ready() else PlainTextResponse("starting", status_code=503)

    probes = [Route("/healthz", healthz), Route("/readyz", readyz)]
    return Starlette(routes=[*probes, *routes], exception_handlers={errors.FolkmootError: problem})


async def problem(_: Request, error: Exception) -> Response:
    """RFC 9457: `type` is the reason, `detail` the sentence."""
    assert isinstance(error, errors.FolkmootError)  # noqa: S101 - registered for this class alone
    status, headers, content = problem_document(error)
    return Response(content, status_code=status, headers=headers, media_type="application/problem+json")


def problem_document(error: errors.FolkmootError) -> tuple[int, dict[str, str], bytes]:
    """Status, further headers and body of an error's answer."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    headers: dict[str, str] = {}
    if isinstance(error, errors.Unavailable) and error.retry_after is not None:
        headers = {"Retry-After": str(max(1, round(error.retry_after)))}
    body = {"type": error.reason, "title": type(error).__name__, "status": status, "detail": error.message}
    return status, headers, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def phrase(status: int) -> str:
    """The status line's words."""
    return HTTPStatus(status).phrase


async def body(request: Request, limit: int = MAX_BODY) -> bytes:
    """The request's body, at most `limit` bytes; raises `LimitReached` before reading more."""
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise errors.LimitReached(f"request body is larger than {limit} bytes", reason="BodyTooLarge")
            chunks.append(chunk)
    except ClientDisconnect:  # nobody reads this answer; a traceback in the log would be the client's to cause
        raise errors.Invalid(f"the client went away after {size} bytes of its request's body", reason="Disconnected") from None
    return b"".join(chunks)


async def parse(request: Request, model: type[Model], limit: int = MAX_BODY) -> Model:
    """The body as a model; raises `Invalid` naming the field, never its content."""
    try:
        return model.model_validate_json(await body(request, limit))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise errors.Invalid(f"{model.__name__}: field {where or '(body)'}: {first['msg']}") from None


def answer(model: BaseModel, status: int = 200) -> Response:
    """A model as JSON."""
    return Response(model.model_dump_json(), status_code=status, media_type="application/json")


class _Server(uvicorn.Server):
    """Signals belong to the process's own main, which may run several servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(door: Starlette, *, host: str = "", port: int = 0, uds: str | None = None, context: ssl.SSLContext | None = None,
                **options: Any) -> None:  # fmt: skip
    """Serve until cancelled, then let running requests end for three seconds. `options` go to uvicorn.Config (`http=` for a protocol class)."""
    config = uvicorn.Config(
        door, host=host, port=port, uds=uds, log_config=None, access_log=False, lifespan="off", server_header=False,
        timeout_keep_alive=30, timeout_graceful_shutdown=3, **options,
    )  # fmt: skip
    config.load()
    if context is not None:
        config.ssl = context
    server = _Server(config)
    running = asyncio.create_task(server.serve())
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        server.should_exit = True
        await running
        raise
