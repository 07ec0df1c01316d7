"""Where each idempotency key stands, exact and small: about 20 bytes an entry, so that a log of millions fits a small pod.

Open addressing over 64 bits of the key, in 256 tables that grow one at a time, so that no insertion pays for them all. Equal
64 bits are kept side by side: `candidates` yields every position that may be meant, and the caller compares what is stored.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

SHARDS = 256
FIRST = 8  # slots of a new table; always a power of two
LOAD = 0.7
EMPTY = 2**64 - 1  # a position that no log reaches


class Index:
    """Positions by key (at least 9 bytes of a digest)."""

    def __init__(self) -> None:
        self._shards = [_Table() for _ in range(SHARDS)]

    def add(self, key: bytes, position: int) -> None:
        """The key stands at this position too."""
        self._shards[key[0]].add(int.from_bytes(key[1:9], "big"), position)

    def candidates(self, key: bytes) -> Iterator[int]:
        """Positions where the key may stand, in the order they were added."""
        return self._shards[key[0]].candidates(int.from_bytes(key[1:9], "big"))


class _Table:
    __slots__ = ("_count", "_marks", "_positions")

    def __init__(self) -> None:
        self._marks = array("Q", [0]) * FIRST
        self._positions = array("Q", [EMPTY]) * FIRST
        self._count = 0

    def add(self, mark: int, position: int) -> None:
        if self._count >= LOAD * len(self._marks):
            self._grow()
        self._put(mark, position)
        self._count += 1

    def candidates(self, mark: int) -> Iterator[int]:
        mask = len(self._marks) - 1
        slot = mark & mask
        while (position := self._positions[slot]) != EMPTY:
            if self._marks[slot] == mark:
                yield position
            slot = (slot + 1) & mask

    def _put(self, mark: int, position: int) -> None:
        mask = len(self._marks) - 1
        slot = mark & mask
        while self._positions[slot] != EMPTY:
            slot = (slot + 1) & mask
        self._marks[slot], self._positions[slot] = mark, position

    def _grow(self) -> None:
        marks, positions = self._marks, self._positions
        self._marks = array("Q", [0]) * (2 * len(marks))
        self._positions = array("Q", [EMPTY]) * (2 * len(marks))
        kept = sorted((position, mark) for mark, position in zip(marks, positions, strict=True) if position != EMPTY)
        for position, mark in kept:  # in the order they were added, so that equal marks stay in it
            self._put(mark, position)
