"""Verification of a whole log from its files alone, with a report in plain words. Used by `folkmoot verify` and `folkmoot ledger`.

Everything read is hostile until the root of the recomputed tree equals the one in a checkpoint signed by the key. Obligations,
numbered here and at the steps: 1. the checkpoint is signed by the key, under the key's own origin, and by the log's ML-DSA-44 key
where it has one; no known signature on it is false; 2. every bundle is there and well-formed, or pruned as an entry says, its
leaf hashes still there; 3. each entry is canonical JSON with its own position, the hash of the entry before and this log's
origin; 4. no producer's id occurs twice; 5. the first entry, and no other, opens the log and names tenant and key, and each
change of keys is signed by the keys before; 6. nothing follows a closing; 7. every tile is byte for byte what the entries give;
8. the root is the checkpoint's; 9. the policy's quorum of witnesses cosigned; 10. a checkpoint seen earlier is a prefix of this
one. The caller still owes: that key and policy are the right ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field

from folkmoot_core.ledger import signatures, tiles
from folkmoot_core.ledger.chain import Chain
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.findings import Check, Report
from folkmoot_core.ledger.look import Gone, Look, Run, Task, fetch, one_by_one
from folkmoot_core.ledger.policy import Policy
from folkmoot_core.ledger.scan import Entry
from folkmoot_core.ledger.signatures import Keys, Read
from folkmoot_core.ledger.tiles import ENTRIES, WIDTH, Rows, Tile

__all__ = ["Check", "Checkpoint", "Read", "Report", "Run", "Seen", "Trust", "Verified", "verify_log"]

LEDGER = "core/ledger"
Watch = Callable[[int, Entry, bytes], None]
"""Is told each entry that could be read, with its position and leaf hash. What it is told is proved only if the report is ok."""


@dataclass(frozen=True)
class Seen:
    """A checkpoint that was verified earlier."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True)
class Trust:
    """What the caller believes from elsewhere than the log."""

    vkey: str | None = None
    origin: str | None = None
    policy: Policy | None = None
    seen: Seen | None = None


@dataclass
class Verified:
    """A report, with the tree that it is about."""

    report: Report
    rows: Rows = field(default_factory=Rows)
    keys: Keys | None = None
    anchors: list[tuple[int, Entry]] = field(default_factory=list)
    """Entries about timestamps, for whoever can check those."""


