"""Rules that hold between fields: one sentence, told by the API server (CEL in the CRD) and by `folkmoot dev` (Python).

A rule is not a pydantic validator: models stay constructible in parts, and a manifest from outside is checked as a whole by
`broken`, which folkmoot_core.plan.views calls and which finds every fault at once, each with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class Rule:
    """`cel` is for the CRD ('' where the schema says it already); `holds` is for Python (None for rules about the old
    object, which only the API server knows). `path` is the field, below the model, that the sentence is about."""

    cel: str
    message: str
    holds: Callable[[Any], bool] | None = None
    path: str = ""

    def schema(self) -> dict[str, str]:
        """The entry of x-kubernetes-validations."""
        return {"rule": self.cel, "message": self.message, **({"fieldPath": self.path} if self.path else {})}


def immutable(field: str, why: str) -> Rule:
    """The field keeps the value it was created with."""
    optional = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    return Rule(optional, f"{field} is immutable: {why}", path=f".{field}")


def plain_cause() -> Rule:
    """No control characters in a cause. Python's own check (identity.check_cause) has the characters in its sentence."""
    cel = r"!self.cause.matches(r'[\x00-\x09\x0b-\x1f\x7f-\x9f]')"
    return Rule(
        cel, "cause has control characters; only LF line ends are allowed, no tabs: its hash must survive storage", path=".cause"
    )


def unique(field: str, key: Callable[[Any], Any], message: str, cel: str = "") -> Rule:
    """No two items of a list are the same by `key`. Without `cel` the list's type (map or set) tells the API server."""

    def holds(model: Any) -> bool:
        keys = [key(item) for item in getattr(model, field)]
        return len(keys) == len(set(keys))

    return Rule(cel, message, holds)


def broken(model: BaseModel, path: str = "spec") -> Iterator[tuple[str, str]]:
    """(field, sentence) for every rule that does not hold in a model and in everything below it."""
    for rule in getattr(type(model), "rules", ()):
        if rule.holds is not None and not rule.holds(model):
            yield f"{path}{rule.path}", rule.message
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        where = f"{path}.{info.alias or name}"
        if isinstance(value, BaseModel):
            yield from broken(value, where)
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from broken(item, f"{where}[{index}]")
