"""Following a log's bundles in order: links between them, identities, opening and closing. The middle of `audit.verify_log`; pure.

It takes what `look` saw of each bundle. Numbers at the steps are the obligations of `audit`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator

from folkmoot_core.entries import GENESIS_PREV
from folkmoot_core.ledger.findings import Report
from folkmoot_core.ledger.look import Look
from folkmoot_core.ledger.scan import Entry
from folkmoot_core.ledger.tree import HASH_SIZE

MAX_LABEL = 60  # characters of a kind or producer that a report repeats
MAX_KINDS = 200  # of each; a hostile log may name millions
SIFTED = 2_000_000  # identities that are sifted at a time: bounds memory


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
        self._previous = seen.leaves[-HASH_SIZE:].hex() or self._previous
        _add(report.types, {kind.removeprefix("dev.folkmoot.audit.").removesuffix(".v1"): n for kind, n in seen.kinds.items()})
        _add(report.producers, seen.producers)
        report.first = report.first or seen.first_time[:40]
        report.last = seen.last_time[:40] or report.last
        report.opened |= {commitment: at for commitment, at in seen.opened.items() if commitment not in report.opened}
        self._identities.extend(seen.identities)
        self._ends(seen)
        for position, entry in seen.turning:
            self._turn(position, entry)

    def skip(self, leaves: bytes) -> None:
        """A bundle that was pruned: its leaf hashes alone are there."""
        self._previous = leaves[-HASH_SIZE:].hex()

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
            if closings[0] != seen.first + len(seen.leaves) // HASH_SIZE - 1:
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
    """Hashes that occur more than once. Sorted into parts by value first, so that a set of all is never needed."""
    parts = [hashes]
    if (count := len(hashes) // sifted + 1) > 1:
        parts = [array("q") for _ in range(count)]
        for value in hashes:
            parts[value % count].append(value)
    found: set[int] = set()
    for part in parts:
        if len(set(part)) != len(part):
            found.update(value for value, count in Counter(part).items() if count > 1)
    return found


def _add(counts: Counter[str], more: dict[str, int]) -> None:
    for label, count in more.items():
        short = label[:MAX_LABEL]
        counts[short if short in counts or len(counts) < MAX_KINDS else "(others)"] += count
