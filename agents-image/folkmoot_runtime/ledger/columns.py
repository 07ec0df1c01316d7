"""Derived files beside the log: columns of equally wide items, appended and never synced. ledger.md §6.

Row ℓ of the tree, the marks and links of the index of ids, and where each bundle starts. The write-ahead log is the only truth: a column
is believed at start as far as `state.py` vouches for it by digest, and made again from the log otherwise, over what is there.
Its last items stay in memory, so that the tree's right edge, and with it every root that is signed, is never read from a file.

One thread appends; `flush` runs while nobody appends. Anybody may read at any time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from folkmoot_core.ledger.index import LINK, MARK, Store
from folkmoot_core.ledger.tiles import WIDTH
from folkmoot_core.ledger.tree import HASH_SIZE
from folkmoot_runtime.durable import ZEROS, Os, read_at, write_at
from folkmoot_runtime.ledger.records import LogDamaged

OFFSET = 8  # bytes of a position in the log
DUE = 1 << 20  # bytes that wait in memory before they are written
CHUNK = len(ZEROS)


class Column:
    """One file of items of `width` bytes; made when first flushed, so that a small log has none."""

    def __init__(self, calls: Os, path: Path, width: int) -> None:
        self.path = path
        self._os = calls
        self._width = width
        self._fd = -1
        self._count = 0
        self._flushed = 0
        self._tail = (0, bytearray())  # from this item on; replaced as one, for readers in other threads
        self._digest = hashlib.sha256()

    def __len__(self) -> int:
        return self._count

    def append(self, data: bytes) -> None:
        """Further items."""
        self._tail[1].extend(data)
        self._digest.update(data)
        self._count += len(data) // self._width

    def read(self, first: int, count: int) -> bytes:
        """`count` items from `first` on; fewer where the column ends."""
        end = min(first + count, self._count)
        start, tail = self._tail
        if first >= start:
            return bytes(tail[(first - start) * self._width : (end - start) * self._width])
        length = (min(end, start) - first) * self._width
        try:
            found = read_at(self._os, self._fd, length, first * self._width)
        except OSError as error:
            raise LogDamaged(
                f"{self.path} cannot be read: {error.strerror}; the next start makes it again from the log"
            ) from error
        if len(found) != length:
            raise LogDamaged(f"{self.path} ends before item {first + count}; the next start makes it again from the log")
        return found + bytes(tail[: max(0, end - start) * self._width])

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return (self._count - self._flushed) * self._width

    def flush(self, due: int = 0) -> None:
        """Write what waits, if it is more than `due` bytes. After an OSError it still waits."""
        start, tail = self._tail
        waiting = self.waiting
        if waiting <= due:
            return
        write_at(self._os, self._open(), bytes(tail[len(tail) - waiting :]), self._flushed * self._width)
        self._flushed = self._count
        keep = self._count - self._count % WIDTH
        if keep > start:
            self._tail = (keep, tail[(keep - start) * self._width :])

    def vouch(self) -> tuple[int, bytes]:
        """Its length and the digest of its content."""
        return self._count, self._digest.digest()

    def adopt(self, count: int, digest: bytes) -> bool:
        """Take over what the file holds, if its first `count` items have this digest."""
        size = count * self._width
        if not self.path.is_file() or self.path.stat().st_size < size:
            return count == 0
        found, fd = hashlib.sha256(), self._open()
        for start in range(0, size, CHUNK):
            found.update(read_at(self._os, fd, min(CHUNK, size - start), start))
        if found.digest() != digest:
            return False
        keep = count - count % WIDTH
        self._tail = (keep, bytearray(read_at(self._os, fd, (count - keep) * self._width, keep * self._width)))
        self._count = self._flushed = count
        self._digest = found
        return True

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            self._os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        if self._fd < 0:
            self._fd = self._os.open(str(self.path), os.O_RDWR | os.O_CREAT)
        return self._fd


class Columns:
    """All of a log's columns."""

    def __init__(self, calls: Os, directory: Path) -> None:
        self._os = calls
        self._directory = directory
        self._begin()

    def _begin(self) -> None:
        self.marks = Column(self._os, self._directory / "marks", MARK)
        self.offsets = Column(self._os, self._directory / "offsets", OFFSET)
        self.links = Column(self._os, self._directory / "links", LINK)
        self.rows: list[Column] = []

    def store(self) -> Store:
        """For the index of ids. Its links are never taken over: each start makes them again from the marks."""
        return Store(self.marks, self.links, lambda: self.flush(DUE))

    def row(self, level: int) -> Column:
        """A row of the tree; they are asked for from the bottom up."""
        while level >= len(self.rows):
            self.rows.append(Column(self._os, self._directory / f"row-{len(self.rows)}", HASH_SIZE))
        return self.rows[level]

    def due(self, due: int) -> bool:
        """Whether in one of them more than `due` bytes wait."""
        return any(column.waiting > due for column in self._all())

    def flush(self, due: int = 0) -> None:
        """Write what waits."""
        for column in self._all():
            column.flush(due)

    def vouch(self) -> dict[str, tuple[int, bytes]]:
        """Length and digest of each, by name."""
        return {column.path.name: column.vouch() for column in self._vouched()}

    def adopt(self, vouched: Mapping[str, tuple[int, bytes]]) -> bool:
        """Take over all, or none and be empty."""
        for level in range(len(vouched) - 2):
            self.row(level)
        names = {column.path.name: column for column in self._vouched()}
        if names.keys() == vouched.keys() and all(names[name].adopt(*claim) for name, claim in vouched.items()):
            return True
        self.close()
        self._begin()
        return False

    def close(self) -> None:
        """Let go of the files."""
        for column in self._all():
            column.close()

    def _vouched(self) -> list[Column]:
        return [self.marks, self.offsets, *self.rows]

    def _all(self) -> list[Column]:
        return [self.links, *self._vouched()]
