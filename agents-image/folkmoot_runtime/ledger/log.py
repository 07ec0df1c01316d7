"""The log on a volume: group commit, receipts after the sync, checkpoints once a second. ledger.md §5.

The loop's thread owns all state; one worker thread writes and syncs (`writer.py`), another publishes and reads. A failed sync
ends the process (`stopped`); a full volume refuses and goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from folkmoot_core.document import AuditEntry, LogReport
from folkmoot_core.entries import EntryRequest, EntryType, Producer, Receipt
from folkmoot_core.errors import Conflict, FolkmootError, Unavailable
from folkmoot_core.ledger import anchor, checkpoint, note, retention, rotation, tiles
from folkmoot_core.ledger.envelope import Prepared, prepare
from folkmoot_runtime.durable import Os, RealOs, remove_file
from folkmoot_runtime.keyring import NoWrapper, Wrapper
from folkmoot_runtime.ledger import clock
from folkmoot_runtime.ledger.interface import check_claims, own
from folkmoot_runtime.ledger.keys import LogKeys
from folkmoot_runtime.ledger.publisher import Publisher, Trouble
from folkmoot_runtime.ledger.records import MAX_COUNT, LogDamaged
from folkmoot_runtime.ledger.segments import FIRST_SEGMENT
from folkmoot_runtime.ledger.volume import NEW, Birth, Opening, Volume, open_volume
from folkmoot_runtime.ledger.waiting import MAX_QUEUED, Admission, Lot, Waiting, durable_lot, lot_of
from folkmoot_runtime.ledger.witnesses import Witnesses
from folkmoot_runtime.ledger.writer import Writer

if TYPE_CHECKING:
    from folkmoot_runtime.ledger.anchors import Anchors

log = logging.getLogger(__name__)
FENCE_SECONDS = 10.0  # that an append waits for the first word of the witness
LONGEST_WAIT = 15.0  # seconds between attempts to publish


@dataclass(frozen=True)
class Options:
    """How a log is opened and behaves."""

    tenant: str = ""
    """Named in the first entry."""
    checkpoint_interval: float = 1.0
    """Seconds between checkpoints while the log grows."""
    max_queued: int = MAX_QUEUED
    """Entries that may wait; beyond it appends are refused with 429."""
    batch: int = MAX_COUNT
    """Entries of a batch at most."""
    clock: Callable[[], float] = time.time
    """Epoch seconds, for the times that the ledger itself vouches for."""
    birth: Birth = NEW
    """Identity of a new log."""
    first_segment: int = FIRST_SEGMENT
    """Bytes of the first log file."""
    calls: Os = field(default_factory=RealOs)
    """File operations."""
    wrapper: Wrapper = field(default_factory=NoWrapper)
    """What wraps the signing keys on the volume."""
    fence: Witnesses | None = None
    """Who must cosign before anything is published; None: the installation has no witness."""


async def open_log(directory: Path, options: Options) -> Log:
    """Open, recover and check the log; a new one gets its identity and entry 0. Raises `LogDamaged` or `Conflict`."""
    opening = Opening(options.birth, options.calls, options.wrapper, options.first_segment, options.clock)
    volume = await asyncio.to_thread(open_volume, directory, opening)
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
        self._batches = Writer(volume.wal, volume.sequence, self._waiting, self, clock=options.clock, limit=options.batch)
        self._published = asyncio.Event()
        self._grown = asyncio.Event()
        self._closing = False
        self._sealed = volume.closed
        self._sealing = asyncio.Lock()
        self._publisher = Publisher(volume, options.fence, options.clock)
        self._refused = 0
        self._clock_entry: Lot | None = None  # that the times before it are wrong
        self._damage: Trouble | None = None  # that a reader has met
        self._other_thread = ThreadPoolExecutor(1, "ledger-other")
        self.failure: FolkmootError | None = None
        self.anchors: Anchors | None = None
        """Who has the log timestamped, and has the files; set by who runs it."""
        self.minimum = 0
        """First entry that is still given out (`retention.py`): bundles that end at or below it are not."""
        self.stopped = asyncio.Event()
        """Set when the log cannot go on: the process must exit, `failure` says why."""
        self._writer = asyncio.create_task(self._batches.run())
        self._showing = asyncio.create_task(self._publish_forever())
        for task in (self._writer, self._showing):
            task.add_done_callback(self._task_ended)

    @property
    def origin(self) -> str:
        """`folkmoot/<uuid>`."""
        return self._volume.keys.origin

    @property
    def vkey(self) -> str:
        """The public Ed25519 key's text."""
        return self._publisher.keys.vkey()

    @property
    def size(self) -> int:
        """Durable entries."""
        return len(self._sequence)

    async def begin(self) -> None:
        """Entry 0 of a new log names tenant and key; a checkpoint covers whatever is there."""
        if self._volume.wal.repaired:
            log.warning("torn last batch cut off", extra={"bytes": self._volume.wal.repaired, "size": self.size})
        if self.size == 0:
            vkey, mldsa = self._publisher.keys.vkeys()
            await self.admit(
                [self._own("log.opened", "log.opened", tenant=self._options.tenant, vkey=vkey, mldsa=mldsa)]
            ).receipts()
        if self._options.fence is None:
            await self.publish()
        else:
            self._grown.set()  # witnesses are reached through others, for whom a start does not wait

    # -- appending --------------------------------------------------------------------------------------------------

    async def append(self, requests: Sequence[EntryRequest], producer: Producer) -> list[Receipt]:
        """See `Ledger.append`. Raises `Overloaded` when too much waits, `Unavailable` when the volume is full."""
        for request in requests:
            check_claims(request, producer)
        await self._fenced()
        return await self.admit([prepare(request, origin=self.origin, producer=producer) for request in requests]).receipts()

    async def _fenced(self) -> None:
        """A log that starts again takes nothing before its witness said that the volume is the newest; a running one goes on."""
        if self._publisher.checked.is_set():
            return
        if self._publisher.frozen is not None:  # no witness's word will change that
            raise self._unfenced()
        try:
            async with asyncio.timeout(FENCE_SECONDS):
                await self._publisher.checked.wait()
        except TimeoutError:
            raise self._unfenced() from None

    def _unfenced(self) -> Unavailable:
        if (frozen := self._publisher.frozen) is not None:
            return Unavailable(f"the log is frozen ({frozen.reason}): {frozen.message}", reason="LogFrozen", retry_after=60)
        trouble = self._publisher.trouble
        why = f": {trouble.message}" if trouble else ""
        return Unavailable(f"the ledger started and waits for its witness before it takes entries{why}",
                           reason="WaitingForWitness", retry_after=1)  # fmt: skip

    def admit(self, prepared: Sequence[Prepared]) -> Admission:
        """Queue entries whose claims were checked: the part of `append` before the waiting."""
        admission = self._waiting.resolve(prepared, self)
        fresh = admission.fresh.prepared
        if fresh and not self._publisher.checked.is_set():
            raise self._unfenced()
        if fresh and (self._closing or self.failure is not None):
            raise Unavailable("the ledger is stopping; append again when it is back", retry_after=1)
        if fresh and self._publisher.frozen is not None:
            frozen = self._publisher.frozen
            raise Unavailable(f"the log is frozen ({frozen.reason}): {frozen.message}", reason="LogFrozen", retry_after=60)
        if fresh and self._sealed:
            raise Conflict("the log is closed; nothing is appended to it any more", reason="LogClosed")
        self._batches.admit(admission.fresh)
        return admission

    def suspects(self, keys: Sequence[bytes]) -> list[int]:
        """See `waiting.Durable`."""
        return self._sequence.suspects(keys)

    def find(self, key: bytes) -> Lot | None:
        """See `waiting.Durable`."""
        found = self._sequence.find(key, lambda position: self._wal.read(position, 1)[0])
        if found is None:
            return None
        index, prepared = found
        return durable_lot(prepared, index, self._sequence.rows.leaf(index))

    def _own(self, kind: EntryType, entry_id: str, **data: Any) -> Prepared:
        return own(entry_id, kind, self.origin, now=self._options.clock(), **data)

    def written(self) -> None:
        """See `writer.Told`."""
        self._grown.set()
        self._record_degraded()

    def full(self, refused: int) -> None:
        """See `writer.Told`."""
        self._refused += refused
        log.error("volume full", extra={"refused": refused, "directory": str(self._volume.directory)})

    def _record_degraded(self) -> None:
        """Once there is room again, the log itself says that it refused; and after a start that a person let pass, why."""
        if self._refused and not self._sealed:
            self._add_degraded(f"log.degraded-{self.size}", reason="VolumeFull", refused=self._refused)
            self._refused = 0
        if self._volume.wrong_until and self._clock_entry is None and not self._sealed:
            self._clock_entry = self._add_degraded(
                f"log.degraded-clock-{self.size}", reason="ClockSetBack", until=self._volume.wrong_until
            )

    def _add_degraded(self, entry_id: str, **data: Any) -> Lot:
        lot = lot_of([self._own("log.degraded", entry_id, **data)])
        self._batches.add(lot)
        return lot

    async def _forget_clock(self) -> None:
        """The log has said that its times were wrong, and a checkpoint at the right time covers that: `clock.py`'s file is done."""
        said = self._clock_entry
        if said is not None and 0 <= said.first < self._publisher.size and self._volume.wrong_until:
            self._volume.wrong_until = ""
            await self._in_thread(remove_file, self._options.calls, self._volume.directory / clock.FILE)

    def failed(self, why: str) -> None:
        """What is on the disk is unknown: refuse everything and have the process exit; recovery decides."""
        log.critical("ledger stopped", extra={"reason": why})
        self.failure = FolkmootError(f"{why}; the process exits and its next start recovers from the log", reason="SyncFailed")
        self._batches.stop(Unavailable("the ledger's volume failed; it starts again", reason="SyncFailed", retry_after=1))
        self.stopped.set()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A loop that dies of a fault of ours must not leave producers waiting for ever."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("ledger task died", exc_info=error)
            self.failed(f"internal error: {type(error).__name__}")

    # -- publishing and reading -------------------------------------------------------------------------------------

    async def _publish_forever(self) -> None:
        wait = self._options.checkpoint_interval
        while True:
            await self._grown.wait()
            covered = await self.publish()
            wait = self._options.checkpoint_interval if covered else min(wait * 2, LONGEST_WAIT)
            await asyncio.sleep(wait)
            if not covered and self._publisher.frozen is None:
                self._grown.set()

    async def publish(self) -> bool:
        """Sign and publish when the log grew; True when a checkpoint covers all. On a full volume, or while a witness is away,
        the old checkpoint stays; other failures stop the process."""
        self._grown.clear()
        if self.failure is not None:
            return False
        try:
            covered = await self._publisher.publish(self._in_thread)
            await self._forget_clock()
            return covered
        except OSError as error:
            self.failed(f"publishing the checkpoint failed: {error.strerror}")
            return False
        finally:
            self._published.set()
            self._published = asyncio.Event()

    async def covered(self, size: int) -> None:
        """Wait until a published checkpoint covers the first `size` entries."""
        while self._publisher.size < size:
            await self._published.wait()

    async def _in_thread(self, function: Callable[..., None], *args: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._other_thread, function, *args)

    def follow(self, audit: AuditEntry) -> None:
        """Publish on these terms from now on. `Invalid` when they cannot be used."""
        self._publisher.follow(audit)
        self._grown.set()

    async def freeze(self, reason: str, message: str) -> None:
        """Somebody outside knows another history of this log: say so in it, if it can be said, then take and show nothing more."""
        if self._publisher.frozen is None and not (self._sealed or self._closing) and self._publisher.checked.is_set():
            try:
                await self.admit([self._own("log.frozen", f"log.frozen-{self.size}", reason=reason)]).receipts()
            except FolkmootError as error:  # the volume is full, too much waits: no reason to go on
                log.warning("frozen without an entry about it", extra={"reason": error.reason})
        await self._publisher.freeze(reason, message)

    async def rotate(self) -> str:
        """Exchange both signing keys; the new vkey. The entry about it is signed by the old and by the new key."""
        try:
            async with self._publisher.lock:
                receipt = await self._exchange_keys()
        except OSError as error:
            # The entry may be there, and the keys not: nothing is signed until a start has looked (`volume.py`).
            self.failed(f"exchanging the keys failed: {error.strerror}")
            raise Unavailable("the ledger's volume failed; it starts again", reason="SyncFailed", retry_after=1) from error
        self._grown.set()
        log.info("log keys rotated", extra={"index": receipt.index})
        return self.vkey

    async def _exchange_keys(self) -> Receipt:
        publisher, files = self._publisher, self._volume.files
        old = publisher.keys
        fresh = LogKeys.of(self.origin, self._options.birth.secret())
        statement = rotation.make(old.ed25519, fresh.ed25519, [fresh.ed25519.verifier(), fresh.mldsa.verifier()])
        await asyncio.to_thread(files.prepare, fresh.secret)
        vkey, mldsa = fresh.vkeys()
        entry = self._own(
            "log.key.rotated", fresh.rotation_id(), previous=old.vkey(), vkey=vkey, mldsa=mldsa, statement=statement.decode()
        )
        receipt = (await self.admit([entry]).receipts())[0]
        publisher.exchange(await asyncio.to_thread(files.take_over, fresh, receipt.index), statement)
        return receipt

    async def anchor(self) -> None:
        """See `control.Controlled.anchor`."""
        await self.publish()
        if self.anchors is not None:
            await self.anchors.now()

    def status(self) -> LogReport:
        """What the core reports of its log."""
        publisher = self._publisher
        trouble = publisher.frozen or self._damage or publisher.trouble
        point = checkpoint.parse(note.split(publisher.published)[0]) if publisher.published else None
        state: Literal["Open", "Closed", "Frozen"] = "Frozen" if publisher.frozen else "Closed" if self._sealed else "Open"
        return LogReport(
            origin=self.origin, vkeys=publisher.keys.vkeys(), rotation=publisher.rotation, size=publisher.size,
            root=point.root.hex() if point else "", entries=self.size, witnessed=publisher.witnessed, state=state,
            reason=trouble.reason if trouble else "", message=trouble.message if trouble else "",
            **(vars(self.anchors.state()) if self.anchors is not None else {}),
        )  # fmt: skip

    async def read(self, path: str) -> bytes | None:
        """See `Ledger.read`."""
        if path == tiles.CHECKPOINT:
            return self._publisher.published
        if path in (tiles.VKEY, tiles.MLDSA_VKEY):
            return f"{self._publisher.keys.vkeys()[path == tiles.MLDSA_VKEY]}\n".encode()
        if path == tiles.POLICY:
            return self._publisher.policy.text().encode() if self._publisher.policy else None
        if anchor.is_path(path):
            return await self.anchors.read(path) if self.anchors is not None else None
        tile = tiles.parse(path)
        if tile.level != tiles.ENTRIES:
            return self._sequence.rows.tile(tile)
        if retention.denied(self.minimum, tile):
            return None
        if tile.index * tiles.WIDTH + tile.width > self.size:
            return None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._other_thread, self._volume.bundle, tile)
        except LogDamaged as error:
            if self._damage is None:
                log.critical("log damaged", extra={"reason": error.message})
            self._damage = Trouble(error.reason, error.message)
            raise

    # -- ending -----------------------------------------------------------------------------------------------------

    async def close_log(self) -> int:
        """See `Ledger.close_log`."""
        async with self._sealing:
            if not self._sealed:
                admission = self.admit([self._own("log.closed", "log.closed")])
                self._sealed = True  # from here on nothing queues behind it
                try:
                    await admission.receipts()
                except BaseException:
                    self._sealed = False
                    raise
            await self.publish()
        if self.anchors is not None:
            await self.anchors.now()
        return self.size

    async def aclose(self) -> None:
        """Write what was accepted, publish, close the files, release the lock."""
        self._closing = True
        self._batches.close()
        await asyncio.wait([self._writer])
        self._showing.cancel()
        await asyncio.wait([self._showing])
        if self._options.fence is None:  # witnesses are far away, and the next start asks them again
            await self.publish()
        self._batches.shutdown()
        self._other_thread.shutdown()
        self._volume.close()
