"""Following the tenant document: asked of the conductor every few seconds, handed to whoever needs it. Used by broker, router, ledger.

What is handed on is judged by who takes it: what that raises is trouble like the conductor's being away, and the document is then
asked for whole again. Trouble ends nothing and is said once, not every five seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from folkmoot_core.errors import FolkmootError, Invalid, Unavailable
from folkmoot_runtime.peer import Peer

log = logging.getLogger(__name__)
POLL_SECONDS: Final = 5.0
FIRST_SECONDS: Final = 0.5  # while there is none: others are waiting
MAX_DOCUMENT: Final = 16 * 1024 * 1024  # bytes; a tenant's document with every prompt stays far below


class DocumentFollower:
    """`take` is given the bytes of each new document; it raises a `FolkmootError` for one that is not usable."""

    def __init__(self, conductor: Peer, take: Callable[[bytes], Awaitable[None]]) -> None:
        self._conductor = conductor
        self._take = take
        self._etag = ""
        self._trouble = ""

    async def refresh(self) -> None:
        """Ask once; raises what went wrong."""
        headers = {"If-None-Match": self._etag} if self._etag else {}
        response = await self._conductor.request("GET", "/v1/document", headers=headers)
        if response.status_code == 304:
            return
        if response.status_code != 200:
            raise Unavailable(f"conductor answered {response.status_code} to GET /v1/document")
        if len(response.content) > MAX_DOCUMENT:
            raise Invalid(f"tenant document is larger than {MAX_DOCUMENT} bytes")
        await self._take(response.content)
        self._etag = response.headers.get("ETag", "")

    async def look(self) -> None:
        """Ask once; what goes wrong is said."""
        try:
            await self.refresh()
            self._trouble = ""
        except FolkmootError as error:
            if error.message != self._trouble:
                log.warning("no news of the tenant document", extra={"detail": error.message})
            self._trouble = error.message

    async def follow(self, known: Callable[[], bool]) -> None:
        """Ask for ever, and sooner while nothing is known."""
        while True:
            await self.look()
            await asyncio.sleep(POLL_SECONDS if known() else FIRST_SECONDS)
