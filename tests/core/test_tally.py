"""Votes: bound to a digest, weighted exactly, dissent kept."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.resources.council import Quorum
from folkmoot_core.tally import Vote, count

D = "sha256:" + "a" * 64
CHOICES = st.sampled_from(["For", "Against", "Abstain"])


def votes(**choices):
    return {m: Vote(vote=c, digest=D, reason="") for m, c in choices.items()}


@pytest.mark.parametrize(
    ("choices", "threshold", "expected"),
    [
        ({"a": "For", "b": "For", "c": "Against"}, "0.5", "Accepted"),
        ({"a": "For", "b": "Against"}, "0.5", "Tie"),
        ({"a": "For", "b": "Against", "c": "Against"}, "0.5", "Rejected"),
        ({"a": "For", "b": "Abstain", "c": "Abstain"}, "0.5", "NoQuorum"),
        ({"a": "For", "b": "For", "c": "For"}, "1", "Tie"),
        ({}, "0.5", "NoQuorum"),
    ],
)
def test_decisions(choices, threshold, expected):
    assert count(votes(**choices), dict.fromkeys("abc", 1), D, Quorum(minimum=2, threshold=threshold)).decision == expected


def test_a_vote_on_another_digest_is_not_cast():
    given_votes = {**votes(a="For", b="For"), "c": Vote(vote="Against", digest="sha256:" + "b" * 64, reason="")}
    counted = count(given_votes, dict.fromkeys("abc", 1), D, Quorum(minimum=2))
    assert (counted.decision, counted.votes_against) == ("Accepted", 0)


def test_dissent_is_kept_on_both_sides():
    rejected = count(votes(a="For", b="Against", c="Against"), dict.fromkeys("abc", 1), D, Quorum())
    assert rejected.dissent == ("a",)


@given(
    st.dictionaries(st.sampled_from("abcdef"), CHOICES, min_size=1), st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 5))
)
def test_accepted_means_strictly_more_than_the_share_of_cast_weight(choices, weights):
    counted = count(votes(**choices), weights, D, Quorum(minimum=1, threshold="0.5"))
    in_favour = sum(weights.get(m, 0) for m, c in choices.items() if c == "For")
    against = sum(weights.get(m, 0) for m, c in choices.items() if c == "Against")
    cast = in_favour + against
    assert (counted.decision == "Accepted") == (cast > 0 and Fraction(in_favour, cast) > Fraction(1, 2))
    assert set(counted.dissent) <= {m for m, w in weights.items() if w > 0}
