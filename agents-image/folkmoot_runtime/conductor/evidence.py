"""The evidence of a tenant as one tar stream: the log, then the content its entries commit to, then the openings.

Both doors serve it. The log is copied first, so every opening that an entry in it needs is already there afterwards.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator

from folkmoot_core.errors import FolkmootError, Unavailable
from folkmoot_runtime.conductor import rows
from folkmoot_runtime.conductor.blobs import Artefacts
from folkmoot_runtime.conductor.notary import Ledger
from folkmoot_runtime.conductor.store import Store
from folkmoot_runtime.ledger.export import TAR_END, export_tar, tar_member

log = logging.getLogger(__name__)


class Evidence:
    """Makes tar streams; each is a fresh copy."""

    def __init__(self, store: Store, artefacts: Artefacts, ledger: Ledger) -> None:
        self._store = store
        self._artefacts = artefacts
        self._ledger = ledger

    async def stream(self) -> AsyncIterator[bytes]:
        """Chunks of the tar. The first is waited for here, so that a ledger that is away is an error and not a torn answer."""
        chunks = export_tar(self._ledger.read)
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
