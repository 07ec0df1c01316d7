"""Does a rule's `when` hold for a request? Pure and stateless: a replayed request matches the same rule.

Called by `decide`, which adds the one stateful test, `nth`.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from simulator.model import SchemaRequest, Seen
from simulator.scenario import When


def match(when: When, seen: Seen) -> Mapping[str, str] | None:
    """The named groups captured from the request, or None when something asked for does not hold."""
    if not _facts_hold(when, seen):
        return None
    texts = {
        "system": seen.system,
        "last_user": seen.last_user,
        "any_text": seen.any_text,
        "last_tool_result": seen.last_tool_result,
    }
    captured: dict[str, str] = {}
    for name, test in when.texts:
        if name == "last_tool_result" and not seen.has_tool_result:
            return None
        found = test.search(texts[name])
        if found is None:
            return None
        captured.update(found)
    return captured


def _facts_hold(when: When, seen: Seen) -> bool:
    return (
        (not when.wires or any(fnmatchcase(seen.wire, wire) for wire in when.wires))
        and (not when.models or any(fnmatchcase(seen.model, model) for model in when.models))
        and all(tool in seen.tools for tool in when.tools_include)
        and when.has_tool_result in (None, seen.has_tool_result)
        and (not when.turns or seen.turn in when.turns)
        and _schema_holds(when.schema, seen.schema)
    )


def _schema_holds(asked: tuple[str, ...] | bool | None, given: SchemaRequest | None) -> bool:
    if asked is None:
        return True
    if isinstance(asked, bool):
        return asked == (given is not None)
    if given is None:
        return False
    names = [given.name, given.schema.get("title"), *given.schema.get("properties", {})]
    return all(name in names for name in asked)
