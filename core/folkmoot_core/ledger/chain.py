"""Following a log's entries in order: position, link, identity, opening and closing. The middle of `audit.verify_log`; pure.

`look` sees one bundle and depends on nothing before it, so that a caller may run it elsewhere, several at a time; `Chain` takes
the results in order. Numbers at the steps are the obligations of `audit`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field

from folkmoot_core.entries import GENESIS_PREV
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.findings import Report
from folkmoot_core.ledger.scan import Entry, read_bundle, read_entry
from folkmoot_core.ledger.tree import leaf_hash

TURNING = frozenset({"log.opened", "log.closed", "log.key.rotated", "retention.pruned", "erasure", "anchor"})
"""Kinds that verification itself looks into."""
MAX_LABEL = 60  # characters of a kind or producer that a report repeats
MAX_KINDS = 200  # of each; a hostile log may name millions
SIFTED = 4_000_000  # identities that are sifted at a time: bounds memory


@dataclass
class Look:
    """What one bundle holds. Findings are of entries by position; what needs the bundle before is left to `Chain`."""

    first: int
    leaves: list[bytes]
    entries: Sequence[Entry | None] = ()
    """Kept only where somebody watches."""
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


def look(raw: Sequence[bytes], first: int, origin: str, wanted: Set[str] = frozenset(), *, keep: bool = False) -> Look:
    """Read one bundle; `wanted` are the commitments that are asked for."""
    seen = Look(first, [leaf_hash(entry) for entry in raw])
    found: Sequence[Entry | None] | None = read_bundle(raw)
    if found is None:
        found = _each(raw, first, seen.findings)
    good = [entry for entry in found if entry is not None]
    _links(seen, found, origin)  # 3
    seen.kinds.update([entry.ce.type for entry in good])
    seen.producers.update([entry.obs.id for entry in good])
    seen.identities.extend([hash((entry.ce.source, entry.ce.id)) for entry in good])
    if good:
        seen.first_time, seen.last_time = good[0].ce.recordedtime, good[-1].ce.recordedtime
    if len(good) != len(found) or not _TURNING_TYPES.isdisjoint(seen.kinds) or first == 0:
        seen.turning = [(first + i, e) for i, e in enumerate(found) if e is not None and (e.kind in TURNING or first + i == 0)]
    if wanted:
        seen.opened = {e.commitment: first + i for i, e in enumerate(found) if e is not None and e.commitment in wanted}
    seen.entries = found if keep else ()
    return seen


_TURNING_TYPES = frozenset(f"dev.folkmoot.audit.{kind}.v1" for kind in TURNING)


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


def _links(seen: Look, found: Sequence[Entry | None], origin: str) -> None:
    """Position, log, version, and links within the bundle: all at once where all is well, else one by one."""
    first = seen.first
    previous = [leaf.hex() for leaf in seen.leaves[:-1]]
    seen.prev = found[0].prev if found and found[0] is not None else None
    whole = [entry for entry in found if entry is not None]
    if (
        len(whole) == len(found)
        and [entry.seq for entry in whole] == list(range(first, first + len(whole)))
        and [entry.prev for entry in whole[1:]] == previous
        and {entry.origin for entry in whole} <= {origin}
        and {entry.v for entry in whole} <= {1}
    ):
        return
    for index, entry in enumerate(found):
        if entry is None:
            continue
        expected = [("v", entry.v, 1), ("seq", entry.seq, first + index), ("origin", entry.origin, origin)]
        expected += [("prev", entry.prev, previous[index - 1])] if index else []
        for name, is_, must in expected:
            if is_ != must:
                seen.findings.append(f"entry {first + index}: {name} is {str(is_)[:80]!r}; expected {str(must)!r}")


class Chain:
    """Takes bundles in order. `turn` is told of each entry of a kind in `TURNING`, once its position is certain."""

    def __init__(self, report: Report, turn: Callable[[int, Entry], None]) -> None:
        self._report = report
        self._turn = turn
        self._previous = GENESIS_PREV
        self._identities = array("q")
        self._closed_at: int | None = None
        self._links = report.check("links", "each entry carries its position, its log and the hash of the entry before it")
        self._once = report.check("ids", "no producer's id was recorded twice")
        self._opened = report.check("opening", "entry 0 opens the log and names its key; nothing follows a closing")

    def follow(self, seen: Look) -> None:
        """The next bundle."""
        report = self._report
        if seen.prev is not None and seen.prev != self._previous:
            self._links.find(f"entry {seen.first}: prev is {seen.prev[:80]!r}; expected {self._previous!r}")
        for finding in seen.findings:
            self._links.find(finding)
        self._previous = seen.leaves[-1].hex() if seen.leaves else self._previous
        _add(report.types, {kind.removeprefix("dev.folkmoot.audit.").removesuffix(".v1"): n for kind, n in seen.kinds.items()})
        _add(report.producers, seen.producers)
        report.first = report.first or seen.first_time[:40]
        report.last = seen.last_time[:40] or report.last
        report.opened |= {commitment: at for commitment, at in seen.opened.items() if commitment not in report.opened}
        self._identities.extend(seen.identities)
        self._ends(seen)
        for position, entry in seen.turning:
            self._turn(position, entry)

    def skip(self, last_leaf: bytes) -> None:
        """A bundle that was pruned: its leaf hashes alone are there."""
        self._previous = last_leaf.hex()

    def _ends(self, seen: Look) -> None:
        for position, entry in seen.turning:
            opening = entry.kind == "log.opened"
            if opening and position:  # 5
                self._opened.find(f"entry {position}: a second opening")
            if not position and not opening:
                self._opened.find(f"entry 0: is {entry.ce.type[:MAX_LABEL]!r}, not the opening")
        if self._closed_at is not None and seen.leaves:  # 6
            self._opened.find(f"entry {seen.first} follows the closing in entry {self._closed_at}")
        closings = [position for position, entry in seen.turning if entry.kind == "log.closed"]
        if closings and self._closed_at is None:
            self._closed_at = closings[0]
            if closings[0] != seen.first + len(seen.leaves) - 1:
                self._opened.find(f"entry {closings[0] + 1} follows the closing in entry {closings[0]}")

    def end(self, size: int, again: Callable[[], Iterator[tuple[int, Entry]]]) -> None:
        """All that could be read was followed; `again` reads it a second time, where an identity may have come twice."""
        if size == 0:
            self._opened.find("the log is empty: it was never opened")
        if self._closed_at is not None:
            self._report.notes.append(f"the log is closed; entry {self._closed_at} says so")
        suspects = repeated(self._identities)
        if not suspects:
            return
        first: set[tuple[str, str]] = set()
        for position, entry in again():  # 4
            identity = (entry.ce.source, entry.ce.id)
            if hash(identity) not in suspects:
                continue
            if identity in first:
                self._once.find(f"entry {position}: {identity[0][:80]} recorded id {identity[1][:80]!r} before")
            first.add(identity)


def repeated(hashes: array[int], sifted: int = SIFTED) -> set[int]:
    """Hashes that occur more than once. In slices by value, so that a set of all is never needed."""
    slices = len(hashes) // sifted + 1
    found: set[int] = set()
    for slice_ in range(slices):
        part: Sequence[int] = hashes if slices == 1 else [h for h in hashes if h % slices == slice_]
        if len(set(part)) != len(part):
            found.update(value for value, count in Counter(part).items() if count > 1)
    return found


def _add(counts: Counter[str], more: dict[str, int]) -> None:
    for label, count in more.items():
        short = label[:MAX_LABEL]
        counts[short if short in counts or len(counts) < MAX_KINDS else "(others)"] += count
