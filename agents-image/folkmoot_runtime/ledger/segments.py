"""The files `wal-<n>`: zero-filled before use, behind a header of one sector that says whose turn it is. ledger.md §5.1, §5.3.

    "ALS1" | number u32 | epoch u64 | digest[32] | zeros up to byte 512

big-endian; digest = SHA-256 of what is before it. The epoch counts the openings of a log: the first file has that of the last
opening, each other one that of the opening which made it. Obligations, numbered here and at the steps: 1. who opens a log puts
its epoch there, durably, before it reads a record; 2. who writes looks there before each record, and again once the record is
synced, before any receipt. So a receipt means that the next writer had not begun to read: it reads what was promised. 3. From
file to file the epoch does not go back, and none is beyond the first's: a file of another past of the log is not continued.

One sector arrives whole or not at all; a header that does not hold is therefore damage. The lock on the directory comes before
all this; the epoch is for the day on which somebody has removed it.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from folkmoot_runtime.durable import Os, read_at, write_at, zero_file
from folkmoot_runtime.ledger.records import MAGIC, REPAIR, LogDamaged, Superseded, SyncFailed

START = 512  # of the first record: a sector
FIRST_SEGMENT = 4 << 20  # small tenants stay small; each further segment doubles, up to
LARGEST_SEGMENT = 32 << 20  # recovery holds one in memory
SMALLEST_SEGMENT = 128 << 10  # one entry always fits
_MAGIC = b"ALS1"
_BODY = struct.Struct(">4sIQ")
_NAME = re.compile(r"wal-(\d{6,})")


@dataclass
class Segment:
    """One file, open for reading and writing."""

    path: Path
    fd: int
    size: int
    base: int  # position of its first byte in the whole log
    epoch: int


def header(number: int, epoch: int) -> bytes:
    """The first sector of a file."""
    body = _BODY.pack(_MAGIC, number, epoch)
    return (body + hashlib.sha256(body).digest()).ljust(START, b"\0")


def epoch_in(data: bytes, number: int) -> int | None:
    """The epoch that a whole header of this file says."""
    if len(data) != START:
        return None
    magic, _, epoch = _BODY.unpack_from(data)
    return int(epoch) if magic == _MAGIC and data == header(number, epoch) else None


class Segments:
    """All files of one log, in order. `open` before anything else; `close` when done."""

    def __init__(self, calls: Os, directory: Path, first_size: int = FIRST_SEGMENT) -> None:
        self._os = calls
        self._directory = directory
        self._first_size = first_size
        self._all: list[Segment] = []
        self.epoch = 1
        """Of this opening."""
        self._claimed = header(0, self.epoch)

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, number: int) -> Segment:
        return self._all[number]

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._all)

    def open(self) -> None:
        """Open what is there, and be its next writer. Raises `LogDamaged`."""
        for number, path in enumerate(self._paths()):
            if path.name != f"wal-{number:06d}":
                raise LogDamaged(f"{self._directory}: segment wal-{number:06d} is missing. {REPAIR}")
            self._all.append(self._opened(number, path))
        for before, segment in zip(self._all[1:], self._all[2:], strict=False):
            self._in_order(before.epoch, segment)
        if self._all:
            first, last = self._all[0], self._all[-1]
            if last.epoch > first.epoch:  # 3
                raise LogDamaged(
                    f"{last.path} is of epoch {last.epoch}, and {first.path.name} says that the last one was {first.epoch}: "
                    f"they are not files of one log any more. {REPAIR}"
                )
            self.epoch = first.epoch + 1
            self._claimed = header(0, self.epoch)
            self._claim(first)

    def _in_order(self, before: int, segment: Segment) -> None:
        if segment.epoch < before:  # 3
            raise LogDamaged(
                f"{segment.path} is of epoch {segment.epoch}, and the file before it of {before}: an epoch never goes back. {REPAIR}"
            )

    def _claim(self, first: Segment) -> None:
        try:
            write_at(self._os, first.fd, self._claimed, 0)  # 1
            self._os.fdatasync(first.fd)
        except OSError as error:
            raise SyncFailed(f"writing the epoch into {first.path} failed: {error.strerror}") from error
        first.epoch = self.epoch

    def still_ours(self) -> None:
        """2. Raises `Superseded` once another process has opened the log."""
        if not self._all:
            return
        first = self._all[0]
        data = read_at(self._os, first.fd, START, 0)
        if data != self._claimed:
            found = epoch_in(data, 0)
            what = f"epoch {found}" if found is not None else "no whole header"
            raise Superseded(
                f"{first.path} has {what}, and this process wrote epoch {self.epoch}: another one has opened the log since. "
                "A log has one writer"
            )

    def make(self, number: int) -> Segment:
        """The next file, zero-filled; `add` takes it into use. May run in another thread than the rest."""
        path = self._directory / f"wal-{number:06d}"
        size = max(min(self._all[-1].size * 2, LARGEST_SEGMENT), self._first_size) if number else self._first_size
        zero_file(self._os, path, size, header(number, self.epoch))
        return self._opened(number, path)

    def add(self, segment: Segment) -> None:
        """The last one from now on."""
        self._all.append(segment)

    def _opened(self, number: int, path: Path) -> Segment:
        base = self._all[-1].base + self._all[-1].size if self._all else 0
        fd = self._os.open(str(path), os.O_RDWR)
        try:
            head = read_at(self._os, fd, START, 0)
            epoch = epoch_in(head, number)
            if epoch is None and head.startswith(MAGIC):
                raise LogDamaged(
                    f"{path} has the format of a version before this one, which had no epoch in its files, and is not read. Export the "
                    "log with that version, keep its volume, and begin another log under a new origin"
                )
            if epoch is None:
                raise LogDamaged(f"{path} does not begin with the header of segment {number}. {REPAIR}")
        except BaseException:
            self._os.close(fd)
            raise
        return Segment(path, fd, path.stat().st_size, base, epoch)

    def _paths(self) -> list[Path]:
        found = [path for path in self._directory.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.name.removeprefix("wal-")))

    def close(self) -> None:
        """Close the files."""
        for segment in self._all:
            self._os.close(segment.fd)
        self._all = []
