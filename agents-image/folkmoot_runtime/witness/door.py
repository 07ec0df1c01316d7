"""The witness's two doors. The public one speaks C2SP tlog-witness; the operator's says which logs are known.

The public door asks for no credential: who may reach it is NetworkPolicy's, and what counts is the log's signature. The
operator's door admits only the one client certificate, as the conductor's (decision 0006). Bodies are bounded in size and time,
and so is the number of requests at work.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from folkmoot_core.errors import Conflict, Invalid, LimitReached, Missing, Unavailable
from folkmoot_core.ledger import rotation, witness
from folkmoot_core.ledger.witness import Known, Rejected
from folkmoot_runtime import web
from folkmoot_runtime.witness.interface import Store
from folkmoot_runtime.witness.volume import Identity

log = logging.getLogger(__name__)
MAX_AT_WORK: Final = 64  # requests; one step takes a few milliseconds and a sync
BODY_SECONDS: Final = 10.0
MAX_REGISTRATION: Final = 64 * 1024
_UID: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Registration(BaseModel):
    """A log's keys in the order of its signatures; `rotation` is the note that both its old and its new key signed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    origin: str = Field(min_length=1, max_length=255)
    vkeys: tuple[str, ...] = Field(min_length=1, max_length=rotation.MAX_KEYS)
    rotation: str = Field(default="", max_length=rotation.MAX_ROTATION)


class Witness:
    """Both doors over one store and one identity. `clock` gives epoch seconds."""

    def __init__(self, store: Store, identity: Identity, clock: Callable[[], float]) -> None:
        self._store = store
        self._identity = identity
        self._clock = clock
        self._slots = asyncio.Semaphore(MAX_AT_WORK)

    def public(self) -> Starlette:
        """Port 8447."""
        routes = [
            Route("/add-checkpoint", self._add_checkpoint, methods=["POST"]),
            Route("/{digest}/checkpoint", self._checkpoint, methods=["GET"]),
        ]
        return web.app(routes, ready=lambda: True)

    def operator(self) -> Starlette:
        """Port 8448."""
        routes = [
            Route("/operator/v1/logs/{uid}", self._register, methods=["PUT"]),
            Route("/operator/v1/logs/{uid}", self._logs, methods=["GET"]),
            Route("/operator/v1/vkeys", self._vkeys, methods=["GET"]),
        ]
        return web.app(routes, ready=lambda: True)

    async def add(self, request: witness.Request) -> str | Rejected:
        """Decide, sign and store in one step; the lines that this returns are vouched for by what is on disk."""

        def change(known: Known | None) -> tuple[Known | None, str | Rejected]:
            decision = witness.decide(request, known)
            if isinstance(decision, Rejected):
                return decision.known, decision
            # A clock that went back must not date this statement before an earlier one of a smaller tree.
            seconds = max(int(self._clock()), decision.known.seconds)
            lines = self._identity.lines(decision.text, seconds)
            return witness.cosigned(decision, lines, seconds), lines

        return await self._store.step(witness.claim_of(request).origin, change)

    async def _add_checkpoint(self, http: HttpRequest) -> Response:
        try:
            request = witness.parse_request(await _body(http))
        except LimitReached as error:
            return PlainTextResponse(f"{error.message}\n", status_code=413)
        if self._slots.locked():
            raise Unavailable(f"{MAX_AT_WORK} requests are at work; send it again", retry_after=1)
        async with self._slots:
            answer = await self.add(request)
        if isinstance(answer, str):
            return Response(answer, media_type=witness.TEXT_TYPE)
        if answer.known is not None:
            log.error("a log has forked", extra={"origin": answer.known.origin, "size": answer.known.size})
        if answer.size is not None:
            return Response(f"{answer.size}\n", status_code=answer.status, headers={"Content-Type": witness.SIZE_TYPE})
        return PlainTextResponse(f"{answer.detail}\n", status_code=answer.status)

    async def _checkpoint(self, http: HttpRequest) -> Response:
        digest = http.path_params["digest"]
        known = await self._store.find(digest) if _DIGEST.fullmatch(digest) else None
        if known is None or not known.note:
            raise Missing("no log whose origin has this SHA-256 was cosigned here")
        return Response(known.note, media_type=witness.TEXT_TYPE, headers={"Cache-Control": "no-cache"})

    async def _register(self, http: HttpRequest) -> Response:
        uid = _uid(http)
        asked = await web.parse(http, Registration, MAX_REGISTRATION)
        keys = rotation.check_keys(asked.origin, asked.vkeys)

        def change(known: Known | None) -> tuple[Known | None, bool]:
            admitted = witness.admit(known, asked.origin, keys, asked.rotation.encode())
            return (None, False) if admitted == known else (admitted, known is not None)

        try:
            rotated = await self._store.enrol(uid, asked.origin, change)
        except Invalid as error:
            raise Conflict(error.message, reason="KeyConflict") from error
        if rotated:
            log.warning("a log has changed its keys", extra={"origin": asked.origin, "key": keys[0].id.hex()})
        return JSONResponse({"origin": asked.origin, "vkeys": list(asked.vkeys)})

    async def _logs(self, http: HttpRequest) -> Response:
        known = await self._store.logs(_uid(http))
        return JSONResponse({"logs": [_report(one) for one in known]})

    async def _vkeys(self, _: HttpRequest) -> Response:
        return JSONResponse({"vkeys": self._identity.vkeys()})


def _report(known: Known) -> dict[str, object]:
    """What the operator may want to show or to raise an alarm for; `fork` is the note that contradicts `checkpoint`."""
    return {
        "origin": known.origin, "vkeys": [key.vkey() for key in known.keys], "size": known.size, "root": known.root.hex(),
        "time": known.seconds, "checkpoint": known.note.decode(), "fork": known.fork.decode(),
    }  # fmt: skip


def _uid(http: HttpRequest) -> str:
    uid: str = http.path_params["uid"]
    if not _UID.fullmatch(uid):
        raise Invalid(f"tenant uid {uid[:80]!r}: expected 1 to 64 letters, digits and '-'")
    return uid


async def _body(http: HttpRequest) -> bytes:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await web.body(http, witness.MAX_REQUEST)
    except TimeoutError:
        raise Invalid(f"the request's body did not arrive within {BODY_SECONDS:.0f} s") from None
