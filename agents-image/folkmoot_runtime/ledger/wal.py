"""The packed write-ahead log: the only truth on the volume. ledger.md §5.2. Tiles, tree and index are derived from it.

Segments `wal-<n>` are zero-filled before use. A record is one batch, written and synced before the next is begun:

    "ALB1" | first index u64 | count u32 | payload length u32 | digest[32] | payload

big-endian; the payload is the entry-bundle framing (u16 length, bytes)*; digest = SHA-256(previous record's digest || leaf
hashes). So at most the last record can be torn: a broken record with a whole one after it is damage, and is never repaired
by guessing. An attacker who can write this volume can forge the log up to the last checkpoint that somebody else has seen.

Calls block; one thread at a time appends, others may read.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from folkmoot_core.errors import FolkmootError, Invalid
from folkmoot_core.ledger import bundle
from folkmoot_core.ledger.tree import leaf_hash
from folkmoot_runtime.ledger.durable import ZEROS, Os, read_at, write_at, zero_file

MAGIC = b"ALB1"
HEADER = struct.Struct(">4sQII32s")
GENESIS = b"\0" * 32
PAGE = 4096
MAX_COUNT = 1024  # entries in a batch (ledger.md §5.1)
MAX_PAYLOAD = 1 << 20
FIRST_SEGMENT = 4 << 20  # small tenants stay small; each further segment doubles, up to
LARGEST_SEGMENT = 32 << 20  # recovery holds one in memory
SMALLEST_SEGMENT = 128 << 10  # one entry always fits
_NAME = re.compile(r"wal-(\d{6})")

Accept = Callable[[list[bytes], list[bytes]], None]
"""Called during recovery with the entries and leaf hashes of each batch, in order."""


class LogDamaged(FolkmootError):
    """What is on the volume is not a log that this process wrote and synced; it must not be continued."""

    reason = "LogDamaged"


@dataclass
class _Segment:
    path: Path
    fd: int
    size: int
    base: int  # position of its first byte in the whole log


@dataclass(frozen=True)
class _Record:
    first: int
    digest: bytes
    entries: list[bytes]
    end: int  # offset behind it


class Wal:
    """Opened by `recover`; `close` when done."""

    def __init__(self, calls: Os, directory: Path, first_segment: int = FIRST_SEGMENT) -> None:
        if first_segment < SMALLEST_SEGMENT:
            raise Invalid(f"a log segment has at least {SMALLEST_SEGMENT} bytes, not {first_segment}")
        self._os = calls
        self._directory = directory
        self._first_segment = first_segment
        self._segments: list[_Segment] = []
        self._current = 0  # segment written to
        self._offset = 0  # within it
        self._digest = GENESIS
        self._positions = array("Q")  # of each entry's length field in the whole log
        self._helper = ThreadPoolExecutor(1, "wal-segment")
        self._next: Future[_Segment] | None = None
        self.max_payload = min(MAX_PAYLOAD, first_segment - HEADER.size)
        self.repaired = 0
        """Bytes of a torn last batch that recovery zeroed."""

    @property
    def size(self) -> int:
        """Durable entries."""
        return len(self._positions)

    # -- writing ----------------------------------------------------------------------------------------------------

    def append(self, entries: Sequence[bytes], leaves: Sequence[bytes]) -> None:
        """Write one batch and sync it; durable on return. After an OSError nothing was added in memory, and only
        `ENOSPC` before the sync leaves a log that may go on."""
        payload = bundle.encode(entries)
        digest = _digest(self._digest, leaves)
        segment = self._room(HEADER.size + len(payload))
        header = HEADER.pack(MAGIC, self.size, len(entries), len(payload), digest)
        write_at(self._os, segment.fd, header + payload, self._offset)
        try:
            self._os.fdatasync(segment.fd)
        except OSError as error:
            # The kernel may have dropped the dirty pages and say "done" next time: never retried (ledger.md §5.1).
            raise SyncFailed(f"fdatasync of {segment.path} failed: {error.strerror}") from error
        self._remember(segment.base + self._offset + HEADER.size, entries)
        self._digest = digest
        self._offset += HEADER.size + len(payload)
        if self._offset * 2 > segment.size:
            self._prepare_next()

    def _remember(self, position: int, entries: Sequence[bytes]) -> None:
        for entry in entries:
            self._positions.append(position)
            position += 2 + len(entry)

    def _room(self, needed: int) -> _Segment:
        """The segment with room for a record, moving on to the next where it must."""
        if not self._segments:
            self._segments.append(self._make(0))
        segment = self._segments[self._current]
        if self._offset + needed <= segment.size:
            return segment
        if self._current + 1 == len(self._segments):
            self._prepare_next()
            future, self._next = self._next, None
            assert future is not None  # noqa: S101 - _prepare_next just set it
            self._segments.append(future.result())
        self._current += 1
        self._offset = 0
        return self._segments[self._current]

    def _prepare_next(self) -> None:
        """Zero-fill the next segment in the helper's thread, well before it is needed. A failure shows when it is."""
        if self._next is None and self._current + 1 == len(self._segments):
            self._next = self._helper.submit(self._make, len(self._segments))

    def _make(self, number: int) -> _Segment:
        path = self._directory / f"wal-{number:06d}"
        size = self._first_segment
        if number:
            size = max(min(self._segments[-1].size * 2, LARGEST_SEGMENT), self._first_segment)
        zero_file(self._os, path, size)
        return self._open(path)

    def _open(self, path: Path) -> _Segment:
        base = self._segments[-1].base + self._segments[-1].size if self._segments else 0
        return _Segment(path, self._os.open(str(path), os.O_RDWR), path.stat().st_size, base)

    # -- reading ----------------------------------------------------------------------------------------------------

    def read(self, first: int, count: int) -> list[bytes]:
        """Entries from `first` on; the caller asks for durable ones only."""
        entries: list[bytes] = []
        for segment, positions in self._runs(first, count):
            start = positions[0]
            length = positions[-1] - start + 2 + bundle.MAX_ENTRY
            data = read_at(self._os, segment.fd, length, start - segment.base)
            for position in positions:
                at = position - start
                entries.append(data[at + 2 : at + 2 + int.from_bytes(data[at : at + 2], "big")])
        return entries

    def _runs(self, first: int, count: int) -> Iterator[tuple[_Segment, array[int]]]:
        """Consecutive entries by the segment that holds them."""
        bases = [segment.base for segment in self._segments]
        end = first + count
        while first < end:
            number = bisect_right(bases, self._positions[first]) - 1
            segment = self._segments[number]
            stop = min(bisect_right(self._positions, segment.base + segment.size - 1, first), end)
            yield segment, self._positions[first:stop]
            first = stop

    # -- recovery ---------------------------------------------------------------------------------------------------

    def recover(self, accept: Accept) -> None:
        """Read the log from its start, hand each batch to `accept`, cut off a torn tail. Raises `LogDamaged`."""
        for number, path in enumerate(self._paths()):
            if path.name != f"wal-{number:06d}":
                raise LogDamaged(f"{self._directory}: segment wal-{number:06d} is missing. {REPAIR}")
            self._segments.append(self._open(path))
        for number, segment in enumerate(self._segments):
            data = read_at(self._os, segment.fd, segment.size, 0)
            used = _used(data)
            offset = self._scan(segment, data, used, accept)
            if offset:
                self._current, self._offset = number, offset
            if offset < used:
                self._cut(number, data, offset, used)
                self._current, self._offset = number, offset
                return

    def _scan(self, segment: _Segment, data: bytes, used: int, accept: Accept) -> int:
        """Accept whole records from the start of a segment; the offset behind the last."""
        offset = 0
        while offset < used:
            record = _parse(data, offset)
            if record is None or record.first != self.size:
                break
            leaves = [leaf_hash(entry) for entry in record.entries]
            if _digest(self._digest, leaves) != record.digest:
                break
            accept(record.entries, leaves)
            self._digest = record.digest
            self._remember(segment.base + offset + HEADER.size, record.entries)
            offset = record.end
        return offset

    def _cut(self, number: int, data: bytes, offset: int, used: int) -> None:
        """Zero what follows the last whole record, unless a whole record is found in it or behind it."""
        segment = self._segments[number]
        found = _parse(data, offset)
        if found is not None and found.first > self.size:  # lost sectors are zeros, so tearing makes this number smaller only
            raise LogDamaged(f"{segment.path}: entries {self.size} to {found.first - 1} are missing. {REPAIR}")
        if _any_record(data, offset + 1):
            raise LogDamaged(f"{segment.path}: the record at byte {offset} is broken and a whole one follows it. {REPAIR}")
        for later in self._segments[number + 1 :]:
            if _used(read_at(self._os, later.fd, later.size, 0)):
                raise LogDamaged(
                    f"{segment.path}: the record at byte {offset} is broken and {later.path.name} is in use. {REPAIR}"
                )
        for start in range(offset, used, len(ZEROS)):
            write_at(self._os, segment.fd, ZEROS[: min(len(ZEROS), used - start)], start)
        self._os.fsync(segment.fd)
        self.repaired = used - offset

    def _paths(self) -> list[Path]:
        return sorted(path for path in self._directory.iterdir() if _NAME.fullmatch(path.name))

    def close(self) -> None:
        """Wait for the helper and close the files."""
        self._helper.shutdown()
        if self._next is not None and self._next.exception() is None:
            self._os.close(self._next.result().fd)
        for segment in self._segments:
            self._os.close(segment.fd)
        self._segments = []


