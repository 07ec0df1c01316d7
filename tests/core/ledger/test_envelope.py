"""Entry bytes made in two steps are those of the plain encoder, and come apart again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.entries import GENESIS_PREV, Actor, EntryRequest, Payload, Producer, encode_entry, new_entry, rfc3339
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.envelope import key_of, prepare, take_apart
from folkmoot_core.ledger.sequence import Sequence
from folkmoot_core.ledger.tree import leaf_hash

ORIGIN = "folkmoot/1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b"
PRODUCER = Producer(id="agents/anna")
TRICKY = [
    '","recordedtime":"',
    '","type":"',
    ',"prev":"',
    '"',
    "\\",
    '\\",',
    "é漢",
    "x,",
    ',"time":"x"',
    '","seq":0,"v":1}',
    '"ce":{"id":',
]
text = st.one_of(st.sampled_from(TRICKY), st.text(st.characters(codec="utf-8"), max_size=30))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), text),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["time", "type", "prev", "recordedtime", "ce", "id", "seq", 'a"b']), inner, max_size=3),
    ),
    max_leaves=8,
)
requests = st.builds(
    EntryRequest,
    id=text.map(lambda t: f"request-{t}"),
    type=st.sampled_from(["session.start", "gate.verdict"]),
    time=st.integers(0, 2**32).map(rfc3339),
    actor=st.builds(Actor, kind=st.just("agent"), id=text, seed=text, commitment=text),
    session=text,
    config=text,
    data=st.dictionaries(st.text("abcdef.", min_size=1, max_size=5), values, max_size=4),
    payload=st.one_of(st.none(), st.builds(Payload, commit=st.just("0" * 64), size=st.integers(0, 9), media=text)),
    traceparent=text,
)


@given(requests, st.integers(0, 2**40), st.binary(min_size=32, max_size=32))
def test_two_steps_make_the_encoders_bytes_and_rfc_8785s(request: EntryRequest, seq: int, previous: bytes) -> None:
    recorded = rfc3339(1_700_000_000.25)
    prepared = prepare(request, origin=ORIGIN, producer=PRODUCER)
    entry = prepared.encode(seq, previous.hex(), recorded)
    assert entry == encode_entry(request, origin=ORIGIN, seq=seq, prev=previous.hex(), recorded=recorded, producer=PRODUCER)
    assert entry == rfc8785.dumps(json.loads(entry))
    assert len(entry) <= prepared.size
    assert take_apart(entry) == prepared
    assert key_of(entry) == prepared.key


@given(requests, requests)
def test_key_and_fact_tell_requests_apart(one: EntryRequest, other: EntryRequest) -> None:
    first, second = (prepare(r, origin=ORIGIN, producer=PRODUCER) for r in (one, other))
    assert (first.key == second.key) == (one.id == other.id)
    assert (first.fact == second.fact) == one.same_fact(other)
    later = one.model_copy(update={"time": "2030-01-01T00:00:00Z", "traceparent": "00-1-2-01"})
    again = prepare(later, origin=ORIGIN, producer=PRODUCER)
    assert (again.key, again.fact) == (first.key, first.fact)
    elsewhere = prepare(one, origin=ORIGIN, producer=Producer(id="broker"))
    assert elsewhere.key != first.key


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused_with_our_error(data: bytes) -> None:
    with pytest.raises(Invalid):
        take_apart(data)


def start(**fields: Any) -> EntryRequest:
    data = fields.pop("data", {})
    return new_entry("session.start", Actor(kind="service", id="conductor"), id="request-1", data=data, now=0, **fields)


def test_what_cannot_be_stored_is_refused_on_arrival() -> None:
    with pytest.raises(Invalid, match="61440"):
        prepare(start(data={"text": "x" * 62_000}), origin=ORIGIN, producer=PRODUCER)
    with pytest.raises(Invalid, match="RFC 3339"):
        prepare(start().model_copy(update={"time": "yesterday"}), origin=ORIGIN, producer=PRODUCER)
    with pytest.raises(Invalid, match="canonical"):
        prepare(start(data={"share": 0.5}), origin=ORIGIN, producer=PRODUCER)


def test_the_id_is_readable_for_messages() -> None:
    assert prepare(start(), origin=ORIGIN, producer=PRODUCER).id == "request-1"


def test_links_are_the_leaf_hashes_before() -> None:
    state = Sequence()
    recorded = rfc3339(1.0)
    made: list[bytes] = []
    for batch in (1, 3, 2):
        prepared = [
            prepare(start().model_copy(update={"id": f"request-{len(made)}-{i}"}), origin=ORIGIN, producer=PRODUCER)
            for i in range(batch)
        ]
        before = len(state)
        entries, leaves = state.seal(prepared, recorded)
        assert len(state) == before  # sealing changes nothing: the batch may fail
        state.commit([p.key for p in prepared], leaves)
        made += entries
    previous = GENESIS_PREV
    for position, entry in enumerate(made):
        value = json.loads(entry)
        assert (value["seq"], value["prev"]) == (position, previous)
        previous = hashlib.sha256(b"\0" + entry).hexdigest()
    again = Sequence()
    again.accept(made, [leaf_hash(entry) for entry in made])
    assert again.rows.root() == state.rows.root()
    for position, entry in enumerate(made):
        assert again.find(take_apart(entry).key, made.__getitem__) == (position, take_apart(entry))
    assert again.find(b"unknown key 1234", made.__getitem__) is None
