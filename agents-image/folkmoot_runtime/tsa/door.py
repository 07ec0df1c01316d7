"""The authority's door: `POST /` takes a TimeStampReq and answers a TimeStampResp (RFC 3161 §3.4), `GET /chain.pem` its certificates.

It asks for no credential: who may reach it is NetworkPolicy's, and a token tells nothing but that a hash was shown. What may be
granted is `folkmoot_core.ledger.tsa`'s decision, whose obligations the numbers continue; its caller's are met here: 9. no token is
dated before one that was given out, across restarts: a clock that was set back gives none; 10. a serial number is never used again:
it counts up, and random bits below the count tell it from the numbers of an older copy of the volume; 11. both are durable before the
token is given out. Bodies are bounded in size and time, and so is the number of queries at work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from folkmoot_core.errors import Invalid, Unavailable
from folkmoot_core.ledger import timestamp, tsa
from folkmoot_runtime import web
from folkmoot_runtime.tsa.volume import Last, Volume

log = logging.getLogger(__name__)
MAX_AT_WORK: Final = 64  # queries; a token takes a few milliseconds, and a sync
BODY_SECONDS: Final = 10.0
RANDOM_BITS: Final = 64  # of a serial number, below the count


class Authority:
    """The door over one volume. `clock` gives epoch seconds, `random` numbers below 2^n."""

    def __init__(self, volume: Volume, clock: Callable[[], float], random: Callable[[int], int]) -> None:
        self._volume = volume
        self._clock = clock
        self._random = random
        self._slots = asyncio.Semaphore(MAX_AT_WORK)
        self._thread = ThreadPoolExecutor(1, "timestamps")  # one token after the other

    def app(self) -> Starlette:
        """The routes."""
        routes = [Route("/", self._query, methods=["POST"]), Route("/chain.pem", self._chain, methods=["GET"])]
        return web.app(routes, ready=lambda: True)

    def close(self) -> None:
        """Wait for the token that is being made."""
        self._thread.shutdown()

    async def answer(self, query: bytes) -> bytes:
        """A TimeStampResp; whatever it is, it is an answer of the protocol."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._step, query)

    def _step(self, query: bytes) -> bytes:
        seconds, last = int(self._clock()), self._volume.last
        now = datetime.fromtimestamp(seconds, UTC)
        if (refused := tsa.refusal(query, self._volume.signer, now)) is not None:
            return refused
        if seconds < last.time:  # 9
            log.error(
                "the clock was set back; no timestamps until it has passed the last one", extra={"seconds": last.time - seconds}
            )
            return tsa.rejection("time_not_available", "this authority's clock is behind the last time that it has given out")
        number = last.number + 1
        serial = number << RANDOM_BITS | self._random(RANDOM_BITS)  # 10
        try:
            self._volume.remember(Last(number, seconds))  # 11
        except OSError as error:
            log.error("no timestamp, because its number cannot be kept", extra={"error": error.strerror})
            return tsa.rejection("system_failure", "this authority cannot keep the number of the token")
        return tsa.answer(query, self._volume.signer, now, serial)

    async def _query(self, request: Request) -> Response:
        if request.headers.get("Content-Type", "").partition(";")[0].strip() != timestamp.QUERY_TYPE:
            raise Invalid(f"a query is sent as {timestamp.QUERY_TYPE} (RFC 3161 §3.4)")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await web.body(request, tsa.MAX_QUERY)
        except TimeoutError:
            raise Invalid(f"the query did not arrive within {BODY_SECONDS:.0f} s") from None
        if self._slots.locked():  # asked when all is there: who sends slowly takes nobody's place
            raise Unavailable(f"{MAX_AT_WORK} queries are at work; send it again", retry_after=1)
        async with self._slots:
            return Response(await self.answer(body), media_type=timestamp.REPLY_TYPE, headers={"Cache-Control": "no-store"})

    async def _chain(self, _: Request) -> Response:
        return Response(self._volume.pem, media_type="application/pem-certificate-chain", headers={"Cache-Control": "no-cache"})
