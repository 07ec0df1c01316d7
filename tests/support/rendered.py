"""Looking things up among the objects that a chart renders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Object = dict[str, Any]
Render = Callable[..., list[Object]]
OPERATOR = "folkmoot-operator"


def only(objects: list[Object], kind: str, name: str) -> Object:
    found = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    assert len(found) == 1, (kind, name)
    return found[0]


def pod_of(objects: list[Object]) -> Object:
    found: Object = only(objects, "Deployment", OPERATOR)["spec"]["template"]
    return found
