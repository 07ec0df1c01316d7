"""Identity bytes: the vectors of an independent script, and what is refused."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core import identity
from folkmoot_core.errors import Invalid
from folkmoot_core.identity import GrantsV1

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "identity.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_vectors_of_the_independent_script(vector):
    grants = GrantsV1.model_validate(vector["grants"])
    seed = identity.seed(vector["name"], vector["scope"], vector["cause"])
    assert seed == vector["seed"]
    assert grants.digest() == vector["grants_digest"]
    assert identity.commitment(seed, vector["parent"], grants.digest()) == vector["commitment"]


def test_seed_is_the_same_for_composed_and_decomposed_names():
    decomposed = unicodedata.normalize("NFD", "zoë")
    assert identity.seed(decomposed, "a/b/c", "I am.") == identity.seed("zoë", "a/b/c", "I am.")


@pytest.mark.parametrize("cause", ["", "x" * 4097, "tab\there", "carriage\r\nreturn", unicodedata.normalize("NFD", "é")])
def test_causes_that_would_not_survive_storage_are_refused(cause):
    with pytest.raises(Invalid):
        identity.seed("n", "s", cause)


@pytest.mark.parametrize(("name", "scope"), [("", "s"), ("n", ""), ("a\nb", "s"), ("n", "a\nb")])
def test_a_field_cannot_forge_the_separator(name, scope):
    with pytest.raises(Invalid):
        identity.seed(name, scope, "I am.")


@pytest.mark.parametrize("bad", ["", "0" * 63, "G" * 64, "A" * 64])
def test_commitment_takes_lowercase_hex_alone(bad):
    good = "0" * 64
    for arguments in ((bad, good, good), (good, bad, good), (good, good, bad)):
        with pytest.raises(Invalid):
            identity.commitment(*arguments)


@given(st.lists(st.text("abc/*", min_size=1), min_size=1))
def test_grants_are_sets(models):
    once = GrantsV1(models=tuple(models)).digest()
    assert once == GrantsV1(models=tuple(reversed(models + models))).digest()


def test_an_unset_field_moves_no_commitment_but_an_empty_one_does():
    assert GrantsV1().digest() != GrantsV1(tools=()).digest()


def test_a_child_that_exceeds_its_parent_is_refused_with_the_grant_named():
    parent = GrantsV1(models=("claude/*", "openai/gpt-6-sol"), regions=("eu",))
    identity.check_narrower(GrantsV1(models=("claude/claude-sonnet-5-5",)), parent, "Agent loom")
    with pytest.raises(Invalid, match="openai/gpt-5") as refused:
        identity.check_narrower(GrantsV1(models=("openai/gpt-5",)), parent, "Agent loom")
    assert refused.value.reason == "GrantExceedsParent"
