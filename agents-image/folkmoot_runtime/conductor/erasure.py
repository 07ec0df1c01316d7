"""Erasing what is kept of a subject or a session, in an order that a crash cannot turn into a lie or a leftover.

The door asks; `run` works, also on what a crash left undone. Steps, with their numbers in the code: 1. in one transaction: no
hold forbids it, every session has ended, what goes is settled and nothing more is stored for it; 2. the entry that announces it
is durable in the log (no receipt, no effect); 3. data keys are destroyed, then the sealed files removed: from here on nothing
opens; 4. in one transaction: rows, openings and words of the sessions go, what is left names commitments alone; 5. the database
is written anew, so that no page keeps a copy; 6. the broker has destroyed its part, and said so; 7. the entry that says it is done is
durable. Each step may be repeated, and a
start goes on with the first that is not known to be done. The tree does not change: entries keep their commitments, which nothing
opens any more. What this does not reach is said in every entry (`not_reached`, docs/privacy.md).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from folkmoot_core.entries import Actor
from folkmoot_core.errors import Conflict, FolkmootError, Unavailable
from folkmoot_core.privacy import MAX_SESSIONS, Erasure, ErasureRequest, SessionsErasure
from folkmoot_runtime.conductor import privacy_rows, sealed_rows
from folkmoot_runtime.conductor.blobs import Artefacts
from folkmoot_runtime.conductor.feed import Feed
from folkmoot_runtime.conductor.notary import Fact, Notary
from folkmoot_runtime.conductor.privacy_rows import ErasureRow
from folkmoot_runtime.conductor.store import Store
from folkmoot_runtime.conductor.vault import Vault
from folkmoot_runtime.peer import Peer

log = logging.getLogger(__name__)
RETRY: Final = 30.0  # seconds before an erasure that could not go on is taken up again
PATIENCE: Final = 10.0  # seconds that a request waits for the end before it answers with what there is


class Calls(Protocol):
    """The broker's journal of model calls, as far as erasing goes."""

    async def erase(self, sessions: Sequence[str]) -> None:
        """Destroyed when this returns; `Unavailable` while it is not."""

    async def aclose(self) -> None: ...


class BrokerCalls:
    """`Calls` over the broker's door."""

    def __init__(self, broker: Peer) -> None:
        self._broker = broker

    async def erase(self, sessions: Sequence[str]) -> None:
        """See `Calls.erase`."""
        for first in range(0, len(sessions), MAX_SESSIONS):
            body = SessionsErasure(sessions=tuple(sessions[first : first + MAX_SESSIONS])).model_dump_json().encode()
            response = await self._broker.request("POST", "/v1/erasures", body=body)
            if response.status_code != 200:
                raise Unavailable(f"the broker answered {response.status_code} to an erasure")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._broker.aclose()


