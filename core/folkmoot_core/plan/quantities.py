"""Arithmetic on Kubernetes quantities: what a ResourceQuota must hold is the tenant's share plus Folkmoot's own pods."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

from folkmoot_core.errors import Invalid

_SUFFIX = {
    "": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip


def value(quantity: str) -> Decimal:
    """The number behind a quantity such as 500m, 2 or 16Gi."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?", quantity)
    if match is None:
        raise Invalid(f"quantity {quantity!r}: expected a number with one of m, k, M, G, T, Ki, Mi, Gi, Ti or nothing behind it")
    return Decimal(match.group(1)) * _SUFFIX[match.group(2) or ""]


def cpu(quantities: Iterable[str]) -> str:
    """Sum in the form the API server writes: `2` or `2500m`."""
    milli = int(sum((value(q) for q in quantities), Decimal(0)) * 1000)
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def memory(quantities: Iterable[str]) -> str:
    """Sum in the largest binary unit that divides it."""
    total = int(sum((value(q) for q in quantities), Decimal(0)))
    for suffix, unit in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if total and total % unit == 0:
            return f"{total // unit}{suffix}"
    return str(total)