class SyncFailed(FolkmootError):
    """A sync failed: what is on the disk is unknown, so the process stops and recovers from the log at its next start."""

    reason = "SyncFailed"


REPAIR = (
    "Repair: keep a copy of this directory; restore the volume from storage that has the whole log, or, where the log up to the "
    "damage is in an export, retire this log and start another under a new origin. Never delete records to make it start."
)


def _used(data: bytes) -> int:
    """Length without the zeros at the end, found without copying a whole segment."""
    end = len(data)
    while end and data.count(0, max(0, end - PAGE), end) == min(PAGE, end):
        end = max(0, end - PAGE)
    start = max(0, end - PAGE)
    return start + len(data[start:end].rstrip(b"\0"))


def _digest(previous: bytes, leaves: Sequence[bytes]) -> bytes:
    return hashlib.sha256(previous + b"".join(leaves)).digest()


def _parse(data: bytes, offset: int) -> _Record | None:
    """The record at an offset if its structure holds; its digest is the caller's to check."""
    if offset + HEADER.size > len(data):
        return None
    magic, first, count, length, digest = HEADER.unpack_from(data, offset)
    start = offset + HEADER.size
    if magic != MAGIC or not 0 < count <= MAX_COUNT or start + length > len(data):
        return None
    try:
        entries = bundle.decode(data[start : start + length], count)
    except Invalid:
        return None
    return _Record(first, digest, entries, start + length)


def _any_record(data: bytes, offset: int) -> bool:
    """Whether a structurally whole record starts anywhere behind `offset`. Entries are JSON, which has no zero bytes, so
    none can hide inside one."""
    found = data.find(MAGIC, offset)
    while found >= 0:
        if _parse(data, found) is not None:
            return True
        found = data.find(MAGIC, found + 1)
    return False
