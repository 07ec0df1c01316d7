"""Verification of a whole log from its files alone, with a report in plain words. Used by `folkmoot verify`.

Everything read is hostile until the root of the recomputed tree equals the one in a checkpoint signed by the key. Obligations,
numbered here and at the steps: 1. the checkpoint is signed by the key, under the key's own origin; 2. every bundle is there and
well-formed; 3. each entry is canonical JSON with its own position, the hash of the entry before and this log's origin; 4. no
producer's id occurs twice; 5. the first entry, and no other, opens the log and names tenant and key; 6. nothing follows a
closing; 7. every tile is byte for byte what the entries give; 8. the root is the checkpoint's. The caller still owes: that the
key is the right one, and that a checkpoint seen earlier is a prefix of this one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from folkmoot_core.canonical import canonical_json
from folkmoot_core.entries import GENESIS_PREV, TYPE_PREFIX
from folkmoot_core.errors import FolkmootError, Invalid, Missing
from folkmoot_core.ledger import bundle, checkpoint, tiles
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.note import VerifierKey, parse_vkey
from folkmoot_core.ledger.tiles import ENTRIES, Rows, Tile
from folkmoot_core.ledger.tree import leaf_hash

Read = Callable[[str], bytes | None]
"""A file of the log by its path, or None."""

MAX_FINDINGS = 20  # of each check; the rest is counted


@dataclass
class Check:
    """One thing that was looked at. It holds when nothing was found."""

    name: str
    says: str
    """What it proves when it holds."""
    findings: list[str] = field(default_factory=list)
    total: int = 0

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return self.total == 0

    def find(self, what: str) -> None:
        """It does not hold, because."""
        self.total += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(what)


@dataclass
class Report:
    """What verification found."""

    key: VerifierKey
    key_given: bool
    """The key came from elsewhere than the log itself."""
    checkpoint: Checkpoint | None = None
    checks: list[Check] = field(default_factory=list)
    types: Counter[str] = field(default_factory=Counter)
    producers: Counter[str] = field(default_factory=Counter)
    first: str = ""
    last: str = ""
    tenant: str = ""
    commitments: set[str] = field(default_factory=set)
    """Salted commitments that entries carry, for openings to be held against."""
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Every check holds."""
        return all(check.ok for check in self.checks)

    def check(self, name: str, says: str) -> Check:
        """Begin a check."""
        self.checks.append(Check(name, says))
        return self.checks[-1]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        point = self.checkpoint
        return {
            "ok": self.ok, "origin": point.origin if point else "", "size": point.size if point else 0,
            "root": point.root.hex() if point else "", "key": self.key.vkey(), "keyGiven": self.key_given, "tenant": self.tenant,
            "first": self.first, "last": self.last, "types": dict(sorted(self.types.items())),
            "producers": dict(sorted(self.producers.items())), "notes": self.notes,
            "checks": [{"name": c.name, "ok": c.ok, "says": c.says, "found": c.total, "findings": c.findings} for c in self.checks],
        }  # fmt: skip


def verify_log(read: Read, vkey: str | None, origin: str | None = None) -> Report:
    """Check all obligations. Raises `Missing` when there is no log to check, `Invalid` for a key that is none."""
    published = read(tiles.VKEY)
    if vkey is None and published is None:
        raise Missing(f"no key: the log has no {tiles.VKEY}, and none was given")
    report = Report(parse_vkey(vkey if vkey is not None else (published or b"").decode(errors="replace")), vkey is not None)
    signed = read(tiles.CHECKPOINT)
    if signed is None:
        raise Missing("no checkpoint: expected a log as a static directory (checkpoint, tile/…), as `evidence` exports it")
    signature = report.check("checkpoint", "size and root are signed by the log's key")
    try:
        report.checkpoint = checkpoint.open_checkpoint(signed, report.key, origin)  # 1
    except Invalid as error:
        signature.find(error.message)
        return report
    rows = _read_entries(report, report.checkpoint, read)
    _check_tiles(report, report.checkpoint, rows, read)
    return report


def _read_entries(report: Report, point: Checkpoint, read: Read) -> Rows:
    whole = report.check("entries", f"all {point.size} entries are there")
    chain = _Chain(report, point.origin)
    rows = Rows()
    for tile in tiles.tiles_of(point.size):
        if tile.level != ENTRIES:
            break
        try:
            entries = bundle.decode(_fetch(read, tile), tile.width)  # 2
        except FolkmootError as error:
            whole.find(f"{tile.path()}: {error.message}")
            break  # nothing behind a hole can be placed
        for entry in entries:
            chain.follow(entry)
        rows.extend([leaf_hash(entry) for entry in entries])
    chain.end(point.size)
    return rows


