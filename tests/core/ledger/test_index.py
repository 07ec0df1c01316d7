"""The index of keys: exact whatever the keys, also when 64 bits of them are equal."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.ledger.envelope import take_apart
from folkmoot_core.ledger.index import MARK, Index, MemoryItems, Store
from folkmoot_core.ledger.sequence import Sequence
from folkmoot_core.ledger.tree import leaf_hash

# Few marks: equal ones, and such as share a bucket, a word of the filter or a pattern alone.
KEYS = st.builds(
    lambda mark, rest: mark.to_bytes(8, "little") + rest,
    st.sampled_from([0, 1, 1 << 8, 1 << 24, 1 << 52, (1 << 52) + 1, 2**63, 2**64 - 1]),
    st.binary(min_size=8, max_size=8),
)


@given(st.lists(KEYS, max_size=60), st.integers(1, 60))
def test_every_key_is_found_where_it_was_put(keys: list[bytes], batch: int) -> None:
    index = Index()
    for first in range(0, len(keys), batch):
        index.extend(keys[first : first + batch])
    for key in keys:
        assert sorted(index.candidates(key)) == [position for position, other in enumerate(keys) if other[:8] == key[:8]]
    assert sorted(set(index.suspects(keys))) == list(range(len(keys)))


def test_generations_grow_without_losing_a_key_and_are_built_again_from_their_marks() -> None:
    """Through every growth by building again (1 Ki to 64 Ki entries) and into the generation after it."""
    keys = [hashlib.blake2b(b"%d" % n, digest_size=16).digest() for n in range(70_000)]
    marks = MemoryItems(MARK)
    index = Index(Store(marks))
    for first in range(0, len(keys), 777):
        index.extend(keys[first : first + 777])
    new = [hashlib.blake2b(b"new %d" % n, digest_size=16).digest() for n in range(2_000)]
    settled: list[int] = []
    again = Index(Store(marks, settle=lambda: settled.append(1)))
    assert settled
    for found in (index, again):
        assert [list(found.candidates(key)) for key in keys[::7]] == [[position] for position in range(0, len(keys), 7)]
        assert len(set(found.suspects(keys))) == len(keys)
        assert not any(list(found.candidates(key)) for key in new)
        assert len(set(found.suspects(new))) < len(new) / 10  # the filter spares nearly all of them the chains


def test_a_key_that_shares_its_mark_with_another_is_told_apart() -> None:
    entry = (
        b'{"actor":{},"ce":{"id":"request-1","recordedtime":"x","source":"/s","specversion":"1.0","time":"t",'
        b'"type":"y"},"data":{},"prev":"","seq":0,"v":1}'
    )
    key = take_apart(entry).key
    state = Sequence()
    state.accept([entry], [leaf_hash(entry)])
    assert state.find(key, [entry].__getitem__) == (0, take_apart(entry))
    assert state.find(key[:8] + b"another!", [entry].__getitem__) is None
