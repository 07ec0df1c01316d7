"""The Merkle tree by exhaustion, by corruption and against vectors from another implementation."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import tree
from folkmoot_core.ledger.tiles import Rows

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/tlog/roots.json").read_text())
SIZES = range(101)
LEAVES = [tree.leaf_hash(b"%d" % i) for i in range(max(SIZES))]
NODES = tree.nodes_of(LEAVES)


def entry(i: int) -> bytes:
    return b'{"i":%d}' % i + b"x" * (i % 50)


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1, read aloud."""
    if not leaves:
        return tree.EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return tree.node_hash(by_definition(leaves[:k]), by_definition(leaves[k:]))


ROOTS = [by_definition(LEAVES[:n]) for n in SIZES]


def flips(proof: list[bytes]) -> list[list[bytes]]:
    """The proof with each of its bytes changed in turn."""
    changed = []
    for position, step in enumerate(proof):
        for byte in range(len(step)):
            damaged = step[:byte] + bytes([step[byte] ^ 1]) + step[byte + 1 :]
            changed.append([*proof[:position], damaged, *proof[position + 1 :]])
    return changed


def test_roots_follow_the_definition() -> None:
    assert [tree.root_of(LEAVES[:n]) for n in SIZES] == ROOTS


def test_every_leaf_of_every_size_has_a_proof_that_verifies_for_it_alone() -> None:
    for size in SIZES:
        for index in range(size):
            proof = tree.inclusion_proof(index, size, NODES)
            tree.verify_inclusion(index, size, LEAVES[index], proof, ROOTS[size])
            for other in {index - 1, index + 1, size - 1 - index} - {index, -1, size}:
                with pytest.raises(Invalid):
                    tree.verify_inclusion(other, size, LEAVES[index], proof, ROOTS[size])


def test_every_prefix_of_every_size_is_consistent_and_no_other_is() -> None:
    for new in SIZES:
        for old in range(new + 1):
            proof = tree.consistency_proof(old, new, NODES)
            tree.verify_consistency(old, new, ROOTS[old], ROOTS[new], proof)
            with pytest.raises(Invalid):
                tree.verify_consistency(old, new, ROOTS[(old + 1) % 101], ROOTS[new], proof)


def accepted(verify: Callable[[list[bytes]], None], proofs: Iterable[list[bytes]]) -> int:
    """How many of these proofs verify; `pytest.raises` would take longer than the proofs."""
    count = 0
    for proof in proofs:
        with contextlib.suppress(Invalid):
            verify(proof)
            count += 1
    return count


@pytest.mark.parametrize("size", SIZES[1:])
def test_a_changed_byte_or_length_of_an_inclusion_proof_is_refused(size: int) -> None:
    for index in range(size):
        proof = tree.inclusion_proof(index, size, NODES)
        wrong = [*flips(proof), [*proof, LEAVES[0]], [LEAVES[0], *proof], *([proof[:-1], proof[1:]] if proof else [])]
        verify = partial(tree.verify_inclusion, index, size, LEAVES[index], root=ROOTS[size])
        assert accepted(verify, [proof, *wrong]) == 1


@pytest.mark.parametrize("new", SIZES[2:])
def test_a_changed_byte_or_length_of_a_consistency_proof_is_refused(new: int) -> None:
    for old in range(1, new):
        proof = tree.consistency_proof(old, new, NODES)
        wrong = [*flips(proof), [*proof, LEAVES[0]], [LEAVES[0], *proof], proof[:-1], proof[1:]]
        verify = partial(tree.verify_consistency, old, new, ROOTS[old], ROOTS[new])
        assert accepted(verify, [proof, *wrong]) == 1


def test_no_proof_is_made_for_what_the_tree_does_not_have() -> None:
    for index, size in ((0, 0), (3, 3), (-1, 3)):
        with pytest.raises(Invalid):
            tree.inclusion_proof(index, size, NODES)
    for old, new in ((4, 3), (-1, 3)):
        with pytest.raises(Invalid):
            tree.consistency_proof(old, new, NODES)


def test_a_proof_of_absurd_or_no_length_is_refused() -> None:
    with pytest.raises(Invalid, match="no tree needs more"):
        tree.verify_inclusion(0, 2**70, LEAVES[0], [LEAVES[1]] * 65, ROOTS[1])
    with pytest.raises(Invalid, match="empty"):
        tree.verify_consistency(3, 5, ROOTS[3], ROOTS[5], [])
    with pytest.raises(Invalid, match="32 bytes"):
        tree.verify_inclusion(0, 2, LEAVES[0], [b"short"], ROOTS[2])


def test_an_empty_prefix_has_the_empty_root_and_no_other() -> None:
    tree.verify_consistency(0, 5, tree.EMPTY_ROOT, ROOTS[5], [])
    with pytest.raises(Invalid):
        tree.verify_consistency(0, 5, ROOTS[1], ROOTS[5], [])
    with pytest.raises(Invalid):
        tree.verify_consistency(5, 5, ROOTS[5], ROOTS[5], [ROOTS[1]])


def test_roots_of_a_foreign_implementation() -> None:
    sizes = {int(size): root for size, root in VECTORS["roots"].items()}
    rows = Rows()
    rows.extend([tree.leaf_hash(entry(i)) for i in range(max(sizes))])
    assert {size: rows.root(size).hex() for size in sizes} == sizes


def test_proofs_in_a_large_tree_are_read_from_its_rows() -> None:
    rows = Rows()
    rows.extend([tree.leaf_hash(entry(i)) for i in range(70_000)])
    for index in (0, 255, 256, 65_535, 65_536, 69_999):
        proof = tree.inclusion_proof(index, 70_000, rows.node)
        tree.verify_inclusion(index, 70_000, tree.leaf_hash(entry(index)), proof, rows.root())
    for old in (1, 256, 257, 65_536, 69_999):
        proof = tree.consistency_proof(old, 70_000, rows.node)
        tree.verify_consistency(old, 70_000, rows.root(old), rows.root(), proof)


@given(
    st.integers(-2, 2**65),
    st.integers(-2, 2**65),
    st.binary(max_size=33),
    st.lists(st.binary(max_size=33), max_size=70),
    st.binary(max_size=33),
)
def test_verifiers_raise_our_error_alone(first: int, second: int, a: bytes, proof: list[bytes], b: bytes) -> None:
    with pytest.raises(Invalid):
        tree.verify_inclusion(first, second, a, proof, b)
    with pytest.raises(Invalid):
        tree.verify_consistency(first, second, a, b, [*proof, b""])
