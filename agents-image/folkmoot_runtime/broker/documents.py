"""The tenant document as the broker knows it: asked of the conductor every few seconds, kept on the volume.

With the copy on its volume the broker serves on while the conductor is away, and starts without it. A document of another
tenant is refused: it would let calls out under somebody else's rules.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from pydantic import ValidationError

from folkmoot_core.document import TenantDocument
from folkmoot_core.errors import Invalid, Unavailable
from folkmoot_runtime.peer import Peer

log = logging.getLogger(__name__)
POLL_SECONDS = 5.0
FIRST_SECONDS = 0.5  # while there is none: agents are waiting
MAX_DOCUMENT = 16 * 1024 * 1024  # bytes; a tenant's document with every prompt stays far below


class Documents:
    """Keeps `current`. `path` is the copy on the volume."""

    def __init__(self, conductor: Peer, path: Path, tenant: str) -> None:
        self._conductor = conductor
        self._path = path
        self._tenant = tenant
        self._etag = ""
        self._trouble = ""
        self.current: TenantDocument | None = None

    def load(self) -> None:
        """Take the copy from the volume, if there is a usable one."""
        try:
            self.current = self._parse(self._path.read_bytes())
        except FileNotFoundError:
            return
        except Invalid as error:
            log.warning("copy of the tenant document is not usable", extra={"detail": error.message})

    async def refresh(self) -> None:
        """Ask once; raises `Unavailable` or `Invalid`, and keeps what it has then."""
        headers = {"If-None-Match": self._etag} if self._etag else {}
        response = await self._conductor.request("GET", "/v1/document", headers=headers)
        if response.status_code == 304:
            return
        if response.status_code != 200:
            raise Unavailable(f"conductor answered {response.status_code} to GET /v1/document")
        document = self._parse(response.content)
        self._etag = response.headers.get("ETag", "")
        if document == self.current:
            return
        self.current = document
        await asyncio.to_thread(self._keep, response.content)
        log.info("tenant document in force", extra={"generation": document.generation, "digest": document.digest()})

    async def follow(self) -> None:
        """Ask for ever. The same trouble is logged once."""
        while True:
            try:
                await self.refresh()
                self._trouble = ""
            except (Unavailable, Invalid) as error:
                if error.message != self._trouble:
                    log.warning("tenant document not refreshed", extra={"detail": error.message})
                self._trouble = error.message
            await asyncio.sleep(POLL_SECONDS if self.current is not None else FIRST_SECONDS)

    def _parse(self, content: bytes) -> TenantDocument:
        if len(content) > MAX_DOCUMENT:
            raise Invalid(f"tenant document is larger than {MAX_DOCUMENT} bytes")
        try:
            document = TenantDocument.model_validate_json(content)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
            raise Invalid(f"tenant document: field {where or '(body)'} does not fit") from None
        if document.tenant != self._tenant:
            raise Invalid(f"tenant document is of {document.tenant}; expected {self._tenant}")
        return document

    def _keep(self, content: bytes) -> None:
        temporary = self._path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
