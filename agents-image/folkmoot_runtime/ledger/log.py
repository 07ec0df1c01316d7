"""The log on a volume: group commit, receipts after the sync, checkpoints once a second. ledger.md §5.

Everything that arrives while a sync is in flight is the next batch. The loop's thread owns all state; one worker thread
writes and syncs, another publishes and reads. A failed sync ends the process (`stopped`); a full volume refuses and goes on.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folkmoot_core.entries import EntryRequest, EntryType, Producer, Receipt, new_entry, rfc3339
from folkmoot_core.errors import Conflict, FolkmootError, Unavailable
from folkmoot_core.ledger import bundle, retention, tiles
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.envelope import Prepared, prepare
from folkmoot_runtime.ledger.durable import Os, replace_file
from folkmoot_runtime.ledger.interface import OWN, OWN_ACTOR, check_claims
from folkmoot_runtime.ledger.volume import Birth, Volume, open_volume
from folkmoot_runtime.ledger.waiting import MAX_QUEUED, Admission, Item, Waiting
from folkmoot_runtime.ledger.wal import FIRST_SEGMENT, MAX_COUNT

log = logging.getLogger(__name__)
FULL = (errno.ENOSPC, errno.EDQUOT)


def _new_origin() -> str:
    return f"folkmoot/{uuid.uuid4()}"


def _new_seed() -> bytes:
    return os.urandom(32)


NEW = Birth(origin=_new_origin, seed=_new_seed)


@dataclass(frozen=True)
class Options:
    """How a log is opened and behaves."""

    tenant: str = ""
    """Named in the first entry."""
    checkpoint_interval: float = 1.0
    """Seconds between checkpoints while the log grows."""
    max_queued: int = MAX_QUEUED
    """Entries that may wait; beyond it appends are refused with 429."""
    clock: Callable[[], float] = time.time
    """Epoch seconds, for the times that the ledger itself vouches for."""
    birth: Birth = NEW
    """Identity of a new log."""
    first_segment: int = FIRST_SEGMENT
    """Bytes of the first log file."""
    calls: Os | None = None
    """File operations; None: the machine's own."""


async def open_log(directory: Path, options: Options) -> Log:
    """Open, recover and check the log; a new one gets its identity and entry 0. Raises `LogDamaged` or `Conflict`."""
    volume = await asyncio.to_thread(open_volume, directory, options.birth, options.calls, options.first_segment)
    opened = Log(volume, options)
    try:
        await opened.begin()
    except BaseException:
        await opened.aclose()
        raise
    return opened


