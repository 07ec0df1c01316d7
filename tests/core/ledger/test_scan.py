"""The short way of reading entries accepts nothing that the long way would not, and both give the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.canonical import canonical_json
from folkmoot_core.errors import FolkmootError, Invalid
from folkmoot_core.ledger.scan import read_bundle, read_entry

ENTRY: dict[str, Any] = {
    "v": 1, "origin": "folkmoot/x", "seq": 3, "prev": "0" * 64, "config": "", "actor": {"kind": "agent", "id": "a", "seed": "", "commitment": ""},
    "ce": {"specversion": "1.0", "id": "entry-0003", "source": "/x/broker", "type": "dev.folkmoot.audit.heartbeat.v1",
           "time": "2026-01-01T00:00:00.000000Z", "recordedtime": "2026-01-01T00:00:00.000000Z"},
    "data": {}, "obs": {"id": "broker", "build": ""},
}  # fmt: skip
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | TEXT
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)


def canonical(raw: bytes) -> bool:
    try:
        return canonical_json(json.loads(raw)) == raw
    except (ValueError, RecursionError, FolkmootError):
        return False


@given(st.dictionaries(TEXT, VALUES, max_size=5), st.booleans(), st.booleans())
def test_any_data_spelled_in_any_way(data: dict[str, Any], ordered: bool, escaped: bool) -> None:
    raw = json.dumps({**ENTRY, "data": data}, sort_keys=ordered, separators=(",", ":"), ensure_ascii=escaped).encode()
    found = read_bundle([raw])
    if found is not None:
        assert canonical(raw)
        assert found[0].facts == data
    entry, good = read_entry(raw) if _plain(raw) else (None, False)
    assert good == canonical(raw) or entry is None


def _plain(raw: bytes) -> bool:
    try:
        read_entry(raw)
    except Invalid:
        return False
    return True


@given(st.data())
def test_flipped_bytes_are_never_taken_for_canonical(data: st.DataObject) -> None:
    raw = bytearray(canonical_json({**ENTRY, "data": {"a": [1, "x", None, True], "b": {"c": -5}}}))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert read_bundle([bytes(raw)]) is None or canonical(bytes(raw))


GOOD = canonical_json(ENTRY)


def with_data(text: bytes) -> bytes:
    return GOOD.replace(b'"data":{}', b'"data":' + text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1.0}', b'{"a":1e3}', b'{"a":-0}', b'{"a":9007199254740992}', b'{"a":1,"a":1}', b'{"b":1,"a":1}', b'{"a": 1}',
        b'{"a":"\\/"}', b'{"a":"\\u0041"}', b'{"\\u00e9":1}', b'{"a":"\\ud800"}', b'{"a":01}', b'{"a":NaN}', b'{"a":[1,]}', b'{"a":"\x7f\n"}',
    ],
)  # fmt: skip
def test_what_is_not_canonical_takes_the_long_way(text: bytes) -> None:
    assert read_bundle([with_data(text)]) is None


@pytest.mark.parametrize("text", [b'{"a":"\\u0001\\n\\"\\\\"}', b'{"a":{"b":5}}', b'{"a":-9007199254740991}', b'{"a":"\x7f"}'])
def test_what_is_canonical_is_said_to_be(text: bytes) -> None:
    raw = with_data(text)
    assert canonical(raw)
    assert read_entry(raw)[1]
    assert read_bundle([raw]) is not None


def test_deep_data_and_other_letters_take_the_long_way_and_are_fine() -> None:
    for text in (b'{"a":{"b":{"c":{"d":1}}}}', b'{"a":{"b":[1,{}]}}', '{"a":"é"}'.encode()):
        assert read_bundle([with_data(text)]) is None
        assert read_entry(with_data(text))[1]


def test_entries_cannot_be_moved_across_their_ends() -> None:
    """Two pieces that join to one entry, and one that hides two behind a line feed."""
    assert read_bundle([GOOD[:40], GOOD[40:]]) is None
    assert read_bundle([GOOD + b"\n" + GOOD]) is None
    assert read_bundle([GOOD, b""]) is None
    assert read_bundle([GOOD, GOOD]) is not None


@pytest.mark.parametrize(
    "raw", [b"", b"hello", b"[]", b"{}", b"[" * 60_000, b"1" * 5000, b"\xff", GOOD.replace(b'"v":1', b'"v":true')]
)
def test_what_is_no_entry(raw: bytes) -> None:
    assert read_bundle([raw]) is None
    with pytest.raises(Invalid, match="not a ledger entry"):
        read_entry(raw)


def test_absent_fields_read_as_nothing() -> None:
    bare = {k: v for k, v in ENTRY.items() if k not in ("actor", "data", "config")}
    (entry,) = read_bundle([canonical_json({**bare, "payload": {"commit": "ab"}})]) or []
    assert (entry.facts, entry.session, entry.commitment, entry.kind) == ({}, "", "ab", "heartbeat")
