"""The service door for the log itself: how it stands, its keys, its timestamps. The owner exchanges keys; the auditor may have the
log timestamped, for that changes nothing and says more.

Who asked is an entry of its own before the ledger is asked (`log.control`): what the ledger then records (`log.key.rotated`,
`anchor`) says what was done and not for whom. The ledger's socket knows the conductor alone.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from folkmoot_core.entries import Actor
from folkmoot_core.errors import Unavailable
from folkmoot_runtime import web
from folkmoot_runtime.conductor.callers import AUDITORS, WRITERS, Callers
from folkmoot_runtime.conductor.notary import Fact, Notary

RECORD_SECONDS: Final = 10.0  # for the receipt of the entry about it


class LogDoor:
    """Routes for `folkmoot-owner` and `folkmoot-auditor`."""

    def __init__(self, callers: Callers, notary: Notary) -> None:
        self._callers = callers
        self._notary = notary

    def routes(self) -> list[Route]:
        """For `web.app`."""
        return [
            Route("/v1/log", self._status, methods=["GET"]),
            Route("/v1/log/rotate", self._rotate, methods=["POST"]),
            Route("/v1/log/anchor", self._anchor, methods=["POST"]),
        ]

    async def _status(self, request: Request) -> Response:
        self._callers.account(request, AUDITORS, "ask how the log stands")
        return web.answer(await self._notary.ledger.status())

    async def _rotate(self, request: Request) -> Response:
        await self._record("rotate", self._callers.account(request, WRITERS, "exchange the log's keys"))
        await self._notary.ledger.rotate()
        return await self._status(request)

    async def _anchor(self, request: Request) -> Response:
        await self._record("anchor", self._callers.account(request, AUDITORS, "have the log timestamped"))
        return web.answer(await self._notary.ledger.anchor())

    async def _record(self, act: str, by: str) -> None:
        fact = Fact(
            id=f"log.control/{uuid.uuid4()}", type="log.control", actor=Actor(kind="human", id=by), data={"act": act, "by": by},
        )  # fmt: skip
        try:
            async with asyncio.timeout(RECORD_SECONDS):
                await self._notary.put(fact)
        except TimeoutError:
            raise Unavailable("the ledger gives no receipt for this, so nothing is done; ask again", retry_after=5) from None