class Log:
    """`Ledger` on a volume. Made by `open_log`."""

    def __init__(self, volume: Volume, options: Options) -> None:
        self._volume = volume
        self._options = options
        self._sequence = volume.sequence
        self._wal = volume.wal
        self._waiting = Waiting(options.max_queued)
        self._wake = asyncio.Event()
        self._grown = asyncio.Event()
        self._closing = False
        self._sealed = volume.closed
        self._published, self._published_size = volume.published, volume.published_size
        self._publishing, self._sealing = asyncio.Lock(), asyncio.Lock()
        self._refused = 0
        self._writer_thread = ThreadPoolExecutor(1, "ledger-write")
        self._other_thread = ThreadPoolExecutor(1, "ledger-other")
        self.failure: FolkmootError | None = None
        self.minimum = 0
        """First entry that is still given out (`retention.py`): bundles that end at or below it are not."""
        self.stopped = asyncio.Event()
        """Set when the log cannot go on: the process must exit, `failure` says why."""
        self._writer = asyncio.create_task(self._write_forever())
        self._publisher = asyncio.create_task(self._publish_forever())
        for task in (self._writer, self._publisher):
            task.add_done_callback(self._task_ended)

    @property
    def origin(self) -> str:
        """`folkmoot/<uuid>`."""
        return self._volume.signer.name

    @property
    def vkey(self) -> str:
        """The public key's text."""
        return self._volume.signer.verifier().vkey()

    @property
    def size(self) -> int:
        """Durable entries."""
        return len(self._sequence)

    async def begin(self) -> None:
        """Entry 0 of a new log names tenant and key; a checkpoint covers whatever is there."""
        if self._volume.wal.repaired:
            log.warning("torn last batch cut off", extra={"bytes": self._volume.wal.repaired, "size": self.size})
        if self.size == 0:
            await self._admit([self._own("log.opened", "log.opened", tenant=self._options.tenant, vkey=self.vkey)]).receipts()
        await self.publish()

    # -- appending --------------------------------------------------------------------------------------------------

    async def append(self, requests: Sequence[EntryRequest], producer: Producer) -> list[Receipt]:
        """See `Ledger.append`. Raises `Overloaded` when too much waits, `Unavailable` when the volume is full."""
        for request in requests:
            check_claims(request, producer)
        return await self._admit([prepare(request, origin=self.origin, producer=producer) for request in requests]).receipts()

    def _admit(self, prepared: Sequence[Prepared]) -> Admission:
        admission, fresh = self._waiting.resolve(prepared, self._find)
        if fresh and (self._closing or self.failure is not None):
            raise Unavailable("the ledger is stopping; append again when it is back", retry_after=1)
        if fresh and self._sealed:
            raise Conflict("the log is closed; nothing is appended to it any more", reason="LogClosed")
        self._waiting.admit(admission, fresh)
        self._wake.set()
        return admission

    def _find(self, key: bytes) -> Item | None:
        found = self._sequence.find(key, lambda position: self._wal.read(position, 1)[0])
        if found is None:
            return None
        index, prepared = found
        return Item(prepared, index, self._sequence.rows.leaf(index))

    def _own(self, kind: EntryType, entry_id: str, **data: Any) -> Prepared:
        request = new_entry(kind, OWN_ACTOR, id=entry_id, data=data, now=self._options.clock())
        return prepare(request, origin=self.origin, producer=OWN)

    async def _write_forever(self) -> None:
        """The one consumer of the queue; ends when closing and empty, or when the volume failed."""
        while self.failure is None:
            batch = self._waiting.take(MAX_COUNT, self._wal.max_payload)
            if batch:
                await self._write(batch)
            elif self._closing:
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _write(self, batch: list[Item]) -> None:
        recorded = rfc3339(self._options.clock())
        entries, leaves = self._sequence.seal([item.prepared for item in batch], recorded)
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer_thread, self._wal.append, entries, leaves)
        except OSError as error:
            if error.errno in FULL:
                self._refuse(batch)
            else:
                self._stop(f"writing the log failed: {error.strerror}", batch)
        except FolkmootError as error:  # SyncFailed
            self._stop(error.message, batch)
        else:
            first = self.size
            self._sequence.commit([item.prepared.key for item in batch], leaves)
            self._waiting.durable(batch, leaves, first)
            self._grown.set()
            self._record_refusals()

    def _refuse(self, batch: list[Item]) -> None:
        """The volume is full: nothing of the batch was recorded, and it may be sent again."""
        self._refused += len(batch)
        log.error("volume full", extra={"refused": len(batch), "directory": str(self._volume.directory)})
        self._waiting.reject(batch, Unavailable("the ledger's volume is full; enlarge it", reason="VolumeFull", retry_after=5))

    def _record_refusals(self) -> None:
        """Once there is room again, the log itself says that it refused."""
        if self._refused and not self._sealed:
            entry_id = f"log.degraded-{self.size}"
            self._waiting.add(Item(self._own("log.degraded", entry_id, reason="VolumeFull", refused=self._refused)))
            self._refused = 0

    def _stop(self, why: str, batch: Sequence[Item] = ()) -> None:
        """What is on the disk is unknown: refuse everything and have the process exit; recovery decides."""
        log.critical("ledger stopped", extra={"reason": why})
        self.failure = FolkmootError(f"{why}; the process exits and its next start recovers from the log", reason="SyncFailed")
        refusal = Unavailable("the ledger's volume failed; it starts again", reason="SyncFailed", retry_after=1)
        self._waiting.reject(batch, refusal)
        self._waiting.reject_all(refusal)
        self.stopped.set()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A loop that dies of a fault of ours must not leave producers waiting for ever."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("ledger task died", exc_info=error)
            self._stop(f"internal error: {type(error).__name__}")

    # -- publishing and reading -------------------------------------------------------------------------------------

    async def _publish_forever(self) -> None:
        while True:
            await self._grown.wait()
            await self.publish()
            await asyncio.sleep(self._options.checkpoint_interval)

    async def publish(self) -> None:
        """Sign and publish when the log grew. On a full volume the old checkpoint stays; other failures stop the process."""
        async with self._publishing:
            self._grown.clear()
            size = self.size
            if size == self._published_size or self.failure is not None:
                return
            signed = Checkpoint(self.origin, size, self._sequence.rows.root(size)).sign([self._volume.signer])
            path = self._volume.directory / tiles.CHECKPOINT
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(self._other_thread, replace_file, self._volume.calls, path, signed)
            except OSError as error:
                if error.errno not in FULL:
                    self._stop(f"publishing the checkpoint failed: {error.strerror}")
                    return
                log.warning("checkpoint not published: volume full", extra={"size": size})
                self._grown.set()
            else:
                self._published, self._published_size = signed, size

    async def read(self, path: str) -> bytes | None:
        """See `Ledger.read`."""
        if path == tiles.CHECKPOINT:
            return self._published
        if path == tiles.VKEY:
            return f"{self.vkey}\n".encode()
        tile = tiles.parse(path)
        if tile.level != tiles.ENTRIES:
            return self._sequence.rows.tile(tile)
        if retention.denied(self.minimum, tile):
            return None
        first = tile.index * tiles.WIDTH
        if first + tile.width > self.size:
            return None
        loop = asyncio.get_running_loop()
        return bundle.encode(await loop.run_in_executor(self._other_thread, self._wal.read, first, tile.width))

    # -- ending -----------------------------------------------------------------------------------------------------

    async def close_log(self) -> int:
        """See `Ledger.close_log`."""
        async with self._sealing:
            if not self._sealed:
                admission = self._admit([self._own("log.closed", "log.closed")])
                self._sealed = True  # from here on nothing queues behind it
                try:
                    await admission.receipts()
                except BaseException:
                    self._sealed = False
                    raise
            await self.publish()
            return self.size

    async def aclose(self) -> None:
        """Write what was accepted, publish, close the files, release the lock."""
        self._closing = True
        self._wake.set()
        await asyncio.wait([self._writer])
        self._publisher.cancel()
        await asyncio.wait([self._publisher])
        await self.publish()
        self._writer_thread.shutdown()
        self._other_thread.shutdown()
        self._volume.close()
