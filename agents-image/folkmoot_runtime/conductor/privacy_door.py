"""The service door for erasures and legal holds. The owner erases and holds; the auditor holds, and sees both.

Who places a hold may not be who must erase in spite of it, so the auditor can do it alone; that an auditor may also release is a
choice (docs/privacy.md): every release is on record with who it was.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from folkmoot_core.privacy import ErasureRequest, HoldRequest
from folkmoot_runtime import web
from folkmoot_runtime.conductor.callers import AUDITORS, WRITERS, Callers
from folkmoot_runtime.conductor.erasure import Erasures
from folkmoot_runtime.conductor.holds import Holds

MAX_REQUEST: Final = 4096


class PrivacyDoor:
    """Routes for `folkmoot-owner` and `folkmoot-auditor`."""

    def __init__(self, callers: Callers, erasures: Erasures, holds: Holds) -> None:
        self._callers = callers
        self._erasures = erasures
        self._holds = holds

    def routes(self) -> list[Route]:
        """For `web.app`."""
        return [
            Route("/v1/erasures", self._erased, methods=["GET"]),
            Route("/v1/erasures", self._erase, methods=["POST"]),
            Route("/v1/holds", self._held, methods=["GET"]),
            Route("/v1/holds", self._hold, methods=["POST"]),
            Route("/v1/holds/{hold}", self._release, methods=["DELETE"]),
        ]

    async def _erase(self, request: Request) -> Response:
        account = self._callers.account(request, WRITERS, "erase content")
        erasure = await self._erasures.begin(await web.parse(request, ErasureRequest, MAX_REQUEST), account)
        return web.answer(erasure, 200 if erasure.state == "done" else 202)

    async def _erased(self, request: Request) -> Response:
        self._callers.account(request, AUDITORS, "read erasures")
        return JSONResponse({"erasures": [one.model_dump(mode="json") for one in await self._erasures.all()]})

    async def _hold(self, request: Request) -> Response:
        account = self._callers.account(request, AUDITORS, "place legal holds")
        return web.answer(await self._holds.place(await web.parse(request, HoldRequest, MAX_REQUEST), account), 201)

    async def _release(self, request: Request) -> Response:
        account = self._callers.account(request, AUDITORS, "release legal holds")
        return web.answer(await self._holds.release(request.path_params["hold"], account))

    async def _held(self, request: Request) -> Response:
        self._callers.account(request, AUDITORS, "read legal holds")
        return JSONResponse({"holds": [one.model_dump(mode="json") for one in await self._holds.all()]})
