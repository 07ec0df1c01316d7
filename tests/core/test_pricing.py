"""Cost is exact, monotone and additive; unknown stays unknown."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core import pricing
from folkmoot_core.calls import Usage
from folkmoot_core.errors import Invalid
from folkmoot_core.resources.tenant import ModelSpec, Price, ProviderSpec

PRICE = Price(input="3.00", output="15.00", cached_input="0.30")
decimals = st.from_regex(r"\A[0-9]{1,12}(\.[0-9]{1,9})?\Z")
prices = st.builds(Price, input=decimals, output=decimals, cached_input=st.none() | decimals)
tokens = st.integers(min_value=0, max_value=2**53 - 1)
usages = st.builds(Usage, input_tokens=tokens, output_tokens=tokens, cached_input_tokens=tokens)


def test_cost_of_a_plain_call() -> None:
    usage = Usage(input_tokens=41_200, output_tokens=5_100, cached_input_tokens=20_000)
    assert pricing.cost(usage, PRICE) == "0.1461"  # 21,200·3 + 20,000·0.30 + 5,100·15 = 63,600 + 6,000 + 76,500 millionths


def test_cached_input_costs_as_input_when_no_price_is_declared_for_it() -> None:
    price = Price(input="2", output="0")
    assert pricing.cost(Usage(input_tokens=1_000_000, cached_input_tokens=500_000), price) == "2"


def test_nothing_used_costs_nothing() -> None:
    assert pricing.cost(Usage(), PRICE) == "0"


@given(usages, prices)
def test_cost_is_exactly_the_rational_number(usage: Usage, price: Price) -> None:
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    per_million = [
        Fraction(p) for p in (price.input, price.input if price.cached_input is None else price.cached_input, price.output)
    ]
    tokens = (usage.input_tokens - cached, cached, usage.output_tokens)
    expected = sum(count * rate for count, rate in zip(tokens, per_million, strict=True)) / 1_000_000
    assert Fraction(pricing.cost(usage, price)) == expected


@given(usages, prices)
def test_cost_is_one_plain_text_per_number(usage: Usage, price: Price) -> None:
    text = pricing.cost(usage, price)
    assert set(text) <= set("0123456789.")
    assert not ("." in text and text.endswith("0"))


@given(st.lists(st.builds(pricing.cost, usages, prices), max_size=6), st.randoms())
def test_a_sum_does_not_depend_on_order(costs: list[str], random: object) -> None:
    shuffled = list(costs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert pricing.total(costs) == pricing.total(shuffled)


def test_a_sum_with_an_unpriced_part_is_unknown() -> None:
    assert pricing.total(["0.1", None, "0.2"]) is None
    assert pricing.total(["0.1", "0.2"]) == "0.3"
    assert pricing.total([]) == "0"


@pytest.mark.parametrize("wrong", ["", "1e9", "-1", "NaN", "Infinity", "1,5", "1" * 41])
def test_what_is_no_decimal_text_is_refused(wrong: str) -> None:
    with pytest.raises(Invalid, match="expected decimal text"):
        pricing.total([wrong])


def test_price_belongs_to_the_model() -> None:
    provider = ProviderSpec(name="claude", type="Anthropic", models=(ModelSpec(name="a", price=PRICE), ModelSpec(name="b")))
    assert pricing.price_of(provider, "a") == PRICE
    assert pricing.price_of(provider, "b") is None
    assert pricing.price_of(provider, "c") is None
