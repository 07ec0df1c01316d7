"""The tenant document as the broker knows it: followed (`runtime.document`), and kept on the volume.

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
from folkmoot_core.errors import Invalid
from folkmoot_runtime.document import DocumentFollower
from folkmoot_runtime.peer import Peer

log = logging.getLogger(__name__)


class Documents:
    """Keeps `current`. `path` is the copy on the volume."""

    def __init__(self, conductor: Peer, path: Path, tenant: str) -> None:
        self._follower = DocumentFollower(conductor, self._take)
        self._path = path
        self._tenant = tenant
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
        await self._follower.refresh()

    async def follow(self) -> None:
        """Ask for ever."""
        await self._follower.follow(lambda: self.current is not None)

    async def _take(self, content: bytes) -> None:
        document = self._parse(content)
        if document == self.current:
            return
        self.current = document
        await asyncio.to_thread(self._keep, content)
        log.info("tenant document in force", extra={"generation": document.generation, "digest": document.digest()})

    def _parse(self, content: bytes) -> TenantDocument:
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
