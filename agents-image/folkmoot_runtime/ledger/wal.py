"""The packed write-ahead log: the only truth on the volume. ledger.md §5.2. Tiles, tree and index are derived from it.

Segments `wal-<n>` (`segments.py`) hold records (`records.py`), each written and synced before the next is begun.
A broken record with a whole one after it is damage, and is never repaired by guessing. An attacker who can write this volume
can forge the log up to the last checkpoint that somebody else has seen.

Calls block; one thread at a time appends, others may read.
"""

from __future__ import annotations

import hashlib
import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.tiles import WIDTH
from folkmoot_core.ledger.tree import leaf_hash
from folkmoot_runtime.durable import ZEROS, Os, read_at, replace_file, write_at
from folkmoot_runtime.ledger import records, state
from folkmoot_runtime.ledger.columns import DUE, OFFSET, Columns
from folkmoot_runtime.ledger.records import GENESIS, HEADER, MAX_PAYLOAD, REPAIR, LogDamaged, OutOfTurn, SyncFailed
from folkmoot_runtime.ledger.segments import FIRST_SEGMENT, SMALLEST_SEGMENT, START, Segment, Segments
from folkmoot_runtime.ledger.state import Sealed, State

log = logging.getLogger(__name__)

Accept = Callable[[list[bytes], list[bytes]], None]
"""Called during recovery with the entries and leaf hashes of each batch, in order."""


