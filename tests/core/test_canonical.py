"""Canonical JSON against an independent implementation, and what has no canonical form."""

from __future__ import annotations

import enum

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.canonical import MAX_INTEGER, canonical_json, commit, digest
from folkmoot_core.errors import Invalid

KEYS = st.text(st.characters(max_codepoint=126, min_codepoint=32), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | st.text(st.characters(exclude_categories=("Cs",))),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(KEYS, children, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_equals_rfc_8785(value):
    assert canonical_json(value) == rfc8785.dumps(value)


def _nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [1.5, {"é": 1}, {1: 2}, 2**53, "\ud800", b"bytes", _nested(70)], ids=str)
def test_refuses_what_has_no_canonical_form(value):
    with pytest.raises(Invalid):
        canonical_json({"x": value})


class Word(enum.StrEnum):
    YES = "yes"


class Number(enum.IntEnum):
    ONE = 1


def test_subclasses_of_plain_types_are_plain():
    value = {"word": Word.YES, "number": Number.ONE, "none": None, "list": [True, "é"], "map": {Word.YES: 1}}
    assert canonical_json(value) == rfc8785.dumps(value)


def test_a_refusal_says_where_and_prints_no_number():
    with pytest.raises(Invalid, match=r"\$\.a\[1\]\.b: an integer is beyond") as refused:
        canonical_json({"a": [1, {"b": 10**5000}]})
    assert len(refused.value.message) < 100


def test_a_commitment_needs_a_whole_salt_and_hides_equal_payloads():
    assert commit(b"a" * 32, b"x") != commit(b"b" * 32, b"x")
    with pytest.raises(Invalid):
        commit(b"short", b"x")


def test_digest_names_its_algorithm():
    assert digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