def verify_log(  # noqa: PLR0913 - all but the first two are for callers with something special
    read: Read, trust: Trust = Trust(), *, wanted: Set[str] = frozenset(), watch: Watch | None = None, run: Run = one_by_one,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verified:  # fmt: skip
    """Check all obligations. Raises `Missing` when there is no log to check, `Invalid` for a key that is none.

    `wanted` are commitments to look for; `run` looks at the bundles, one by one or several at a time.
    """
    keys = signatures.gather(read, trust.vkey, trust.policy)
    report = Report(keys.known[0], keys.given)
    found = Verified(report, keys=keys)
    report.checkpoint = keys.open(report, read, trust.origin, trust.policy)  # 1, 9
    if report.checkpoint is None:
        return found
    walk = _Walk(found, read, report.checkpoint, watch)
    walk.entries(run, wanted, progress)
    walk.tiles()
    if trust.seen is not None:
        _check_seen(report, report.checkpoint, found.rows, trust.seen)
    return found


class _Walk:
    """One pass over the entries."""

    def __init__(self, found: Verified, read: Read, point: Checkpoint, watch: Watch | None) -> None:
        self._found = found
        self._read = read
        self._point = point
        self._watch = watch
        self._whole = found.report.check("entries", f"all {point.size} entries are there")
        self._chain = Chain(found.report, self._turn)
        self._tiles = found.report.check("tiles", "every tile is what the entries give")
        self._gone = 0
        """End of the last bundle that is missing."""
        self._hole = False

    def entries(self, run: Run, wanted: Set[str], progress: Callable[[int, int], None]) -> None:
        """Follow them to the end, or to the first hole that cannot be bridged."""
        task = Task(self._point.origin, wanted, self._watch is not None)
        bundles = bundles_of(self._point.size)
        for seen in run(self._read, task, bundles_of(self._point.size)):
            tile = next(bundles)
            if isinstance(seen, Look):
                self._take(tile, seen)
            elif isinstance(seen, Gone):
                self._gone = (tile.index + 1) * WIDTH
                self._found.rows.extend_tile(seen.leaves, seen.root)
                self._chain.skip(seen.leaves)
            else:
                self._whole.find(seen)
                self._hole = True
                break  # nothing behind a hole can be placed
            progress(len(self._found.rows), self._point.size)
        report = self._found.report
        if self._gone and report.pruned < self._gone:
            self._whole.find(
                f"bundles of entries below {self._gone} are missing, and no retention.pruned entry says that they may be"
                + (f" (only those below {report.pruned})" if report.pruned else "")
            )
        self._chain.end(self._point.size, self._again)
        if self._found.keys is not None and not self._hole:
            self._found.keys.end(report)

    def tiles(self) -> None:
        """7 for the rows above the leaves, and 8."""
        report, point, rows = self._found.report, self._point, self._found.rows
        if len(rows) == point.size:
            for tile in tiles.tiles_of(point.size):
                if tile.level > 0:
                    data = fetch(self._read, tile)
                    if data is None:
                        self._tiles.find(f"{tile.path()} is missing")
                    elif data != rows.tile(tile):
                        self._tiles.find(f"{tile.path()} differs from what the entries give")
        else:
            self._tiles.find("the rest is not checked: entries are missing")
        root = report.check("root", "the tree over all entries has the signed root")
        if len(rows) != point.size or rows.root() != point.root:
            root.find(
                f"the {len(rows)} entries give root {rows.root().hex()}; the checkpoint signs {point.root.hex()} over {point.size}"
            )

    def _take(self, tile: Tile, seen: Look) -> None:
        self._chain.follow(seen)
        if tile.width == WIDTH:
            self._found.rows.extend_tile(seen.leaves, seen.root)
        else:
            self._found.rows.extend(seen.hashes())
        if seen.tile:
            self._tiles.find(seen.tile)
        if self._watch is not None:
            for position, (entry, leaf) in enumerate(zip(seen.entries, seen.hashes(), strict=True), seen.first):
                if entry is not None:
                    self._watch(position, entry, leaf)

    def _turn(self, position: int, entry: Entry) -> None:
        report, keys, data = self._found.report, self._found.keys, entry.facts
        if entry.kind == "log.opened" and position == 0:
            report.tenant = str(data.get("tenant", ""))[:60]
        if entry.kind in ("log.opened", "log.key.rotated") and keys is not None:
            keys.turn(report, position, entry)  # 5
        elif entry.kind == "retention.pruned" and entry.obs.id == LEDGER:
            minimum = data.get("minimum")
            if isinstance(minimum, int) and 0 <= minimum <= position:
                report.pruned = max(report.pruned, minimum)
        elif entry.kind == "erasure":
            report.erasures.add(position)
        elif entry.kind == "anchor":
            self._found.anchors.append((position, entry))

    def _again(self) -> Iterator[tuple[int, Entry]]:
        task = Task(self._point.origin, keep=True)
        for seen in one_by_one(self._read, task, bundles_of(self._point.size)):
            if isinstance(seen, Look):
                yield from ((seen.first + i, entry) for i, entry in enumerate(seen.entries) if entry is not None)


def bundles_of(size: int) -> Iterator[Tile]:
    """The entry bundles of a log of this size, in order."""
    for tile in tiles.tiles_of(size):
        if tile.level != ENTRIES:
            return
        yield tile


def _check_seen(report: Report, point: Checkpoint, rows: Rows, seen: Seen) -> None:
    """10. The whole tree is here, so no proof is needed: its first `seen.size` leaves must have the root seen then."""
    history = report.check("history", f"the log extends what was verified earlier, {seen.size} entries")
    if seen.origin != point.origin:
        history.find(f"the state is of log {seen.origin[:80]!r}, not of {point.origin!r}: give the state file of this log")
    elif point.size < seen.size:
        history.find(
            f"the log has shrunk: {seen.size} entries were verified earlier, now there are {point.size}; entries were lost"
        )
    elif len(rows) < seen.size or rows.root(seen.size) != seen.root:
        history.find(
            f"the log was forked or rewritten: its first {seen.size} entries are not those that were verified earlier "
            f"(root then {seen.root.hex()})"
        )