class Erasures:
    """`run` until cancelled. `clock` gives epoch seconds."""

    def __init__(  # noqa: PLR0913 - everything that holds content
        self, store: Store, vault: Vault, artefacts: Artefacts, notary: Notary, feed: Feed, broker: Calls | None,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._store = store
        self._vault = vault
        self._artefacts = artefacts
        self._notary = notary
        self._feed = feed
        self._broker = broker
        self._clock = clock
        self._wake = asyncio.Event()
        self._ended: dict[str, asyncio.Event] = {}

    async def begin(self, request: ErasureRequest, by: str) -> Erasure:
        """Settle an erasure and have it done; answers with its end, or after ten seconds with how far it is."""
        erasure_id = request.id or str(uuid.uuid4())
        row = await self._store.run(privacy_rows.begin_erasure, request, erasure_id, by, int(self._clock() * 1000))  # 1
        if row.view.state == "done":
            return row.view
        ended = self._ended.setdefault(row.view.id, asyncio.Event())
        self._wake.set()
        try:
            await asyncio.wait_for(ended.wait(), PATIENCE)
        except TimeoutError:
            log.info("erasure goes on", extra={"erasure": row.view.id})
        found = await self._store.run(privacy_rows.get_erasure, row.view.id)
        if found is None:
            raise Conflict("the log is closed and takes no entry about an erasure, so nothing was erased", reason="LogClosed")
        return found.view

    async def all(self) -> list[Erasure]:
        """The newest first."""
        return await self._store.run(privacy_rows.list_erasures)

    async def run(self) -> None:
        """Work on what is not done, at the start and whenever something is asked for, until cancelled."""
        while True:
            self._wake.clear()
            left = False
            for row in await self._store.run(privacy_rows.unfinished_erasures):
                left = not await self._work(row) or left
            try:
                await asyncio.wait_for(self._wake.wait(), RETRY if left else None)
            except TimeoutError:
                continue

    async def _work(self, row: ErasureRow) -> bool:
        """Whether it is over. The edge of one erasure: the next one is worked on whatever becomes of this."""
        erasure = row.view.id
        try:
            await self._erase(row)
        except Conflict as error:
            if error.reason != "LogClosed" or row.view.state != "intended":
                log.error("erasure cannot go on", extra={"erasure": erasure, "error": error.message})
                return False
            await self._store.run(privacy_rows.withdraw_erasure, row)
            log.error("erasure withdrawn: the log is closed", extra={"erasure": erasure})
        except (FolkmootError, OSError) as error:
            log.warning("erasure waits", extra={"erasure": erasure, "error": str(error)})
            return False
        if (ended := self._ended.pop(erasure, None)) is not None:
            ended.set()
        return True

    async def _erase(self, row: ErasureRow) -> None:
        erasure, state = row.view, row.view.state
        if state == "intended":
            position = await self._notary.put(_fact(row, "intent", {"ranges": row.ranges}))  # 2
            await self._store.run(privacy_rows.advance, erasure.id, "recorded", intent=position)
            state = "recorded"
        if state == "recorded":
            if row.whole:
                months = await self._store.run(sealed_rows.key_months, erasure.subject_ref)
                await self._vault.destroy([(erasure.subject_ref, month) for month in months])  # 3
            await self._artefacts.remove(row.sealed)
            await self._store.run(privacy_rows.destroy_rows, row, int(self._clock() * 1000))  # 4
            for uid in row.sessions:
                self._feed.changed(uid)  # the operator's status has a preview
        await self._store.compact()  # 5
        if self._broker is not None:
            await self._broker.erase(row.sessions)  # 6
            await self._store.run(privacy_rows.mark_broker, erasure.id)
        known = await self._store.run(privacy_rows.get_erasure, erasure.id)
        assert known is not None  # noqa: S101 - only a withdrawn one goes, and this one was recorded
        outcome = await self._end(row, {"intent": known.view.intent, "not_reached": list(known.view.not_reached)})
        await self._store.run(privacy_rows.advance, erasure.id, "done", outcome=outcome)
        log.info("erased", extra={"erasure": erasure.id, "subject_ref": erasure.subject_ref, "commitments": erasure.count})

    async def _end(self, row: ErasureRow, data: dict[str, Any]) -> int | None:
        """Position of the last entry. A log that was closed meanwhile has the announcement, which must do."""
        try:
            return await self._notary.put(_fact(row, "done", data))  # 7
        except Conflict as error:
            if error.reason != "LogClosed":
                raise
            return None


def _fact(row: ErasureRow, stage: str, more: dict[str, Any]) -> Fact:
    erasure = row.view
    data = {
        "erasure": erasure.id, "stage": stage, "subject_ref": erasure.subject_ref, "session": erasure.session,
        "basis": erasure.basis, "by": erasure.by, "count": erasure.count, "files": len(row.sealed), "refs_digest": erasure.digest,
        "not_reached": list(erasure.not_reached), **more,
    }  # fmt: skip
    return Fact(id=f"erasure/{erasure.id}/{stage}", type="erasure", actor=Actor(kind="human", id=erasure.by), data=data)
