"""One bundle: the short way says of it what the exact way does, whatever was done to it; and what is read beside it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import ORIGIN, TestLog, story

from folkmoot_core.canonical import canonical_json
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import look, scan
from folkmoot_core.ledger.look import Gone, Look, Task, look_at
from folkmoot_core.ledger.tiles import ENTRIES, Rows, Tile, tile_root
from folkmoot_core.ledger.tree import leaf_hash

COMMIT = "2" * 64
TASK = Task(ORIGIN, frozenset({COMMIT}))


def entries() -> list[bytes]:
    log = TestLog()
    story(log)
    log.fill(3)
    log.add("anchor", by="core/ledger", data={"size": 3, "authority": "honest"})
    log.add("gate.verdict", data={"reason": "grün", "shapes": [{"a": 1}]})
    log.add("erasure", data={"count": 2})
    return log.entries


ENTRIES_OF_ALL_KINDS = entries()


def flip(data: st.DataObject, raw: list[bytes]) -> None:
    at = data.draw(st.integers(0, len(raw) - 1))
    place = data.draw(st.integers(0, len(raw[at]) - 1))
    raw[at] = raw[at][:place] + bytes([data.draw(st.integers(0, 255))]) + raw[at][place + 1 :]


def swap(data: st.DataObject, raw: list[bytes]) -> None:
    at = data.draw(st.integers(0, len(raw) - 2))
    raw[at], raw[at + 1] = raw[at + 1], raw[at]


def cut(data: st.DataObject, raw: list[bytes]) -> None:
    at = data.draw(st.integers(0, len(raw) - 1))
    place = data.draw(st.integers(0, len(raw[at])))
    raw[at : at + 1] = [raw[at][:place], raw[at][place:]]


def join(data: st.DataObject, raw: list[bytes]) -> None:
    at = data.draw(st.integers(0, len(raw) - 2))
    raw[at : at + 2] = [raw[at] + data.draw(st.sampled_from([b"", b"\n", b" "])) + raw[at + 1]]


def drop(data: st.DataObject, raw: list[bytes]) -> None:
    del raw[data.draw(st.integers(0, len(raw) - 1))]


def respell(data: st.DataObject, raw: list[bytes]) -> None:
    at = data.draw(st.integers(0, len(raw) - 1))
    text = data.draw(st.sampled_from([(b'":"', b'": "'), (b'"v":1', b'"v":1.0'), (b"a", b"\\u0061"), (b',"v"', b',"v":1,"v"')]))
    raw[at] = raw[at].replace(*text, 1)


FIELDS = ["origin", "seq", "prev", "v", "ce", "obs", "data", "config", "actor", "payload"]
VALUES: list[object] = [0, 1, True, None, "", ORIGIN, "é", 2**53, [], {}, {"id": "x"}, {"a": {"b": {"c": [1]}}}]


def refill(data: st.DataObject, raw: list[bytes]) -> None:
    """Another value in canonical JSON, where it has one."""
    at = data.draw(st.integers(0, len(raw) - 1))
    try:
        value = json.loads(raw[at])
        value[data.draw(st.sampled_from(FIELDS))] = data.draw(st.sampled_from(VALUES))
        raw[at] = canonical_json(value)
    except (ValueError, TypeError, Invalid):
        raw[at] = b"{}"


CHANGES: list[Callable[[st.DataObject, list[bytes]], None]] = [flip, swap, cut, join, drop, respell, refill]


@given(st.data())
def test_the_short_way_says_what_the_exact_way_does(data: st.DataObject) -> None:
    raw = list(ENTRIES_OF_ALL_KINDS)
    for change in data.draw(st.lists(st.sampled_from(CHANGES), max_size=3)):
        change(data, raw)
    first = data.draw(st.sampled_from([0, 0, 256]))
    task = Task(ORIGIN, frozenset({COMMIT}), keep=data.draw(st.booleans()))
    seen, exactly = look.look(raw, first, task), look.exact(raw, first, task)
    # What was read loosely is of another class; its fields are what counts.
    for one in (seen, exactly):
        one.turning = [(at, _plain(entry)) for at, entry in one.turning]  # type: ignore[misc]
        one.entries = [entry and _plain(entry) for entry in one.entries]  # type: ignore[misc]
    assert seen == exactly


def _plain(entry: scan.Entry) -> object:
    return scan._encode([entry])


def test_a_whole_bundle_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    log = TestLog()
    story(log)
    monkeypatch.setattr(look, "exact", None)
    seen = look.look(log.entries, 0, TASK)
    assert (seen.findings, seen.prev, seen.opened) == ([], "0" * 64, {COMMIT: 4})
    assert [entry.kind for _, entry in seen.turning] == ["log.opened"]
    assert seen.hashes() == [leaf_hash(entry) for entry in log.entries]


def test_what_lies_beside_a_bundle() -> None:
    log = TestLog()
    log.fill(600)
    log.publish()
    whole, last = Tile(ENTRIES, 1), Tile(ENTRIES, 2, 89)
    seen = look_at(log.read, TASK, whole)
    assert isinstance(seen, Look)
    assert (seen.tile, seen.root) == ("", tile_root(log.files["tile/0/001"]))
    log.files["tile/0/001"] = bytes(8192)
    assert "tile/0/001 differs" in look_at(log.read, TASK, whole).tile  # type: ignore[union-attr]
    del log.files["tile/0/001"], log.files["tile/0/002.p/89"]
    assert "tile/0/001 is missing" in look_at(log.read, TASK, whole).tile  # type: ignore[union-attr]
    partial = look_at(log.read, TASK, last)
    assert isinstance(partial, Look)
    assert ("tile/0/002.p/89 is missing" in partial.tile, partial.root) == (True, b"")


def test_a_bundle_that_is_gone_leaves_its_hashes_or_nothing() -> None:
    log = TestLog()
    log.fill(300)
    log.publish()
    del log.files["tile/entries/000"], log.files["tile/entries/001.p/45"]
    row = log.files["tile/0/000"]
    assert look_at(log.read, TASK, Tile(ENTRIES, 0)) == Gone(row, tile_root(row))
    assert look_at(log.read, TASK, Tile(ENTRIES, 1, 45)) == "tile/entries/001.p/45 is missing"
    log.files["tile/0/000"] = row[:-1]
    assert look_at(log.read, TASK, Tile(ENTRIES, 0)) == "tile/entries/000 is missing"


@given(st.integers(0, 4), st.integers(0, 255))
def test_a_tree_grows_by_tiles_as_by_leaves(whole: int, rest: int) -> None:
    leaves = [leaf_hash(b"%d" % n) for n in range(whole * 256 + rest)]
    by_leaves, by_tiles = Rows(), Rows()
    by_leaves.extend(leaves)
    for index in range(whole):
        hashes = b"".join(leaves[index * 256 : index * 256 + 256])
        by_tiles.extend_tile(hashes, tile_root(hashes))
    by_tiles.extend(leaves[whole * 256 :])
    assert (len(by_tiles), by_tiles.root()) == (len(by_leaves), by_leaves.root())
    for short in (bytes(32), bytes(8192)):
        if rest or len(short) != 8192:
            with pytest.raises(Invalid, match="does not go on"):
                by_tiles.extend_tile(short, bytes(32))
