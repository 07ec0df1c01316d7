"""Data keys of subjects, one for each month: made when they are needed, wrapped by the keyring, kept ready in memory, destroyed.

Called by the artefact store (to seal and open) and by erasure and housekeeping (to destroy). The database has the wrapped keys;
the keyring has what opens them. A key in memory is dropped before its destruction is begun.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from folkmoot_core import sealing
from folkmoot_core.errors import FolkmootError, Invalid, Missing, Unavailable
from folkmoot_core.ledger import tiles
from folkmoot_core.ledger.note import parse_vkey
from folkmoot_core.sealing import DataKey
from folkmoot_runtime.conductor import rows, sealed_rows
from folkmoot_runtime.conductor.keyring import Keyring, open_keyring
from folkmoot_runtime.conductor.sealed_rows import KeyRow
from folkmoot_runtime.conductor.store import Store

log = logging.getLogger(__name__)
T = TypeVar("T")
READY: Final = 256  # data keys kept ready in memory
LEARN_SECONDS: Final = 5.0
_KEK_ID: Final = "kek"
_ORIGIN: Final = "origin"


class VaultOptions(NamedTuple):
    """`directory` holds KEK and shares; `kek_file`: a mounted KEK instead; `keyring`: another one than the file twin. `tenant`
    names what keys are bound to while the log's origin is not known yet. `clock` gives epoch seconds."""

    directory: Path
    clock: Callable[[], float]
    tenant: Callable[[], str]
    kek_file: Path | None = None
    keyring: Keyring | None = None
    random: Callable[[int], bytes] = secrets.token_bytes
    executor: Executor | None = None


class Vault:
    """`open` before use."""

    def __init__(self, store: Store, options: VaultOptions) -> None:
        self.random = options.random
        self._store = store
        self._options = options
        self._ring = options.keyring
        self._executor = options.executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="vault")
        self._ready: OrderedDict[tuple[str, str], DataKey] = OrderedDict()

    async def open(self) -> None:
        """Find the key-encryption key. Raises `Unavailable` when it is missing or not the one that sealed what is here."""
        known = await self._store.run(rows.get_meta, _KEK_ID)
        if self._ring is None:
            self._ring = await self.in_thread(open_keyring, self._options.directory, self._options.kek_file, known)
        if known not in (None, self._ring.id):
            raise Unavailable("the keyring is another one than sealed this volume's content; name that one", reason="KekMismatch")
        if known is None:
            await self._store.run(rows.set_meta, _KEK_ID, self._ring.id)

    async def learn_origin(self, read: Callable[[str], Any]) -> None:
        """Find out, once, the origin of the tenant's log, which keys made from then on are bound to."""
        while await self._store.run(rows.get_meta, _ORIGIN) is None:
            try:
                vkey = await read(tiles.VKEY)
                if vkey is not None:
                    await self._store.run(rows.set_meta, _ORIGIN, parse_vkey(vkey.decode(errors="replace")).name)
                    return
            except FolkmootError as error:
                log.info("the log's origin is not known yet", extra={"error": error.message})
            await asyncio.sleep(LEARN_SECONDS)

    async def current(self, ref: str) -> tuple[str, DataKey]:
        """This month's key of a subject, made if there is none. Whoever stores what was sealed under it looks again whether it
        is still there."""
        month = sealing.month_of(self._options.clock())
        if (found := self._ready.get((ref, month))) is not None:
            return month, found
        row = await self._store.run(sealed_rows.get_key, ref, month)
        if row is None:
            context = await self._store.run(rows.get_meta, _ORIGIN) or self._options.tenant()
            wrapped = await self.in_thread(self._keyring.wrap, _name(ref, month), self.random(sealing.KEY))
            row = await self._store.run(sealed_rows.put_key, ref, month, KeyRow(context, wrapped))
        return month, await self._unwrap(ref, month, row)

    async def key(self, ref: str, month: str) -> DataKey:
        """A key that something is sealed under. Raises `Missing` (KeyDestroyed) when there is none any more."""
        if (found := self._ready.get((ref, month))) is not None:
            self._ready.move_to_end((ref, month))
            return found
        row = await self._store.run(sealed_rows.get_key, ref, month)
        if row is None:
            raise Missing(f"the data key of {month} of subject {ref} was destroyed", reason="KeyDestroyed")
        return await self._unwrap(ref, month, row)

    async def destroy(self, keys: Iterable[tuple[str, str]]) -> None:
        """Make keys unusable for good. Their rows are the caller's to remove, afterwards: until then this can be repeated."""
        for ref, month in keys:
            self._ready.pop((ref, month), None)
            await self.in_thread(self._keyring.destroy, _name(ref, month))
            self._ready.pop((ref, month), None)  # whoever had its row in hand meanwhile

    @property
    def _keyring(self) -> Keyring:
        if self._ring is None:
            raise Unavailable("the keyring is not open yet", retry_after=1)
        return self._ring

    async def _unwrap(self, ref: str, month: str, row: KeyRow) -> DataKey:
        try:
            plain = await self.in_thread(self._keyring.unwrap, _name(ref, month), row.wrapped)
        except Invalid as error:
            raise Unavailable(f"data key of {month} of subject {ref}: {error.message}", reason="KeyDamaged") from error
        ready = self._ready[ref, month] = DataKey(plain, row.context)
        while len(self._ready) > READY:
            self._ready.popitem(last=False)
        return ready

    async def in_thread(self, work: Callable[..., T], *args: object) -> T:
        """Run something that waits for a disk or a key service."""
        return await asyncio.wrap_future(self._executor.submit(work, *args))


def _name(ref: str, month: str) -> str:
    return f"{ref}/{month}"
