"""The index of keys: exact whatever the keys, also when 64 bits of them are equal."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.ledger.envelope import take_apart
from folkmoot_core.ledger.index import Index
from folkmoot_core.ledger.sequence import Sequence
from folkmoot_core.ledger.tree import leaf_hash

# Few shards, few marks: collisions in the slots, in the marks and at the tables' ends.
KEYS = st.builds(
    lambda shard, mark, rest: bytes([shard]) + mark.to_bytes(8, "big") + rest,
    st.sampled_from([0, 1, 255]),
    st.sampled_from([0, 1, 2, 7, 8, 2**63, 2**64 - 1]),
    st.binary(min_size=7, max_size=7),
)


@given(st.lists(KEYS, max_size=60))
def test_every_key_is_found_where_it_was_put_in_order(keys: list[bytes]) -> None:
    index = Index()
    for position, key in enumerate(keys):
        index.add(key, position)
    for key in keys:
        assert list(index.candidates(key)) == [position for position, other in enumerate(keys) if other[:9] == key[:9]]


def test_thousands_of_keys() -> None:
    keys = [hashlib.blake2b(b"%d" % n, digest_size=16).digest() for n in range(50_000)]
    index = Index()
    for position, key in enumerate(keys):
        index.add(key, position)
    assert [list(index.candidates(key)) for key in keys] == [[position] for position in range(50_000)]
    assert list(index.candidates(hashlib.blake2b(b"none", digest_size=16).digest())) == []


def test_a_key_that_shares_its_mark_with_another_is_told_apart() -> None:
    entry = (
        b'{"actor":{},"ce":{"id":"request-1","recordedtime":"x","source":"/s","specversion":"1.0","time":"t",'
        b'"type":"y"},"data":{},"prev":"","seq":0,"v":1}'
    )
    key = take_apart(entry).key
    state = Sequence()
    state.accept([entry], [leaf_hash(entry)])
    assert state.find(key, [entry].__getitem__) == (0, take_apart(entry))
    assert state.find(key[:9] + b"another", [entry].__getitem__) is None
