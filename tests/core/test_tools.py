"""The builtin tools' table and the check of arguments against it."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core import tools
from folkmoot_core.errors import Invalid
from folkmoot_core.resources.agent import BuiltinTools


def test_the_table_has_what_a_manifest_can_allow() -> None:
    assert set(tools.BUILTIN) == set(BuiltinTools.model_fields)
    for spec in tools.builtin_tools(tools.BUILTIN):
        jsonschema.Draft202012Validator.check_schema(spec.input_schema)


def test_order_does_not_depend_on_the_manifest() -> None:
    assert tools.builtin_tools(["write", "bash", "bash"]) == tools.builtin_tools(("bash", "write"))
    with pytest.raises(Invalid, match="'shell'"):
        tools.builtin_tools(["shell"])


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("bash", {"command": "true"}, ""),
        ("bash", {}, "missing"),
        ("bash", {"command": ""}, "text of 1"),
        ("bash", {"command": "x", "cwd": "/"}, "not known"),
        ("read", {"path": "a", "offset": 1, "limit": 10}, ""),
        ("read", {"path": "a", "offset": True}, "integer"),
        ("read", {"path": "a", "offset": 0}, "integer"),
        ("edit", {"path": "a", "old": "x", "new": "", "all": True}, ""),
        ("edit", {"path": "a", "old": "x", "new": "", "all": 1}, "true or false"),
        ("write", {"path": "a" * 2000, "content": ""}, "text of"),
        ("rm", {}, "no tool"),
    ],
)
def test_arguments(name: str, arguments: dict[str, Any], words: str) -> None:
    said = tools.check_arguments(name, arguments)
    assert words in said if words else said == ""


@given(
    name=st.sampled_from(tools.BUILTIN),
    arguments=st.dictionaries(
        st.sampled_from(["command", "path", "content", "offset", "limit", "all", "old", "new", "pattern", "x"]),
        st.one_of(st.text(max_size=5), st.integers(-5, 3000), st.booleans(), st.none(), st.floats(), st.lists(st.integers())),
    ),
)
def test_the_check_agrees_with_json_schema(name: str, arguments: dict[str, Any]) -> None:
    [spec] = tools.builtin_tools([name])
    strict = jsonschema.Draft202012Validator(spec.input_schema)
    whole_floats = any(
        isinstance(value, float) for value in arguments.values()
    )  # JSON Schema takes 1.0 for an integer; we do not
    if not whole_floats:
        assert (tools.check_arguments(name, arguments) == "") == strict.is_valid(arguments)
