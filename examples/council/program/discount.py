"""Discounts on prices in whole cents."""


def discounted(cents: int, percent: int) -> int:
    """Price after a discount of `percent`, rounded to the nearest cent, half a cent up."""
    if not 0 <= percent <= 100:
        raise ValueError(f"a discount is 0 to 100 percent, not {percent}")
    return cents * (100 - percent) // 100
