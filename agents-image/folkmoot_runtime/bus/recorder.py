"""Pays the ledger what the router owes it: entries that were noted in one transaction with what they record.

An entry's id is the note's own id, so that sending it twice after a crash adds nothing. While the ledger is away the notes
wait; when too many wait, the router stops (router.MAX_OWED).
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from pydantic import ValidationError

from folkmoot_core import names
from folkmoot_core.entries import EntryRequest, new_entry
from folkmoot_core.errors import Conflict, FolkmootError, Invalid
from folkmoot_runtime.bus.connection import RedisError
from folkmoot_runtime.bus.directory import Directory
from folkmoot_runtime.ledger.client import Appender

log = logging.getLogger(__name__)
BATCH = 50
IDLE_SECONDS = 0.5
RETRY_SECONDS = 2.0


class Recorder:
    """Drains `record_key` into the ledger, in order."""

    def __init__(self, redis: Any, tenant: str, directory: Directory, ledger: Appender) -> None:
        self._redis = redis
        self._tenant = tenant
        self._directory = directory
        self._ledger = ledger

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                sent = await self.once()
                await asyncio.sleep(0 if sent else IDLE_SECONDS)
            except (FolkmootError, RedisError, OSError) as error:
                log.warning("the ledger does not take the bus's records yet", extra={"error": type(error).__name__})
                await asyncio.sleep(RETRY_SECONDS)

    async def once(self) -> int:
        """Send what is noted now; returns how many notes that was."""
        key = names.record_key(self._tenant)
        notes = await self._redis.xrange(key, count=BATCH)
        for note_id, fields in notes:
            try:
                await self._ledger.append(self._entry(note_id, fields))
            except (Invalid, Conflict, ValidationError, ValueError) as error:
                # It stays wrong however often it is sent; the log is then the only place left to say so.
                log.error("the ledger refuses a record", extra={"note": note_id, "error": type(error).__name__})
            await self._redis.xdel(key, note_id)
        return len(notes)

    def _entry(self, note_id: str, fields: dict[str, str]) -> EntryRequest:
        kind: Any = fields.get("type", "")
        return new_entry(
            kind, self._directory.actor(fields.get("actor", "")), id=f"bus-{note_id}", data=json.loads(fields.get("data", "{}")),
            session=fields.get("session", ""), config=self._directory.digest(), now=int(note_id.split("-", 1)[0]) / 1000,
        )  # fmt: skip
