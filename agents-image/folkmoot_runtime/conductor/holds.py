"""Legal holds: what they are on is neither erased nor forgotten, and no reading of the log ends, until they are released.

The door asks. A hold is in force from its row on, before its entry is durable; its release counts only once that is on record. So
a crash in between leaves more held, never less; `run` brings owed entries into the log at the next start.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any, Final

from folkmoot_core.entries import Actor, EntryType
from folkmoot_core.errors import FolkmootError, Unavailable
from folkmoot_core.privacy import Hold, HoldRequest
from folkmoot_runtime.conductor import privacy_rows
from folkmoot_runtime.conductor.notary import Fact, Notary
from folkmoot_runtime.conductor.store import Store

log = logging.getLogger(__name__)
RECORD_SECONDS: Final = 10.0  # for the receipt of an entry, before the caller is told to ask again


class Holds:
    """`clock` gives epoch seconds."""

    def __init__(self, store: Store, notary: Notary, clock: Callable[[], float]) -> None:
        self._store = store
        self._notary = notary
        self._clock = clock

    async def place(self, request: HoldRequest, by: str) -> Hold:
        """In force when this returns or raises `Unavailable` (no receipt yet). Raises `Missing` for what nobody knows."""
        hold_id = request.id or str(uuid.uuid4())
        hold = await self._store.run(privacy_rows.place_hold, request, hold_id, by, int(self._clock() * 1000))
        await self._patiently(self._record(hold, ""))
        return await self._get(hold_id)

    async def release(self, hold_id: str, by: str) -> Hold:
        """Not in force any more when this returns; repeating it changes nothing."""
        hold = await self._store.run(privacy_rows.begin_release, hold_id, by)
        if hold.released is None:
            await self._patiently(self._record(hold, by))
        return await self._get(hold_id)

    async def all(self) -> list[Hold]:
        """The newest first, released ones too."""
        return await self._store.run(privacy_rows.list_holds)

    async def run(self) -> None:
        """Bring owed entries into the log, once, at the start."""
        for hold_id, releasing in await self._store.run(privacy_rows.owed_holds):
            try:
                await self._record(await self._get(hold_id), releasing)
            except FolkmootError as error:  # refused for good: the log is closed
                log.error("hold not recorded", extra={"hold": hold_id, "error": error.message})

    async def _record(self, hold: Hold, releasing: str) -> None:
        """The entry that places it, if it is owed, and then, with `releasing`, the one that releases it."""
        if hold.entry is None:
            position = await self._notary.put(_fact(hold, "legal.hold", hold.by, {"reason": hold.reason}))
            await self._store.run(privacy_rows.mark_placed, hold.id, position)
        if releasing:
            position = await self._notary.put(_fact(hold, "legal.hold.released", releasing, {}))
            await self._store.run(privacy_rows.mark_released, hold.id, position)

    async def _get(self, hold_id: str) -> Hold:
        hold = await self._store.run(privacy_rows.get_hold, hold_id)
        assert hold is not None  # noqa: S101 - holds are never removed
        return hold

    async def _patiently(self, recording: Any) -> None:
        try:
            await asyncio.wait_for(recording, RECORD_SECONDS)
        except TimeoutError:
            raise Unavailable("the ledger gives no receipt yet; the hold is in force. Ask again", retry_after=5) from None


def _fact(hold: Hold, kind: EntryType, by: str, more: dict[str, Any]) -> Fact:
    data = {"hold": hold.id, "scope": hold.scope, "subject_ref": hold.subject_ref, "session": hold.session, "by": by, **more}
    return Fact(id=f"hold/{hold.id}/{kind}", type=kind, actor=Actor(kind="human", id=by), data=data)
