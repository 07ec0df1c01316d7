"""Who belongs to the tenant: the document as the conductor hands it out, followed by polling.

The router knows nobody but the core until the first answer; with an answer it goes on when the conductor is away.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from pydantic import ValidationError

from folkmoot_core.document import TenantDocument
from folkmoot_core.entries import Actor
from folkmoot_core.errors import Invalid
from folkmoot_core.names import CORE
from folkmoot_runtime.document import POLL_SECONDS, DocumentFollower
from folkmoot_runtime.peer import Peer

LONGEST_LOOK = 5.0  # seconds; routing may wait for a look
MIN_BETWEEN = 1.0  # seconds between two looks that unknown names asked for


class Directory(Protocol):
    """What router, door and recorder ask about the tenant."""

    @property
    def known(self) -> bool:
        """Whether any document was seen."""

    def participants(self) -> frozenset[str]:
        """The core and the document's agents."""

    def digest(self) -> str:
        """Digest of the document in force; empty before the first."""

    def actor(self, participant: str) -> Actor:
        """The participant as an entry names it."""

    async def refresh(self) -> None:
        """Look again, at most once in MIN_BETWEEN."""


class DocumentDirectory:
    """A `Directory` from one `TenantDocument`; `document` may be replaced at any time."""

    def __init__(self, document: TenantDocument | None = None) -> None:
        self._document: TenantDocument | None = None
        self._digest = ""
        self._participants = frozenset({CORE})
        if document is not None:
            self.replace(document)

    def replace(self, document: TenantDocument) -> None:
        """Put a document in force."""
        self._document = document
        self._digest = document.digest()
        self._participants = frozenset({CORE, *(agent.name for agent in document.agents)})

    @property
    def known(self) -> bool:
        """See `Directory.known`."""
        return self._document is not None

    def participants(self) -> frozenset[str]:
        """See `Directory.participants`."""
        return self._participants

    def digest(self) -> str:
        """See `Directory.digest`."""
        return self._digest

    def actor(self, participant: str) -> Actor:
        """See `Directory.actor`."""
        for agent in self._document.agents if self._document else ():
            if agent.name == participant:
                return Actor(kind="agent", id=participant, seed=agent.identity.seed, commitment=agent.identity.commitment)
        return Actor(kind="service" if participant == CORE else "agent", id=participant)

    async def refresh(self) -> None:
        """Nothing to look at."""


class ConductorDirectory(DocumentDirectory):
    """Follows the conductor's `GET /v1/document`."""

    def __init__(self, conductor: Peer) -> None:
        super().__init__()
        self._follower = DocumentFollower(conductor, self._take)
        self._looked = -MIN_BETWEEN

    async def follow(self) -> None:
        """Poll for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """See `Directory.refresh`. A failure changes nothing and is said once."""
        # Waiting out the rest of the interval, not skipping the look: a document that came just after the last one would
        # otherwise get its first message refused.
        await asyncio.sleep(max(0.0, self._looked + MIN_BETWEEN - time.monotonic()))
        self._looked = time.monotonic()
        await self._follower.look()

    async def _take(self, content: bytes) -> None:
        try:
            self.replace(TenantDocument.model_validate_json(content))
        except ValidationError:
            raise Invalid("the conductor answered something else than a tenant document") from None
