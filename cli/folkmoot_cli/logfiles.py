"""A log read in parts, each proved before it is shown: `folkmoot ledger tail|show|proof|search` and the SIEM export.

Nobody has to read a million entries to see ten. Opening checks the checkpoint's signatures; each bundle that is read is proved to be in
the signed tree: all its leaf hashes are computed, and one inclusion proof over them leads to the root, which covers every one.
What is not proved here, and is by `folkmoot verify`: that links, ids and the rest of the log are in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from folkmoot_cli.sources import Read
from folkmoot_core.errors import Invalid, Missing
from folkmoot_core.ledger import bundle, scan, signatures, tiles
from folkmoot_core.ledger.audit import Trust
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.findings import Report
from folkmoot_core.ledger.scan import Entry
from folkmoot_core.ledger.tiles import ENTRIES, HEIGHT, WIDTH, Tile, tile_root
from folkmoot_core.ledger.tree import (
    HASH_SIZE,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)

KEPT = 64  # tiles that are remembered


@dataclass(frozen=True)
class Found:
    """One proved entry. `entry` is None for a leaf that is no ledger entry."""

    index: int
    raw: bytes
    leaf: bytes
    entry: Entry | None


class LogFiles:
    """A log behind a reader of its paths. Raises `Invalid` for whatever does not fit the signed tree."""

    def __init__(self, read: Read, trust: Trust) -> None:
        self._read = read
        self._trust = trust
        self._tiles: dict[Tile, bytes] = {}
        self._last: tuple[Tile, list[Found]] | None = None
        self.signed = b""
        self.signers: list[str] = []
        self.key_given = False
        self.point = self._open()

    def _open(self) -> Checkpoint:
        keys = signatures.gather(self._read, self._trust.vkey, self._trust.policy)
        report = Report(keys.known[0], keys.given)
        found = keys.open(report, self._read, self._trust.origin, self._trust.policy)
        for check in report.checks:
            if not check.ok:
                raise Invalid(f"checkpoint: {check.findings[0]}")
        if found is None or (keys.given and keys.signer != keys.known[0]):
            raise Invalid(
                "the log's key has changed since the one you gave: follow the change with folkmoot verify, then give the new key"
            )
        self.signed, self.signers, self.key_given = report.signed, report.signers, keys.given
        return found

    def refresh(self) -> bool:
        """Look for a newer checkpoint, which must extend the one before. Returns whether there is one."""
        before, self.point = self.point, self._open()
        if self.point.size < before.size:
            raise Invalid(
                f"the log has shrunk from {before.size} entries to {self.point.size} while it was read; entries were lost"
            )
        self._tiles = {tile: data for tile, data in self._tiles.items() if tile.width == WIDTH}
        proof = consistency_proof(before.size, self.point.size, self.node)
        verify_consistency(before.size, self.point.size, before.root, self.point.root, proof)
        return self.point.size > before.size

    def entries(self, first: int, end: int) -> Iterator[Found]:
        """Entries [first, end), each proved; a bundle that was pruned is left out."""
        first, end = max(0, first), min(end, self.point.size)
        index = first
        while index < end:
            number = index // WIDTH
            tile = Tile(ENTRIES, number, min(WIDTH, self.point.size - number * WIDTH))
            for found in self._bundle(tile):
                if first <= found.index < end:
                    yield found
            index = (number + 1) * WIDTH

    def one(self, index: int) -> Found:
        """One entry; raises `Missing` when there is none at this index."""
        for found in self.entries(index, index + 1):
            return found
        raise Missing(f"the log has {self.point.size} entries, and none at index {index} that can be read")

    def node(self, level: int, index: int) -> bytes:
        """`tree.Nodes` over the log's tiles."""
        row, inside = divmod(level, HEIGHT)
        first = index << inside
        count = tiles.hashes_at(row, self.point.size)
        number = first // WIDTH
        data = self._tile(Tile(row, number, min(WIDTH, count - number * WIDTH)))
        hashes = data[(first % WIDTH) * HASH_SIZE : (first % WIDTH + (1 << inside)) * HASH_SIZE]
        if len(hashes) != HASH_SIZE << inside:
            raise Invalid(f"tile/{row}/{number} does not hold the hashes it must")
        return tile_root(hashes)

    def _tile(self, tile: Tile) -> bytes:
        if tile not in self._tiles:
            data = self._fetch(tile)
            if data is None:
                raise Missing(f"{tile.path()} is missing")
            while len(self._tiles) >= KEPT:
                self._tiles.pop(next(iter(self._tiles)))
            self._tiles[tile] = data[: tile.width * HASH_SIZE]
        return self._tiles[tile]

    def _fetch(self, tile: Tile) -> bytes | None:
        data = self._read(tile.path())
        if data is None and tile.width < WIDTH:  # the full one stands in for its beginning (tlog-tiles, Partial Tiles)
            data = self._read(Tile(tile.level, tile.index).path())
        return data

    def _bundle(self, tile: Tile) -> list[Found]:
        if self._last is not None and self._last[0] == tile:
            return self._last[1]
        data = self._fetch(tile)
        if data is None:
            return []
        entries = bundle.decode(data)[: tile.width]
        if len(entries) != tile.width:
            raise Invalid(f"{tile.path()} holds {len(entries)} entries; expected {tile.width}")
        leaves = [leaf_hash(entry) for entry in entries]
        self._prove(tile, b"".join(leaves))
        parsed = scan.read_bundle(entries)
        first = tile.index * WIDTH
        found = [
            Found(first + i, raw, leaves[i], parsed[i] if parsed is not None else _entry(raw)) for i, raw in enumerate(entries)
        ]
        self._last = (tile, found)
        return found

    def _prove(self, tile: Tile, leaves: bytes) -> None:
        """That the tree has exactly these leaf hashes in this tile: what the proof takes from within the tile is computed from them,
        and for the first leaf it takes all of them."""

        def nodes(level: int, index: int) -> bytes:
            first = index << level
            if level < HEIGHT and first // WIDTH == tile.index:
                start = (first % WIDTH) * HASH_SIZE
                return tile_root(leaves[start : start + (HASH_SIZE << level)])
            return self.node(level, index)

        first = tile.index * WIDTH
        proof = inclusion_proof(first, self.point.size, nodes)
        verify_inclusion(first, self.point.size, leaves[:HASH_SIZE], proof, self.point.root)


def _entry(raw: bytes) -> Entry | None:
    try:
        return scan.read_entry(raw)[0]
    except Invalid:
        return None