class Wal:
    """Opened by `recover`; `close` when done."""

    def __init__(self, calls: Os, directory: Path, columns: Columns, first_segment: int = FIRST_SEGMENT) -> None:
        if first_segment < SMALLEST_SEGMENT:
            raise Invalid(f"a log segment has at least {SMALLEST_SEGMENT} bytes, not {first_segment}")
        self._os = calls
        self._directory = directory
        self.columns = columns
        self._segments = Segments(calls, directory, first_segment)
        self._sealed: list[Sealed] = []  # those before the current one
        self._current = 0  # segment written to
        self._offset = START  # within it
        self._last = START  # offset of its last record
        self._hash = hashlib.sha256()  # of the current segment's records as they were written
        self._digest = GENESIS
        self._size = 0
        self._noted: State | None = None  # made during recovery
        self._decoded: tuple[int, list[bytes]] = (0, [])
        self._helper = ThreadPoolExecutor(1, "wal-segment")
        self._next: Future[Segment] | None = None
        self.max_payload = min(MAX_PAYLOAD, first_segment - START - HEADER.size)
        self.repaired = 0
        """Bytes of a torn last batch that recovery zeroed."""

    @property
    def size(self) -> int:
        """Durable entries."""
        return self._size

    # -- writing ----------------------------------------------------------------------------------------------------

    def append(self, entries: Sequence[bytes], leaves: Sequence[bytes], behind: int | None = None) -> None:
        """Write one batch and sync it; durable on return. After an OSError nothing was added, in memory or on the volume, and
        `ENOSPC` leaves a log that may go on. After `SyncFailed` and `Superseded` it may not. `behind`: it was made while another
        was under way, and its first entry must have this index by now; `fits` said that there is room."""
        if behind is None:
            self.columns.flush(DUE)  # before the log: where a column finds no room, the batch is refused whole
        elif behind != self._size:
            raise OutOfTurn(f"a batch was made to begin at entry {behind}, and the log ends at {self._size}")
        digest = records.chain(self._digest, leaves)
        record = records.encode(self._size, entries, digest)
        segment = self._room(len(record))
        self._segments.still_ours()
        self._write(segment, record)
        try:
            self._os.fdatasync(segment.fd)
        except OSError as error:
            # The kernel may have dropped the dirty pages and say "done" next time: never retried (ledger.md §5.1).
            raise SyncFailed(f"fdatasync of {segment.path} failed: {error.strerror}") from error
        self._segments.still_ours()
        self._hash.update(record)
        self._advance(segment, self._offset, len(record), len(entries), digest)
        if self._offset * 2 > segment.size:
            self._prepare_next()

    def fits(self, needed: int) -> bool:
        """Whether records of so many bytes in all can be appended one after the other without a new segment, and no column is due.
        May be asked while one of them is being written: then it may say no too early."""
        return bool(self._segments) and self._offset + needed <= self._segments[self._current].size and not self.columns.due(DUE)

    def _write(self, segment: Segment, record: bytes) -> None:
        """All of it, or zeros again where it would have been: what is left there would look like damage later."""
        try:
            write_at(self._os, segment.fd, record, self._offset)
        except OSError as error:
            try:
                if any(read_at(self._os, segment.fd, len(record), self._offset)):
                    write_at(self._os, segment.fd, bytes(len(record)), self._offset)
            except OSError:
                raise SyncFailed(f"writing {segment.path} failed: {error.strerror}") from error
            raise

    def _advance(self, segment: Segment, offset: int, length: int, count: int, digest: bytes) -> None:
        """A record is durable: the next follows it."""
        starts = -(-(self._size + count) // WIDTH) - -(-self._size // WIDTH)  # bundles that begin in it
        self.columns.offsets.append((segment.base + offset).to_bytes(OFFSET, "little") * starts)
        self._size += count
        self._digest = digest
        self._last, self._offset = offset, offset + length

    def _room(self, needed: int) -> Segment:
        """The segment with room for a record, moving on to the next where it must."""
        if not self._segments:
            self._segments.add(self._segments.make(0))
        segment = self._segments[self._current]
        if self._offset + needed <= segment.size:
            return segment
        if self._current + 1 == len(self._segments):
            self._prepare_next()
            future, self._next = self._next, None
            assert future is not None  # noqa: S101 - _prepare_next just set it
            self._segments.add(future.result())
        self._seal(segment)
        return self._segments[self._current]

    def _seal(self, segment: Segment) -> None:
        """A segment is full: move on, and note down what need not be read back entry by entry at the next start."""
        for start in range(self._offset, segment.size, len(ZEROS)):
            self._hash.update(ZEROS[: segment.size - start])
        self._sealed.append(Sealed(self._hash.digest(), self._last, self._offset))
        self._current, self._offset, self._last, self._hash = self._current + 1, START, START, hashlib.sha256()
        self.columns.flush()
        noted = State(tuple(self._sealed), self._size, self._digest, self.columns.vouch())
        self._helper.submit(self._note, noted.encode())

    def _note(self, data: bytes) -> None:
        try:
            replace_file(self._os, self._directory / state.NAME, data)
        except OSError as error:  # the next start takes longer, nothing else
            log.warning("state not written", extra={"reason": error.strerror})

    def _prepare_next(self) -> None:
        """Zero-fill the next segment in the helper's thread, well before it is needed. A failure shows when it is."""
        if self._next is None and self._current + 1 == len(self._segments):
            self._next = self._helper.submit(self._segments.make, len(self._segments))

    # -- reading ----------------------------------------------------------------------------------------------------

    def read(self, first: int, count: int) -> list[bytes]:
        """Entries from `first` on; the caller asks for durable ones only. Raises `LogDamaged` where they are not."""
        known, decoded = self._decoded
        if known <= first and first + count <= known + len(decoded):
            return decoded[first - known : first - known + count]
        try:
            return self._read(first, count)
        except OSError as error:
            raise LogDamaged(f"{self._directory}: entries from {first} on cannot be read: {error.strerror}. {REPAIR}") from error

    def _read(self, first: int, count: int) -> list[bytes]:
        found: list[bytes] = []
        position = int.from_bytes(self.columns.offsets.read(first // WIDTH, 1), "little")
        for start, entries in self._records(position, first - first % WIDTH):
            skip = max(0, first - start)
            found += entries[skip : skip + count - len(found)]
            if len(found) == count:
                self._decoded = (start, entries)  # who sends a batch again asks for its neighbours next
                break
        return found

    def _records(self, position: int, holds: int) -> Iterator[tuple[int, list[bytes]]]:
        """Each record's first index and entries, from the one at `position` on, which holds entry `holds`."""
        number = bisect_right([segment.base for segment in self._segments], position) - 1
        offset = position - self._segments[number].base
        while True:
            segment = self._segments[number]
            head = records.head(read_at(self._os, segment.fd, HEADER.size, offset))
            if head is None and offset > START and number < self._current:  # behind a segment's last record
                number, offset = number + 1, START
                continue
            length = HEADER.size + head.length if head is not None else 0
            record = records.parse(read_at(self._os, segment.fd, length, offset), 0)
            if record is None or not record.first <= holds < record.first + len(record.entries):
                raise LogDamaged(f"{segment.path}: the record at byte {offset} does not hold entry {holds} any more. {REPAIR}")
            yield record.first, record.entries
            holds = record.first + len(record.entries)
            offset += length

    # -- recovery ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the segments, and take over what `state` vouches for: then `size` is no longer 0. Raises `LogDamaged`."""
        self._segments.open()
        try:
            noted = state.parse((self._directory / state.NAME).read_bytes())
        except FileNotFoundError:
            return
        files = [(one.path, one.fd, one.size) for one in self._segments]
        if noted is not None and state.holds(self._os, noted, files) and self.columns.adopt(noted.columns):  # 4
            self._sealed = list(noted.segments)
            self._size, self._digest = noted.size, noted.chain
            self._current, self._offset, self._last = len(noted.segments) - 1, noted.segments[-1].used, noted.segments[-1].last

    def recover(self, accept: Accept) -> None:
        """Read the rest of the log, hand each batch to `accept`, cut off a torn tail. Raises `LogDamaged`."""
        for number in range(len(self._sealed), len(self._segments)):
            segment = self._segments[number]
            data = read_at(self._os, segment.fd, segment.size, 0)
            used = records.used(data)
            if used > START:
                if number:
                    self._pass(number - 1)
                self._current, self._offset, self._last = number, START, START
                self._scan(segment, data, used, accept)
                if self._offset < used:
                    self._cut(number, data, self._offset, used)
                    break
        self._resume()

    def _pass(self, number: int) -> None:
        """The log goes on behind this segment, so it is full."""
        if number == len(self._sealed):
            segment = self._segments[number]
            whole = hashlib.sha256(read_at(self._os, segment.fd, segment.size - START, START))
            self._sealed.append(Sealed(whole.digest(), self._last, self._offset))
            self._noted = State(tuple(self._sealed), self._size, self._digest, self.columns.vouch())

    def _resume(self) -> None:
        """Be as the writer was: in the midst of the current segment."""
        if self._noted is not None:
            self.columns.flush()
            self._note(self._noted.encode())
        del self._sealed[self._current :]
        if self._segments:
            self._hash = hashlib.sha256(read_at(self._os, self._segments[self._current].fd, self._offset - START, START))

    def _scan(self, segment: Segment, data: bytes, used: int, accept: Accept) -> None:
        """Accept whole records from the start of a segment."""
        offset = START
        while offset < used:
            record = records.parse(data, offset)
            if record is None or record.first != self._size:
                break
            leaves = [leaf_hash(entry) for entry in record.entries]
            if records.chain(self._digest, leaves) != record.digest:
                break
            accept(record.entries, leaves)
            self._advance(segment, offset, record.end - offset, len(record.entries), record.digest)
            self.columns.flush(DUE)
            offset = record.end

    def _cut(self, number: int, data: bytes, offset: int, used: int) -> None:
        """Zero what follows the last whole record, unless a whole record is found in it or behind it."""
        segment = self._segments[number]
        found = records.parse(data, offset)
        if found is not None and found.first > self._size:  # lost sectors are zeros: tearing makes this number smaller only
            raise LogDamaged(f"{segment.path}: entries {self._size} to {found.first - 1} are missing. {REPAIR}")
        if records.any_record(data, offset + 1):
            raise LogDamaged(f"{segment.path}: the record at byte {offset} is broken and a whole one follows it. {REPAIR}")
        for later in list(self._segments)[number + 1 :]:
            if records.used(read_at(self._os, later.fd, later.size, 0)) > START:
                raise LogDamaged(
                    f"{segment.path}: the record at byte {offset} is broken and {later.path.name} is in use. {REPAIR}"
                )
        for start in range(offset, used, len(ZEROS)):
            write_at(self._os, segment.fd, ZEROS[: min(len(ZEROS), used - start)], start)
        self._os.fsync(segment.fd)
        self.repaired = used - offset

    def close(self) -> None:
        """Wait for the helper and close the files."""
        self._helper.shutdown()
        if self._next is not None and self._next.exception() is None:
            self._os.close(self._next.result().fd)
        self._segments.close()
        self.columns.close()
