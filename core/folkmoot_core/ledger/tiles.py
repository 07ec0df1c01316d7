"""C2SP tlog-tiles: which tiles a tree has, what they are called, and the tree as rows of tiles that grows by leaf hashes.

A tile is up to 256 consecutive hashes of one row; row ℓ + 1 has one hash for each full tile of row ℓ. Entry bundles follow
the same numbering as row 0. `Rows` is the tree that the ledger keeps (its rows are files) and that a verifier rebuilds from
bundles (its rows are in memory).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.tree import HASH_SIZE, begin_node, fold

WIDTH = 256  # hashes in a full tile
HEIGHT = 8  # binary levels in a tile
MAX_LEVEL = 63
ENTRIES = -1  # `Tile.level` of an entry bundle
MAX_INDEX = 2**64 // WIDTH

CHECKPOINT = "checkpoint"
VKEY = "log.vkey"
MLDSA_VKEY = "log.mldsa.vkey"
POLICY = "policy"
README = "README.txt"

_PATH = re.compile(r"tile/(entries|0|[1-9]\d?)/((?:x\d{3}/){0,6}\d{3})(?:\.p/([1-9]\d{0,2}))?", re.ASCII)


@dataclass(frozen=True, order=True)
class Tile:
    """A tile or, with level `ENTRIES`, a bundle: `width` of its 256 places are filled."""

    level: int
    index: int
    width: int = WIDTH

    def path(self) -> str:
        """Its URL path below the log's prefix: `tile/<L>/<N>[.p/<W>]`, N in groups of three digits."""
        groups = f"{self.index:03d}"
        groups = groups.zfill(-(-len(groups) // 3) * 3)
        parts = [groups[i : i + 3] for i in range(0, len(groups), 3)]
        number = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
        level = "entries" if self.level == ENTRIES else str(self.level)
        return f"tile/{level}/{number}" + ("" if self.width == WIDTH else f".p/{self.width}")


def parse(path: str) -> Tile:
    """The tile that a path names; raises `Invalid` for every spelling but the one that `Tile.path` prints."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise Invalid(f"{path[:100]!r} is not a tile path; expected tile/<level or 'entries'>/<number>[.p/<width>]")
    level, number, width = match.groups()
    tile = Tile(
        level=ENTRIES if level == "entries" else int(level),
        index=int(number.replace("x", "").replace("/", "")),
        width=int(width) if width else WIDTH,
    )
    if tile.level > MAX_LEVEL or tile.index >= MAX_INDEX or tile.width > WIDTH or tile.path() != path:
        raise Invalid(f"{path[:100]!r} is not a tile path in its one valid spelling")
    return tile


def tiles_of(size: int) -> Iterator[Tile]:
    """Every bundle and tile of a tree of this size, partial ones at the right edge included."""
    level = ENTRIES
    while count := hashes_at(level, size):
        for index in range(count // WIDTH):
            yield Tile(level, index)
        if count % WIDTH:
            yield Tile(level, count // WIDTH, count % WIDTH)
        level += 1


def hashes_at(level: int, size: int) -> int:
    """How many hashes row `level` of a tree of this size has; for `ENTRIES`, how many entries."""
    return size if level == ENTRIES else size >> (HEIGHT * level)


def paths_of(size: int) -> Iterator[str]:
    """Every file of a log of this size as a static directory, the checkpoint last: it promises what came before."""
    yield VKEY
    for tile in tiles_of(size):
        yield tile.path()
    yield CHECKPOINT


def tile_root(hashes: bytes) -> bytes:
    """Root of a full tile: the one hash it has in the row above. RFC 6962 §2.1."""
    pair = 2 * HASH_SIZE
    while len(hashes) > HASH_SIZE:  # pairs as they lie there: this is half of all hashing, so it copies nothing twice
        above: list[bytes] = []
        for start in range(0, len(hashes), pair):
            node = begin_node()
            node.update(hashes[start : start + pair])
            above.append(node.digest())
        hashes = b"".join(above)
    return hashes


class Row(Protocol):
    """A row of hashes that only grows."""

    def __len__(self) -> int: ...

    def append(self, data: bytes) -> None: ...

    def read(self, first: int, count: int) -> bytes: ...


class MemoryRow:
    """`Row` that nothing keeps."""

    def __init__(self, level: int = 0) -> None:
        self.level = level
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data) // HASH_SIZE

    def append(self, data: bytes) -> None:
        """Further hashes."""
        self._data += data

    def read(self, first: int, count: int) -> bytes:
        """`count` hashes from `first` on; fewer where the row ends."""
        return bytes(self._data[first * HASH_SIZE : (first + count) * HASH_SIZE])


class Rows:
    """A tree as rows of hashes, growing at the right. Not for concurrent writers. `row(level)` opens each row."""

    def __init__(self, row: Callable[[int], Row] = MemoryRow) -> None:
        self._row = row
        self._rows: list[Row] = [row(0)]
        while len(self._rows[-1]) >= WIDTH:
            self._rows.append(row(len(self._rows)))

    def __len__(self) -> int:
        """Leaves."""
        return len(self._rows[0])

    def extend(self, leaf_hashes: Sequence[bytes]) -> None:
        """Append leaf hashes; each tile that fills gives one hash to the row above."""
        self._rows[0].append(b"".join(leaf_hashes))
        self._carry(0)

    def extend_tile(self, leaf_hashes: bytes, root: bytes) -> None:
        """Append a full tile of leaf hashes whose `tile_root` is known. Raises `Invalid` unless the leaves so far fill their tiles."""
        if len(self) % WIDTH or len(leaf_hashes) != WIDTH * HASH_SIZE:
            raise Invalid(f"a tree of {len(self)} leaves does not go on with a full tile")
        self._rows[0].append(leaf_hashes)
        if len(self._rows) == 1:
            self._rows.append(self._row(1))
        self._rows[1].append(root)
        self._carry(1)

    def _carry(self, level: int) -> None:
        while full := len(self._rows[level]) // WIDTH:
            if level + 1 == len(self._rows):
                self._rows.append(self._row(level + 1))
            above = self._rows[level + 1]
            for index in range(len(above), full):
                above.append(tile_root(self._slice(level, index * WIDTH, WIDTH)))
            level += 1

    def tile(self, tile: Tile) -> bytes | None:
        """The hashes of a tile (not a bundle), or None where the tree does not fill it to that width yet."""
        if not 0 <= tile.level < len(self._rows):
            return None
        found = self._slice(tile.level, tile.index * WIDTH, tile.width)
        return found if len(found) == tile.width * HASH_SIZE else None

    def leaf(self, index: int) -> bytes:
        """Leaf hash of one entry."""
        return self._slice(0, index, 1)

    def root(self, size: int | None = None) -> bytes:
        """RFC 6962 §2.1 tree head of the whole tree or of its first `size` leaves.

        Each row's right edge is a run of perfect subtrees; what the rows below have beyond it is the smaller tree at its end.
        """
        size = len(self) if size is None else size
        if not 0 <= size <= len(self):
            raise Invalid(f"the tree has {len(self)} leaves, not {size}")
        rest: list[bytes] = []
        level = 0
        while count := hashes_at(level, size):
            edge = [self._slice(level, index, 1) for index in range(count - count % WIDTH, count)]
            rest = [fold([*edge, *rest])] if edge or rest else []
            level += 1
        return fold(rest)

    def node(self, level: int, index: int) -> bytes:
        """`tree.Nodes` over the rows: the perfect subtree of 2^level leaves at `index`."""
        row, inside = divmod(level, HEIGHT)
        hashes = self._slice(row, index << inside, 1 << inside) if row < len(self._rows) else b""
        if len(hashes) != HASH_SIZE << inside:
            raise Invalid(f"the tree of {len(self)} has no perfect subtree {index} of 2^{level} leaves")
        return tile_root(hashes)

    def _slice(self, level: int, first: int, count: int) -> bytes:
        return self._rows[level].read(first, count)