class _Chain:
    """Follows the entries in order."""

    def __init__(self, report: Report, origin: str) -> None:
        self._report = report
        self._origin = origin
        self._position = 0
        self._previous = GENESIS_PREV
        self._ids: set[tuple[str, str]] = set()
        self._closed_at: int | None = None
        self._links = report.check("links", "each entry carries its position, its log and the hash of the entry before it")
        self._once = report.check("ids", "no producer's id was recorded twice")
        self._opened = report.check("opening", "entry 0 opens the log and names its key; nothing follows a closing")

    def follow(self, entry: bytes) -> None:
        """The next entry's bytes."""
        position, previous = self._position, self._previous
        self._position, self._previous = position + 1, leaf_hash(entry).hex()
        try:
            value = json.loads(entry)
            canonical = canonical_json(value) == entry
            found = (value["v"], value["seq"], value["prev"], value["origin"])
            ce, producer = value["ce"], value["obs"]["id"]
            kind, identity, recorded = str(ce["type"]), (str(ce["source"]), str(ce["id"])), str(ce["recordedtime"])
            commitment = value["payload"]["commit"] if "payload" in value else None
        except (ValueError, KeyError, TypeError, RecursionError, FolkmootError):
            self._links.find(f"entry {position}: not a ledger entry")
            return
        if not canonical:  # 3
            self._links.find(f"entry {position}: its JSON is not canonical, so two readers may read it differently")
        for name, is_, expected in zip(
            ("v", "seq", "prev", "origin"), found, (1, position, previous, self._origin), strict=True
        ):  # fmt: skip
            if is_ != expected or isinstance(is_, bool):
                self._links.find(f"entry {position}: {name} is {str(is_)[:80]!r}; expected {str(expected)!r}")
        if identity in self._ids:  # 4
            self._once.find(f"entry {position}: {identity[0]} recorded id {identity[1][:80]!r} before")
        self._ids.add(identity)
        if isinstance(commitment, str):
            self._report.commitments.add(commitment)
        self._count(position, kind, str(producer), recorded)
        self._check_ends(position, kind, value)

    def _count(self, position: int, kind: str, producer: str, recorded: str) -> None:
        report = self._report
        report.types[kind.removeprefix(TYPE_PREFIX).removesuffix(".v1")[:60]] += 1
        report.producers[producer[:60]] += 1
        report.first = recorded[:40] if position == 0 else report.first
        report.last = recorded[:40]

    def _check_ends(self, position: int, kind: str, value: dict[str, Any]) -> None:
        opening = kind == f"{TYPE_PREFIX}log.opened.v1"
        if opening != (position == 0):  # 5
            self._opened.find(f"entry {position}: {'a second opening' if opening else f'is {kind[:60]!r}, not the opening'}")
        elif opening:
            data = value.get("data")
            named = data.get("vkey") if isinstance(data, dict) else None
            self._report.tenant = str(data.get("tenant", ""))[:60] if isinstance(data, dict) else ""
            if named != self._report.key.vkey():
                self._opened.find("entry 0 names another key than the one that signed the checkpoint")
        if self._closed_at is not None:  # 6
            self._opened.find(f"entry {position} follows the closing in entry {self._closed_at}")
        if kind == f"{TYPE_PREFIX}log.closed.v1":
            self._closed_at = position

    def end(self, size: int) -> None:
        """All that could be read was followed."""
        if size == 0:
            self._opened.find("the log is empty: it was never opened")
        if self._closed_at is not None:
            self._report.notes.append(f"the log is closed; entry {self._closed_at} says so")


def _check_tiles(report: Report, point: Checkpoint, rows: Rows, read: Read) -> None:
    proof = report.check("tiles", "every tile is what the entries give")
    if len(rows) == point.size:
        for tile in tiles.tiles_of(point.size):
            if tile.level == ENTRIES:
                continue
            try:
                same = _fetch(read, tile) == rows.tile(tile)  # 7
            except Missing as error:
                proof.find(error.message)
                continue
            if not same:
                proof.find(f"{tile.path()} differs from what the entries give")
    else:
        proof.find("not checked: entries are missing")
    root = report.check("root", "the tree over all entries has the signed root")
    if len(rows) != point.size or rows.root() != point.root:  # 8
        root.find(
            f"the {len(rows)} entries give root {rows.root().hex()}; the checkpoint signs {point.root.hex()} over {point.size}"
        )


def _fetch(read: Read, tile: Tile) -> bytes:
    """A tile or bundle; where a partial one is gone, the beginning of the full one (tlog-tiles, Partial Tiles)."""
    data = read(tile.path())
    if data is None and tile.width < tiles.WIDTH:
        data = read(Tile(tile.level, tile.index).path())
        if data is not None and tile.level != ENTRIES:
            data = data[: tile.width * 32]
        elif data is not None:
            data = bundle.encode(bundle.decode(data)[: tile.width])
    if data is None:
        raise Missing(f"{tile.path()} is missing")
    return data
