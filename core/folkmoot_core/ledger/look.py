"""What one entry bundle holds: the part of `audit.verify_log` that depends on no other bundle, so that other processes may do it.

`look_at` reads a bundle and its tile itself and returns facts that are small: hashes, counts, findings, and entries only where
somebody looks into them. Two ways lead there. The short one takes a bundle as a whole and is sure that all is well, or says nothing;
`exact` takes entry by entry, decides, and says what is wrong. A property test holds the two against each other. Numbers at the
steps are the obligations of `audit`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field

from folkmoot_core.entries import TYPE_PREFIX
from folkmoot_core.errors import FolkmootError, Invalid
from folkmoot_core.ledger import bundle
from folkmoot_core.ledger.scan import Entry, read_bundle, read_entry
from folkmoot_core.ledger.tiles import ENTRIES, WIDTH, Tile, tile_root
from folkmoot_core.ledger.tree import HASH_SIZE, leaf_hash

Read = Callable[[str], bytes | None]
"""A file of the log by its path, or None."""

TURNING = frozenset({"log.opened", "log.closed", "log.key.rotated", "retention.pruned", "erasure", "anchor"})
"""Kinds that verification itself looks into."""
_TURNING_TYPES = frozenset(f"{TYPE_PREFIX}{kind}.v1" for kind in TURNING)


@dataclass(frozen=True)
class Task:
    """What is looked for, in every bundle alike."""

    origin: str
    wanted: Set[str] = frozenset()
    """Commitments that somebody asks for."""
    keep: bool = False
    """Whether all entries are wanted back."""


@dataclass
class Look:
    """What one bundle holds. Findings are of entries by position; what needs the bundle before is left to `chain`."""

    first: int
    leaves: bytes
    """Leaf hashes, one after the other."""
    root: bytes = b""
    """Of a full tile of them."""
    tile: str = ""
    """What is wrong with the tile beside the bundle (obligation 7)."""
    entries: Sequence[Entry | None] = ()
    """Kept only where they are wanted back."""
    findings: list[str] = field(default_factory=list)
    prev: str | None = None
    """Link of the first entry; None when it is no entry."""
    kinds: Counter[str] = field(default_factory=Counter)
    producers: Counter[str] = field(default_factory=Counter)
    identities: array[int] = field(default_factory=lambda: array("q"))
    turning: list[tuple[int, Entry]] = field(default_factory=list)
    opened: dict[str, int] = field(default_factory=dict)
    """Wanted commitments and the positions that carry them."""
    first_time: str = ""
    last_time: str = ""

    def hashes(self) -> list[bytes]:
        """The leaf hashes one by one."""
        return [self.leaves[i : i + HASH_SIZE] for i in range(0, len(self.leaves), HASH_SIZE)]


@dataclass(frozen=True)
class Gone:
    """A whole bundle that is missing, while its tile is there: pruned, if an entry says so."""

    leaves: bytes
    root: bytes


Seen = Look | Gone | str
"""A sentence where neither bundle nor hashes can be read."""
Run = Callable[[Read, Task, Iterable[Tile]], Iterator[Seen]]
"""Looks at all bundles, in order: one by one, or several at a time."""


def one_by_one(read: Read, task: Task, bundles: Iterable[Tile]) -> Iterator[Seen]:
    """The `Run` that needs nothing."""
    return (look_at(read, task, tile) for tile in bundles)


def look_at(read: Read, task: Task, tile: Tile) -> Seen:
    """One bundle, with its tile."""
    raw = fetch(read, tile)
    hashes = fetch(read, Tile(0, tile.index, tile.width))
    if raw is None:
        # Only a whole bundle can be pruned: the last one holds the entry that says so, or a later one.
        if tile.width < WIDTH or hashes is None or len(hashes) != WIDTH * HASH_SIZE:
            return f"{tile.path()} is missing"
        return Gone(hashes, tile_root(hashes))
    try:
        entries = bundle.decode(raw, tile.width)  # 2
    except FolkmootError as error:
        return f"{tile.path()}: {error.message}"
    seen = look(entries, tile.index * WIDTH, task)
    if hashes != seen.leaves:  # 7
        seen.tile = f"{Tile(0, tile.index, tile.width).path()} " + (
            "is missing" if hashes is None else "differs from what the entries give"
        )
    if tile.width == WIDTH:
        seen.root = tile_root(seen.leaves)
    return seen


def fetch(read: Read, tile: Tile) -> bytes | None:
    """A tile or bundle; where a partial one is gone, the beginning of the full one (tlog-tiles, Partial Tiles)."""
    data = read(tile.path())
    if data is None and tile.width < WIDTH:
        data = read(Tile(tile.level, tile.index).path())
        if data is not None and tile.level != ENTRIES:
            return data[: tile.width * HASH_SIZE]
        if data is not None:
            try:
                return bundle.encode(bundle.decode(data)[: tile.width])
            except Invalid:
                return data  # it is refused where it is read
    return data


def look(raw: Sequence[bytes], first: int, task: Task) -> Look:
    """The entries of one bundle, the short way where that is sure."""
    leaves = [leaf_hash(entry) for entry in raw]
    found = read_bundle(raw)
    if found is None or not _in_order(found, first, leaves, task.origin):
        return exact(raw, first, task)
    return _told(Look(first, b"".join(leaves)), found, task)


def exact(raw: Sequence[bytes], first: int, task: Task) -> Look:
    """The same, entry by entry, with what is wrong in words."""
    leaves = [leaf_hash(entry) for entry in raw]
    seen = Look(first, b"".join(leaves))
    found = _each(raw, first, seen.findings)
    for index, entry in enumerate(found):
        if entry is not None:
            previous = leaves[index - 1].hex() if index else None
            seen.findings += _wrong(entry, first + index, previous, task.origin)
    return _told(seen, found, task)


def _in_order(found: Sequence[Entry], first: int, leaves: Sequence[bytes], origin: str) -> bool:
    """3, for a whole bundle: what `_wrong` says of an entry it says of none of these."""
    return (
        [entry.prev for entry in found[1:]] == [leaf.hex() for leaf in leaves[:-1]]
        and [entry.seq for entry in found] == list(range(first, first + len(found)))
        and {entry.origin for entry in found} <= {origin}
        and {entry.v for entry in found} <= {1}
    )


def _wrong(entry: Entry, position: int, previous: str | None, origin: str) -> Iterator[str]:
    """3: position, log, version and link within the bundle."""
    expected = [("v", entry.v, 1), ("seq", entry.seq, position), ("origin", entry.origin, origin)]
    expected += [("prev", entry.prev, previous)] if previous is not None else []
    for name, is_, must in expected:
        if is_ != must:
            yield f"entry {position}: {name} is {str(is_)[:80]!r}; expected {str(must)!r}"


def _each(raw: Sequence[bytes], first: int, findings: list[str]) -> list[Entry | None]:
    found: list[Entry | None] = []
    for position, entry in enumerate(raw, first):
        try:
            value, canonical = read_entry(entry)
        except Invalid as error:
            findings.append(f"entry {position}: {error.message}")
            found.append(None)
            continue
        if not canonical:
            findings.append(f"entry {position}: its JSON is not canonical, so two readers may read it differently")
        found.append(value)
    return found


def _told(seen: Look, found: Sequence[Entry | None], task: Task) -> Look:
    """What the entries say, whatever was found."""
    first = seen.first
    good = [entry for entry in found if entry is not None]
    seen.prev = found[0].prev if found and found[0] is not None else None
    events = [entry.ce for entry in good]
    seen.kinds = Counter([event.type for event in events])
    seen.producers = Counter([entry.obs.id for entry in good])
    seen.identities = array("q", [hash((event.source, event.id)) for event in events])
    if events:
        seen.first_time, seen.last_time = events[0].recordedtime, events[-1].recordedtime
    if first == 0 or not _TURNING_TYPES.isdisjoint(seen.kinds):
        seen.turning = [(first + i, e) for i, e in enumerate(found) if e is not None and (e.kind in TURNING or first + i == 0)]
    if task.wanted:
        seen.opened = {e.commitment: first + i for i, e in enumerate(found) if e is not None and e.commitment in task.wanted}
    seen.entries = found if task.keep else ()
    return seen
