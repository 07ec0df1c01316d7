"""The tenant document in force: stored before it is acknowledged, on record in the ledger, handed to whoever waits for it.

The operator's door puts it; doors, service and reporter read it. A document is always whole: what is not in it is gone.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable

from folkmoot_core.document import TenantDocument
from folkmoot_core.entries import new_entry
from folkmoot_core.errors import FolkmootError, Invalid, Unavailable
from folkmoot_runtime.conductor import rows
from folkmoot_runtime.conductor.notary import CONFIG_ENTRIES, Notary, actor_of
from folkmoot_runtime.conductor.store import Store

log = logging.getLogger(__name__)


class Documents:
    """`clock` gives epoch seconds."""

    def __init__(self, store: Store, notary: Notary, tenant: str, clock: Callable[[], float]) -> None:
        self.current: TenantDocument | None = None
        self.digest = ""
        self._store = store
        self._notary = notary
        self._tenant = tenant
        self._clock = clock
        self._listeners: list[Callable[[], None]] = []
        self._next = asyncio.Event()
        self._unrecorded = asyncio.Event()
        self._unrecorded.set()

    async def load(self) -> None:
        """Read back the one in force before the last stop."""
        self._show(await self._store.run(rows.get_document))

    async def put(self, document: TenantDocument) -> str:
        """Make it the one in force and return its digest; the same one again changes nothing."""
        if document.tenant != self._tenant:
            raise Invalid(f"document is of tenant {document.tenant[:80]!r}; this is the conductor of {self._tenant}")
        digest, now = document.digest(), self._clock()

        def store(db: sqlite3.Connection) -> bool:
            if not rows.put_document(db, document, int(now * 1000)):
                return False
            # In the same transaction, so that no digest can ever be in force without its entry being owed to the ledger.
            data = {"document": digest, "generation": document.generation}
            entry = new_entry(
                "config.changed", actor_of(document), id=f"{CONFIG_ENTRIES}{rows.next_number(db, 'config'):08d}",
                data=data, config=digest, now=now,
            )  # fmt: skip
            rows.put_entry(db, entry, None)
            return True

        if await self._store.run(store):
            log.info("document in force", extra={"digest": digest, "generation": document.generation})
            self._unrecorded.set()
        if digest != self.digest or self.current is None or self.current.generation != document.generation:
            self._show(document)
        return digest

    def require(self) -> TenantDocument:
        """The one in force; raises `Unavailable` before the operator has sent the first."""
        if self.current is None:
            raise Unavailable(
                "the conductor has no tenant document yet; the operator sends it", reason="NoConfiguration", retry_after=2
            )
        return self.current

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener()` after each change."""
        self._listeners.append(listener)

    async def next_change(self) -> None:
        """Wait for the next document."""
        await self._next.wait()

    async def record_forever(self) -> None:
        """Bring owed `config.changed` entries into the ledger, in order."""
        while True:
            await self._unrecorded.wait()
            self._unrecorded.clear()
            for entry_id in await self._store.run(rows.waiting_entries, CONFIG_ENTRIES):
                try:
                    await self._notary.send(entry_id)
                except FolkmootError as error:  # refused for good: the log is closed
                    log.error("configuration not recorded", extra={"entry": entry_id, "error": error.message})

    def _show(self, document: TenantDocument | None) -> None:
        if document is None:
            return
        self.current, self.digest = document, document.digest()
        bell, self._next = self._next, asyncio.Event()
        bell.set()
        for listener in self._listeners:
            listener()
