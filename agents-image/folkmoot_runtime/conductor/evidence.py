"""The evidence of a tenant as one tar stream: the log, then the content its entries commit to, then the openings.

Both doors serve it. The log is copied first, so every opening that an entry in it needs is already there afterwards.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator

from folkmoot_core.entries import Actor
from folkmoot_core.errors import Conflict, FolkmootError, Unavailable
from folkmoot_runtime.conductor import rows
from folkmoot_runtime.conductor.blobs import Artefacts
from folkmoot_runtime.conductor.notary import Fact, Notary
from folkmoot_runtime.conductor.store import Store
from folkmoot_runtime.ledger.export import TAR_END, export_tar, tar_member

log = logging.getLogger(__name__)
RECORD_SECONDS = 10.0  # for the receipt of the entry about a read


class Evidence:
    """Makes tar streams; each is a fresh copy."""

    def __init__(self, store: Store, artefacts: Artefacts, notary: Notary) -> None:
        self._store = store
        self._artefacts = artefacts
        self._notary = notary

    async def record(self, reader: str) -> None:
        """Put on record that somebody takes a copy. A closed log is still evidence, and takes no more entries."""
        fact = Fact(
            id=f"evidence.exported/{uuid.uuid4()}",
            type="evidence.exported",
            actor=Actor(kind="human", id=reader),
            data={"reader": reader},
        )
        try:
            async with asyncio.timeout(RECORD_SECONDS):
                await self._notary.put(fact)
        except TimeoutError:
            raise Unavailable(
                "the ledger gives no receipt for this read, so nothing is handed out; ask again", retry_after=5
            ) from None
        except Conflict as error:
            if error.reason != "LogClosed":
                raise

    async def stream(self) -> AsyncIterator[bytes]:
        """Chunks of the tar. The first is waited for here, so that a ledger that is away is an error and not a torn answer."""
        chunks = export_tar(self._notary.ledger.read)
        try:
            first = await anext(chunks)
        except StopAsyncIteration:
            raise Unavailable("the ledger has no checkpoint yet; ask again", retry_after=2) from None
        return self._rest(first, chunks)

    async def _rest(self, first: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk
        for digest, _ in await self._store.run(rows.all_artefacts):
            try:
                content = await self._artefacts.get(digest)
            except FolkmootError as error:  # the rest is evidence all the same; what is missing shows in the openings
                log.error("artefact missing from evidence", extra={"digest": digest, "error": error.message})
                continue
            yield tar_member(f"artifacts/{digest.removeprefix('sha256:')}", content)
        openings = await self._store.run(rows.get_openings)
        lines = "".join(json.dumps(opening._asdict(), sort_keys=True) + "\n" for opening in openings)
        yield tar_member("artifacts/openings.jsonl", lines.encode())
        yield TAR_END
