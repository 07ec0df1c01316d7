"""Reads mappings of a scenario strictly and collects every problem, each naming its rule and field.

Used by `scenario` only. Knows types and bounds, not what the fields mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KINDS = {dict: "a mapping", list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}


def kind_of(value: Any) -> str:
    return "nothing" if value is None else _KINDS.get(type(value), type(value).__name__)


class Fields:
    """One mapping at one place (`where`, as the author of the scenario would say it)."""

    def __init__(self, where: str, value: Any, allowed: tuple[str, ...], problems: list[str]) -> None:
        self.where = where
        self.problems = problems
        self.values: Mapping[Any, Any] = {}
        if not isinstance(value, dict):
            problems.append(f"{where}: expected a mapping, found {kind_of(value)}")
            return
        self.values = value
        for key in value:
            if key not in allowed:
                self.problem(str(key), f"unknown field; known are {', '.join(allowed)}")

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def problem(self, name: str, text: str) -> None:
        self.problems.append(f"{self.where}.{name}: {text}")

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        if name not in self.values or isinstance(value, str):
            return value
        self.problem(name, f"expected a string, found {kind_of(value)}")
        return None

    def flag(self, name: str) -> bool | None:
        value = self.values.get(name)
        if name not in self.values or isinstance(value, bool):
            return value
        self.problem(name, f"expected true or false, found {kind_of(value)}")
        return None

    def number(self, name: str, most: float) -> float | None:
        """A number from 0 to `most`."""
        value = self.values.get(name)
        if name not in self.values:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            self.problem(name, f"expected a number from 0 to {most:g}, found {value!r}")
            return None
        return float(value)

    def integers(self, name: str, least: int) -> tuple[int, ...]:
        """An integer or a list of them, each at least `least`."""
        if name not in self.values:
            return ()
        value = self.values[name]
        items = value if isinstance(value, list) else [value]
        if not items or any(isinstance(item, bool) or not isinstance(item, int) or item < least for item in items):
            self.problem(name, f"expected an integer of at least {least} or a list of them, found {value!r}")
            return ()
        return tuple(items)

    def integer(self, name: str, least: int) -> int | None:
        if isinstance(self.values.get(name), list):
            self.problem(name, "expected one integer, found a list")
            return None
        return next(iter(self.integers(name, least)), None)

    def strings(self, name: str) -> tuple[str, ...]:
        """A string or a list of strings."""
        if name not in self.values:
            return ()
        value = self.values[name]
        items = value if isinstance(value, list) else [value]
        if not items or any(not isinstance(item, str) for item in items):
            self.problem(name, f"expected a string or a list of strings, found {kind_of(value)}")
            return ()
        return tuple(items)

    def items(self, name: str) -> list[Any]:
        value = self.values.get(name)
        if name not in self.values:
            return []
        if not isinstance(value, list):
            self.problem(name, f"expected a list, found {kind_of(value)}")
            return []
        return value
