"""Templating for scenario replies: `${name}` becomes what the rule captured from the request; `$${` is a literal `${`.

Names only - no expressions, no nesting, values are never expanded again - so that text from a request cannot
reach another value. Used by `scenario` (to refuse unknown names at load) and `decide`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

BUILTINS = ("last_tool_result", "last_user", "model", "turn", "wire")
"""Names every rule may use without capturing them."""

_PLACEHOLDER = re.compile(r"\$\$\{|\$\{([^}]*)\}")


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replaces each placeholder once. Unknown names were refused when the scenario was loaded."""
    return _PLACEHOLDER.sub(lambda found: "${" if found[1] is None else values[found[1]], text)


def expand_value(value: Any, values: Mapping[str, str]) -> Any:
    """Expands every string of a JSON value; keys stay as they are."""
    if isinstance(value, str):
        return expand(value, values)
    if isinstance(value, Mapping):
        return {key: expand_value(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [expand_value(item, values) for item in value]
    return value


def names(value: Any) -> Iterator[str]:
    """Every placeholder name in a JSON value."""
    if isinstance(value, str):
        yield from (found[1] for found in _PLACEHOLDER.finditer(value) if found[1] is not None)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from names(item)
    elif isinstance(value, list):
        for item in value:
            yield from names(item)
