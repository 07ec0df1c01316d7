"""Where each idempotency key stands: exact, and three bytes an entry in memory, so that a log of millions fits a small pod.

Of each key 64 bits are kept, its *mark*, in a column that the caller provides (on the volume: a file). In memory there is, for
each generation of entries, a filter that says "never seen" of nearly all new keys, and for the rest the heads of chains, each
through the marks of a bucket; their links are a column too. `candidates` yields every position that may be meant, and the caller
compares what is stored there.

Keys are digests: nobody chooses their bits. A generation has a fixed capacity, so that no insertion pays for them all.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

MARK = 8  # bytes of a key that are kept
FIRST, LARGEST = 1 << 10, 1 << 22  # capacities of generations
REBUILT = 1 << 16  # below it the one generation grows by being built again; above, another is begun
GROWTH = 4
CHAIN = 4  # entries of a bucket, on average of a full generation
WORD = 4  # entries of a 64-bit word of the filter
CHUNK = 1 << 16  # marks read at once
LINK = 4  # bytes of a link
# Bits of a mark: 0-23 choose the bucket, 24-51 the filter's word, 52-63 which four bits of the word.
_FILTER, _PATTERN = 24, 52


def _patterns() -> list[int]:
    """4096 words with four bits set. Any would do; these are the same in every process."""
    source = random.Random(64)  # noqa: S311 - nothing secret
    return [sum(1 << bit for bit in source.sample(range(64), 4)) for _ in range(1 << 12)]


_PATTERNS = _patterns()


class Items(Protocol):
    """A column of marks or links: item i at bytes [width · i, width · (i + 1)), little-endian."""

    def __len__(self) -> int: ...

    def append(self, data: bytes) -> None: ...

    def read(self, first: int, count: int) -> bytes: ...


class MemoryItems:
    """`Items` that nothing keeps."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data) // self._width

    def append(self, data: bytes) -> None:
        """Further ones."""
        self._data += data

    def read(self, first: int, count: int) -> bytes:
        """`count` from `first` on."""
        return bytes(self._data[first * self._width : (first + count) * self._width])


@dataclass(frozen=True)
class Store:
    """Where an index keeps what is not in memory."""

    marks: Items = field(default_factory=lambda: MemoryItems(MARK))
    links: Items = field(default_factory=lambda: MemoryItems(LINK))
    """Empty at first, whatever the marks hold: made again from them."""
    settle: Callable[[], None] = lambda: None
    """Called now and then while an index builds itself, so that what it appended can be written."""


class Index:
    """Positions by key (at least eight bytes of a digest). Builds itself from the marks that are there."""

    def __init__(self, store: Store | None = None) -> None:
        store = Store() if store is None else store
        self._marks, self._links = store.marks, store.links
        self._generations = [_Generation(0, FIRST, MemoryItems(LINK))]
        for first in range(0, len(self._marks), CHUNK):
            self._insert(_unpacked(self._marks.read(first, min(CHUNK, len(self._marks) - first))))
            store.settle()

    def extend(self, keys: Sequence[bytes]) -> None:
        """The keys of the next positions."""
        packed = b"".join([key[:MARK] for key in keys])
        self._marks.append(packed)
        self._insert(_unpacked(packed))

    def suspects(self, keys: Sequence[bytes]) -> list[int]:
        """Which of the keys (by their place in `keys`) may be there; all others certainly are not."""
        if len(keys) == 1:
            mark = int.from_bytes(keys[0][:MARK], "little")
            return [0] if any(generation.may_have(mark) for generation in self._generations) else []
        marks = _unpacked(b"".join([key[:MARK] for key in keys]))
        asked = [(place, mark >> _FILTER, _PATTERNS[mark >> _PATTERN]) for place, mark in enumerate(marks)]
        found: list[int] = []
        for generation in self._generations:
            words, mask = generation.words, generation.word_mask
            found += [place for place, word, pattern in asked if words[word & mask] & pattern == pattern]
        return found

    def candidates(self, key: bytes) -> Iterator[int]:
        """Positions where the key may stand."""
        mark = int.from_bytes(key[:MARK], "little")
        for generation in reversed(self._generations):
            if generation.may_have(mark):
                for position in generation.chain(mark):
                    if self._marks.read(position, 1) == key[:MARK]:
                        yield position

    def _insert(self, marks: array[int]) -> None:
        done = 0
        while done < len(marks):
            last = self._generations[-1]
            if not last.room():
                last = self._grow(last)
            part = marks[done : done + last.room()]
            last.extend(part)
            done += len(part)

    def _grow(self, full: _Generation) -> _Generation:
        capacity = min(full.count * GROWTH, LARGEST)
        if full.count >= REBUILT:
            self._generations.append(_Generation(full.first + full.count, capacity, self._links))
        else:  # the first one alone, whose links stay in memory: they change
            larger = _Generation(full.first, capacity, MemoryItems(LINK))
            larger.extend(_unpacked(self._marks.read(full.first, full.count)))
            self._generations[-1] = larger
        return self._generations[-1]


class _Generation:
    """Filter and chains over the positions from `first` on."""

    __slots__ = ("_links", "_links_from", "capacity", "count", "first", "heads", "word_mask", "words")

    def __init__(self, first: int, capacity: int, links: Items) -> None:
        self.first = first
        self.capacity = capacity
        self.count = 0
        self._links = links  # of each entry, the one before it in its bucket; counted from 1, 0 ends a chain
        self._links_from = len(links)
        self.words = array("Q", bytes(8 * (capacity // WORD)))
        self.word_mask = capacity // WORD - 1
        self.heads = array("I", bytes(4 * (capacity // CHAIN)))

    def room(self) -> int:
        """How many entries it still takes."""
        return self.capacity - self.count

    def extend(self, marks: Sequence[int]) -> None:
        """Further entries, no more than there is room for."""
        words, word_mask, patterns = self.words, self.word_mask, _PATTERNS
        heads, bucket_mask = self.heads, len(self.heads) - 1
        links = array("I")
        for number, mark in enumerate(marks, self.count + 1):
            words[mark >> _FILTER & word_mask] |= patterns[mark >> _PATTERN]
            bucket = mark & bucket_mask
            links.append(heads[bucket])
            heads[bucket] = number
        self._links.append(_packed(links))
        self.count += len(links)

    def may_have(self, mark: int) -> bool:
        """What the filter says."""
        pattern = _PATTERNS[mark >> _PATTERN]
        return self.words[mark >> _FILTER & self.word_mask] & pattern == pattern

    def chain(self, mark: int) -> Iterator[int]:
        """Positions in the mark's bucket, newest first."""
        number = self.heads[mark & (len(self.heads) - 1)]
        while number:
            yield self.first + number - 1
            number = int.from_bytes(self._links.read(self._links_from + number - 1, 1), "little")


def _unpacked(packed: bytes) -> array[int]:
    marks = array("Q")
    marks.frombytes(packed)
    if _BIG_ENDIAN:
        marks.byteswap()
    return marks


def _packed(links: array[int]) -> bytes:
    if _BIG_ENDIAN:
        links.byteswap()
    return links.tobytes()


_BIG_ENDIAN = array("H", [1]).tobytes() == b"\0\1"
