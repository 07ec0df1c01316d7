"""Server-side apply as arithmetic over plain maps: what `fake_kube` does with an apply, and which fields a manager owns.

A rule-of-thumb schema: lists are keyed by the tables below, sets are sets, every other list is atomic. Pure.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final

from folkmoot_operator.kinds import LIST_KEYS

Path = tuple[Any, ...]

SETS: Final = ("finalizers",)


def owned_paths(intent: Any) -> set[Path]:
    """Every leaf that an apply of `intent` owns, without what identifies the object."""
    identity = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace"), ("metadata", "uid"),
                ("metadata", "resourceVersion")}  # fmt: skip
    return {path for path in _leaves(intent, (), "") if path not in identity}


def apply(live: Any, intent: Any, before: set[Path], others: set[Path]) -> Any:
    """`live` after an apply: the intent merged in; what the manager owned `before`, wants no more and no other owns, is gone."""
    result = _merge(live, intent, "")
    for path in sorted(before - owned_paths(intent) - others, key=len, reverse=True):
        _remove(result, path)
    return result


def changed_paths(before: Any, after: Any) -> set[Path]:
    """Leaves of `after` that differ from `before`, and leaves of `before` that are gone: what an update takes over."""
    old = {path: _value(before, path) for path in _leaves(before, (), "")}
    new = {path: _value(after, path) for path in _leaves(after, (), "")}
    return {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}


def _leaves(value: Any, at: Path, field: str) -> Iterator[Path]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, (*at, name), name)
    elif isinstance(value, list) and field in SETS:
        for item in value:
            yield (*at, ("=", item))
    elif isinstance(value, list) and _keyed(value, field):
        for item in value:
            here = (*at, _identity(item, field))
            yield here
            yield from _leaves(item, here, "")
    else:
        yield at


def _keyed(value: list[Any], field: str) -> bool:
    return field in LIST_KEYS and all(isinstance(item, dict) and any(k in item for k in LIST_KEYS[field]) for item in value)


def _identity(item: dict[str, Any], field: str) -> tuple[str, Any]:
    return ("#", tuple((key, item.get(key)) for key in LIST_KEYS[field]))


def _merge(live: Any, intent: Any, field: str) -> Any:
    if isinstance(intent, dict) and isinstance(live, dict):
        return {**live, **{name: _merge(live.get(name), item, name) for name, item in intent.items()}}
    if isinstance(intent, list) and isinstance(live, list):
        if field in SETS:
            return [*live, *[item for item in intent if item not in live]]
        if _keyed(intent, field) and _keyed(live, field):
            return _merge_items(live, intent, field)
    return copy.deepcopy(intent)


def _merge_items(live: list[Any], intent: list[Any], field: str) -> list[Any]:
    wanted = {_identity(item, field): item for item in intent}
    known = {_identity(item, field) for item in live}
    merged = [_merge(item, wanted.get(_identity(item, field), {}), "") for item in live]
    return merged + [copy.deepcopy(item) for identity, item in wanted.items() if identity not in known]


def _value(root: Any, path: Path) -> Any:
    value = root
    for step in path:
        value = _step(value, step)
        if value is None:
            return None
    return value


def _step(value: Any, step: Any) -> Any:
    if isinstance(step, str):
        return value.get(step) if isinstance(value, dict) else None
    kind, ident = step
    if not isinstance(value, list):
        return None
    if kind == "=":
        return ident if ident in value else None
    return next((item for item in value if isinstance(item, dict) and all(item.get(k) == v for k, v in ident)), None)


def _remove(root: Any, path: Path) -> None:
    parent = _value(root, path[:-1])
    last = path[-1]
    if isinstance(last, str):
        if isinstance(parent, dict) and not _is_list_key(path):
            parent.pop(last, None)
    elif isinstance(parent, list):
        found = _step(parent, last)
        # An item goes when its owner drops it, unless other managers put something beside its keys.
        if found is not None and (last[0] == "=" or set(found) <= {k for k, _ in last[1]}):
            parent.remove(found)
    if isinstance(parent, dict | list) and not parent and len(path) > 1 and isinstance(path[-2], str):
        _remove_empty(root, path[:-1])


def _is_list_key(path: Path) -> bool:
    """The keys by which an item of a list is found go with the item, not before it."""
    item = path[-2] if len(path) > 1 else None
    return isinstance(item, tuple) and item[0] == "#" and path[-1] in {key for key, _ in item[1]}


def _remove_empty(root: Any, path: Path) -> None:
    parent = _value(root, path[:-1])
    if isinstance(parent, dict) and isinstance(path[-1], str) and len(path) > 1:
        parent.pop(path[-1], None)
