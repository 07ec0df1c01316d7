"""What a model call costs: exact decimal arithmetic over the price that the tenant declared.

Called by the broker after each answer. No price is invented: a model without one has no cost, and a sum with an unpriced
part is unknown rather than too low.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Context, Decimal, Inexact, InvalidOperation

from folkmoot_core.calls import Usage
from folkmoot_core.errors import Invalid
from folkmoot_core.resources.tenant import Price, ProviderSpec

PER_TOKENS = Decimal(1_000_000)  # prices are per million tokens
# Prices have at most 21 digits, token counts 16, costs 80: no product or sum needs more, so a rounding would be a bug.
_EXACT = Context(prec=120, traps=[Inexact, InvalidOperation])
_COST = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?")


def price_of(provider: ProviderSpec, model: str) -> Price | None:
    """The declared price of one model of a provider, or None."""
    return next((spec.price for spec in provider.models if spec.name == model), None)


def cost(usage: Usage, price: Price) -> str:
    """Decimal text of what `usage` costs, in the currency of `price`. Cached input is part of the input, never more than it."""
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    parts = (
        (usage.input_tokens - cached, price.input),
        (cached, price.cached_input if price.cached_input is not None else price.input),
        (usage.output_tokens, price.output),
    )
    total = Decimal(0)
    for tokens, per_million in parts:
        total = _EXACT.add(total, _EXACT.multiply(Decimal(tokens), Decimal(per_million)))
    return text(_EXACT.divide(total, PER_TOKENS))


def total(costs: Iterable[str | None]) -> str | None:
    """Sum of costs; None as soon as one of them is unknown. Raises `Invalid` for what is no decimal text."""
    result = Decimal(0)
    for item in costs:
        if item is None:
            return None
        if not _COST.fullmatch(item):
            raise Invalid(f"cost {item[:32]!r}: expected decimal text such as 0.0125")
        result = _EXACT.add(result, Decimal(item))
    return text(result)


def text(value: Decimal) -> str:
    """Plain notation without exponent or trailing zeros: one text for one number, because the text is hashed."""
    return format(_EXACT.normalize(value), "f") if value else "0"
