"""The evidence of a tenant as one tar stream: the log, then the content its entries commit to, then the openings, then which
commitments have no content any more because it was erased, each with the position of its entry and of the erasure's.

Both doors serve it. The log is copied first, so every opening that an entry in it needs is already there afterwards.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator

from folkmoot_core import sealing
from folkmoot_core.entries import Actor
from folkmoot_core.errors import Conflict, FolkmootError, Unavailable
from folkmoot_core.sealing import Opened
from folkmoot_runtime.conductor import sealed_rows
from folkmoot_runtime.conductor.blobs import Artefacts
from folkmoot_runtime.conductor.notary import Fact, Notary
from folkmoot_runtime.conductor.sealed_rows import Opening
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
        """Put on record that somebody takes a copy. A closed or frozen log is still evidence, and takes no more entries."""
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
            if (await self._notary.ledger.status()).state == "Frozen":
                log.warning("evidence of a frozen log handed out; the log cannot say so", extra={"reader": reader})
                return
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
        lines: list[str] = []
        last = ""
        for artefact in await self._store.run(sealed_rows.all_artefacts):
            try:
                opened = await self._artefacts.unseal(artefact)
            except FolkmootError as error:  # the rest is evidence all the same; what is missing shows in the entries
                log.error("artefact missing from evidence", extra={"digest": artefact.digest, "error": error.message})
                continue
            if artefact.digest != last:  # what two subjects have is there once; each commitment to it is opened
                yield tar_member(f"artifacts/{artefact.digest.removeprefix('sha256:')}", opened.content)
                last = artefact.digest
            for opening in await self._store.run(sealed_rows.get_openings, artefact.ref, artefact.digest):
                lines.append(_line(opening, opened))
        yield tar_member("artifacts/openings.jsonl", "".join(lines).encode())
        erased = [
            json.dumps({"commit": commitment, "entry": position, "erasure": entry}, sort_keys=True) + "\n"
            for commitment, position, entry in await self._store.run(sealed_rows.erased_commitments)
        ]
        yield tar_member("artifacts/erased.jsonl", "".join(erased).encode())
        yield TAR_END


def _line(opening: Opening, opened: Opened) -> str:
    """What opens one commitment: anybody with it and the content can check it against the entry."""
    salt = sealing.salt(opened.secret, opening.entry)
    return json.dumps({"commit": opening.commit, "salt": salt.hex(), "digest": opening.digest}, sort_keys=True) + "\n"
