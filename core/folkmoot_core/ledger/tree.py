"""The Merkle tree of RFC 6962 with SHA-256: hashes, roots, inclusion and consistency proofs, made and verified.

Storage is passed in: proofs read the tree through a `Nodes` function and never see a file. Verifying raises `Invalid` and
nothing else, whatever it is given. §-numbers are RFC 6962's, those with "9162" RFC 9162's (which spells verification out).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from folkmoot_core.errors import Invalid

HASH_SIZE = 32
LEAF_PREFIX = b"\x00"  # §2.1: leaf and node hashes live in different domains, so no node passes as a leaf
NODE_PREFIX = b"\x01"
EMPTY_ROOT = hashlib.sha256(b"").digest()  # §2.1: MTH({}) = SHA-256()
MAX_PROOF = 64  # a tree of 2^64 leaves has no longer path

Nodes = Callable[[int, int], bytes]
"""`nodes(level, index)`: the hash of the perfect subtree over leaves [index · 2^level, (index + 1) · 2^level)."""

begin_leaf = hashlib.sha256(LEAF_PREFIX).copy
"""A hash that has seen the prefix: cheaper than a new one, and what it is to hash is not copied behind the prefix."""
begin_node = hashlib.sha256(NODE_PREFIX).copy


def leaf_hash(entry: bytes) -> bytes:
    """§2.1: MTH({d(0)}) = SHA-256(0x00 || d(0))."""
    leaf = begin_leaf()
    leaf.update(entry)
    return leaf.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """§2.1: SHA-256(0x01 || MTH(D[0:k]) || MTH(D[k:n]))."""
    node = begin_node()
    node.update(left + right)
    return node.digest()


def fold(subtrees: Iterable[bytes]) -> bytes:
    """§2.1's MTH over the roots of equally high perfect subtrees; the last may be any smaller tree.

    Splitting at the largest power of two below the count is the same as carrying like a binary counter: a complete pair is
    merged at once, and what is left over is merged from the right.
    """
    stack: list[bytes] = []
    for position, carried in enumerate(subtrees):
        merged = carried
        carry = position
        while carry & 1:
            merged = node_hash(stack.pop(), merged)
            carry >>= 1
        stack.append(merged)
    if not stack:
        return EMPTY_ROOT
    root = stack.pop()
    while stack:
        root = node_hash(stack.pop(), root)
    return root


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """§2.1: the tree head over these leaf hashes."""
    return fold(leaf_hashes)


def nodes_of(leaf_hashes: Sequence[bytes]) -> Nodes:
    """Read access to a tree whose leaf hashes are all at hand."""

    def nodes(level: int, index: int) -> bytes:
        return fold(leaf_hashes[index << level : (index + 1) << level])

    return nodes


def range_root(start: int, end: int, nodes: Nodes) -> bytes:
    """§2.1: MTH(D[start:end]) of a range that is not empty, `start` a multiple of the largest power of two below its length."""
    roots: list[bytes] = []
    while start < end:
        level = (end - start).bit_length() - 1
        roots.append(nodes(level, start >> level))
        start += 1 << level
    root = roots.pop()
    while roots:
        root = node_hash(roots.pop(), root)
    return root


def inclusion_proof(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """§2.1.1: PATH(m, D[n]), the leaf's sibling first. Raises `Invalid` when the tree has no such leaf."""
    if not 0 <= index < size:
        raise Invalid(f"leaf {index} is not in a tree of {size}")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:  # PATH(m, D[0:k]) : MTH(D[k:n])
            proof.append(range_root(middle, end, nodes))
            end = middle
        else:  # PATH(m - k, D[k:n]) : MTH(D[0:k])
            proof.append(range_root(start, middle, nodes))
            start = middle
    return proof[::-1]


def consistency_proof(old: int, new: int, nodes: Nodes) -> list[bytes]:
    """§2.1.2: PROOF(m, D[n]); empty when `old` is 0 or equals `new`. Raises `Invalid` when `old` is larger."""
    if not 0 <= old <= new:
        raise Invalid(f"a tree of {new} does not extend one of {old}")
    if old in (0, new):
        return []
    proof: list[bytes] = []
    start, end = 0, new
    whole = True  # SUBPROOF's b: whether D[start:end] is a prefix that the verifier knows as a whole
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:  # SUBPROOF(m, D[0:k], b) : MTH(D[k:n])
            proof.append(range_root(middle, end, nodes))
            end = middle
        else:  # SUBPROOF(m - k, D[k:n], false) : MTH(D[0:k])
            proof.append(range_root(start, middle, nodes))
            start = middle
            whole = False
    if not whole:
        proof.append(range_root(start, end, nodes))
    return proof[::-1]


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """9162 §2.1.3.2. Raises `Invalid` unless `leaf` is at `index` of the tree with this size and root."""
    if not 0 <= index < size:
        raise Invalid(f"leaf {index} is not in a tree of {size}")
    _check_hashes([leaf, root], proof)
    computed = leaf
    for sibling, left in zip(proof, _sides(index, size - 1, len(proof)), strict=True):
        computed = node_hash(sibling, computed) if left else node_hash(computed, sibling)
    if computed != root:
        raise Invalid(f"inclusion proof of leaf {index} in a tree of {size} does not lead to the root")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """9162 §2.1.4.2. Raises `Invalid` unless the tree of `old` is a prefix of the tree of `new`."""
    if not 0 <= old <= new:
        raise Invalid(f"a tree of {new} does not extend one of {old}")
    _check_hashes([old_root, new_root], proof)
    if old in (0, new):
        expected = new_root if old == new else EMPTY_ROOT
        if proof or old_root != expected:
            raise Invalid(f"the roots of {old} and {new} do not agree")
        return
    # step 1: the root of a power of two is itself the first hash of the path
    steps = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not steps:
        raise Invalid(f"consistency proof from {old} to {new} is empty")
    node, last = old - 1, new - 1
    while node & 1:  # step 3
        node, last = node >> 1, last >> 1
    first = second = steps[0]
    for step, left in zip(steps[1:], _sides(node, last, len(steps) - 1), strict=True):
        if left:
            first, second = node_hash(step, first), node_hash(step, second)
        else:
            second = node_hash(second, step)
    if first != old_root or second != new_root:
        raise Invalid(f"consistency proof from {old} to {new} does not lead to both roots")


def _sides(node: int, last: int, count: int) -> list[bool]:
    """For each of `count` steps up from `node`, in a row whose right end is `last`: whether the sibling is the left one.

    The loop that 9162 §2.1.3.2 step 4 and §2.1.4.2 step 5 share; raises `Invalid` unless it ends at the root.
    """
    sides: list[bool] = []
    for _ in range(count):
        if last == 0:
            raise Invalid("proof is too long for its tree")
        left = bool(node & 1) or node == last
        while left and not node & 1 and node:
            node, last = node >> 1, last >> 1
        sides.append(left)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise Invalid("proof is too short for its tree")
    return sides


def _split(count: int) -> int:
    """§2.1: the largest power of two smaller than `count` (> 1)."""
    return 1 << ((count - 1).bit_length() - 1)


def _check_hashes(hashes: Sequence[bytes], proof: Sequence[bytes]) -> None:
    if len(proof) > MAX_PROOF:
        raise Invalid(f"proof has {len(proof)} hashes; no tree needs more than {MAX_PROOF}")
    if any(len(h) != HASH_SIZE for h in (*hashes, *proof)):
        raise Invalid(f"a hash in the proof does not have {HASH_SIZE} bytes")
