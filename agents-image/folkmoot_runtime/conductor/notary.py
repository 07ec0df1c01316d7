"""What the conductor writes into the ledger, so that each fact is written once: no receipt, no effect.

An entry is kept in the database before it is sent; after a crash the same entry is sent again and the ledger recognises its id.
The salt of its commitment is made from a secret inside the sealed content, so it is nowhere else, and goes with it. `put` returns when the entry is durable, however long the ledger is away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from folkmoot_core import sealing
from folkmoot_core.canonical import commit
from folkmoot_core.document import LogReport, TenantDocument
from folkmoot_core.entries import Actor, EntryRequest, EntryType, Payload, Receipt, new_entry
from folkmoot_core.errors import Forbidden, LimitReached, Unauthorized, Unavailable
from folkmoot_runtime.conductor import rows
from folkmoot_runtime.conductor.blobs import Artefacts
from folkmoot_runtime.conductor.sealed_rows import Opening
from folkmoot_runtime.conductor.store import Store

log = logging.getLogger(__name__)
FIRST_WAIT: Final = 0.5  # seconds between attempts, doubling up to LONGEST_WAIT
LONGEST_WAIT: Final = 15.0
CONFIG_ENTRIES: Final = "config/"  # prefix of the ids of config.changed


class Ledger(Protocol):
    """What the conductor needs of the ledger: LedgerClient, or a twin."""

    async def append(self, request: EntryRequest) -> Receipt: ...

    async def close_log(self) -> int: ...

    async def read(self, path: str) -> bytes | None: ...

    async def status(self) -> LogReport: ...

    async def rotate(self) -> str: ...

    async def anchor(self) -> LogReport: ...

    async def freeze(self, reason: str, message: str) -> LogReport: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class Fact:
    """Something to put on record. `id` is stable, so that saying it again adds nothing; `commits_to` is the digest of an
    artefact of the session that the entry commits to with a salt of its own; such an entry also says whose content that is, by
    the subject's token."""

    id: str
    type: EntryType
    actor: Actor
    data: Mapping[str, Any] = field(default_factory=dict)
    session: str = ""
    config: str = ""
    commits_to: str = ""
    media: str = "application/json"


class Notary:
    """`clock` gives epoch seconds."""

    def __init__(self, store: Store, artefacts: Artefacts, ledger: Ledger, clock: Callable[[], float]) -> None:
        self.ledger = ledger
        self._store = store
        self._artefacts = artefacts
        self._clock = clock

    async def put(self, fact: Fact) -> int:
        """Index of the entry, once it is durable. `Conflict` (the log is closed) and `Invalid` are for the caller to handle."""
        await self._prepare(fact)
        return await self.send(fact.id)

    async def send(self, entry_id: str) -> int:
        """Append a kept entry, with retries for as long as it takes."""
        stored = await self._store.run(rows.get_entry, entry_id)
        assert stored is not None  # noqa: S101 - kept by `_prepare` or with the document
        request, index = stored
        if index is None:
            index = (await self._append(request)).index
            await self._store.run(rows.set_position, entry_id, index)
        return index

    async def commitment(self, entry_id: str) -> str:
        """The commitment that a kept entry carries, or ''."""
        stored = await self._store.run(rows.get_entry, entry_id)
        return stored[0].payload.commit if stored and stored[0].payload else ""

    async def _prepare(self, fact: Fact) -> None:
        if await self._store.run(rows.get_entry, fact.id) is not None:
            return
        payload, opening, data = None, None, dict(fact.data)
        if fact.commits_to:
            ref, opened = await self._artefacts.opened_for(fact.session, fact.commits_to)
            commitment = commit(sealing.salt(opened.secret, fact.id), opened.content)
            opening = Opening(commitment, fact.id, ref, fact.commits_to, fact.session)
            payload = Payload(commit=commitment, size=len(opened.content), media=fact.media)
            data["subject_ref"] = ref
        request = new_entry(
            fact.type, fact.actor, id=fact.id, data=data, session=fact.session, config=fact.config, payload=payload,
            now=self._clock(),
        )  # fmt: skip
        await self._store.run(rows.put_entry, request, opening)

    async def _append(self, request: EntryRequest) -> Receipt:
        wait = FIRST_WAIT
        while True:
            try:
                return await self.ledger.append(request)
            except Forbidden:
                raise  # saying it again would be refused again
            except (Unavailable, Unauthorized, LimitReached) as error:  # the ledger's trouble, not the entry's: it passes
                log.warning("waiting for a receipt", extra={"entry": request.id, "error": error.message})
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)


def actor_of(document: TenantDocument | None, agent: str = "") -> Actor:
    """The agent by name, with its identity; without one, the conductor, which acts for the tenant."""
    if not agent:
        identity = document.identity if document else None
    else:
        identity = next((a.identity for a in document.agents if a.name == agent), None) if document else None
    kind: Literal["agent", "service"] = "agent" if agent else "service"
    seed, commitment = (identity.seed, identity.commitment) if identity else ("", "")
    return Actor(kind=kind, id=agent or "conductor", seed=seed, commitment=commitment)
