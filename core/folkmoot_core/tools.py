"""The builtin tools as the model sees them: names, descriptions, argument schemas. One table for agent and sandbox.

The agent offers those its manifest allows; the sandbox runs them (folkmoot_runtime.sandbox) and refuses what is not allowed,
so hiding a tool from the model is never the guard. Paths are relative to the workspace root.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from folkmoot_core.calls import ToolSpec
from folkmoot_core.errors import Invalid

MAX_COMMAND: Final = 32 * 1024  # characters of one shell command
MAX_PATH: Final = 1024
MAX_CONTENT: Final = 1024 * 1024  # characters of a file written in one call
MAX_READ_LINES: Final = 2000  # lines of `read` without a limit


def _object(required: tuple[str, ...], **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _text(description: str, maximum: int, minimum: int = 1) -> dict[str, Any]:
    return {"type": "string", "description": description, "minLength": minimum, "maxLength": maximum}


_PATH = _text("Path relative to the workspace.", MAX_PATH)

_SPECS: Final[dict[str, ToolSpec]] = {
    spec.name: spec
    for spec in (
        ToolSpec(
            name="bash",
            description="Run a shell command in the workspace and return its output and exit code. There is no network.",
            input_schema=_object(("command",), command=_text("The command, run by `bash -c`.", MAX_COMMAND)),
        ),
        ToolSpec(
            name="read",
            description=f"Read a text file, with line numbers. Without a limit, the first {MAX_READ_LINES} lines.",
            input_schema=_object(
                ("path",),
                path=_PATH,
                offset={"type": "integer", "minimum": 1, "description": "First line, counted from 1."},
                limit={"type": "integer", "minimum": 1, "maximum": MAX_READ_LINES, "description": "Lines at most."},
            ),
        ),
        ToolSpec(
            name="write",
            description="Create a file or replace all of it. Missing directories are made.",
            input_schema=_object(("path", "content"), path=_PATH, content=_text("All of the file's text.", MAX_CONTENT, 0)),
        ),
        ToolSpec(
            name="edit",
            description="Replace text in a file. `old` must occur exactly once, unless `all` is true.",
            input_schema=_object(
                ("path", "old", "new"),
                path=_PATH,
                old=_text("Text to replace, exactly as it stands in the file.", MAX_CONTENT),
                new=_text("Text to put in its place.", MAX_CONTENT, 0),
                all={"type": "boolean", "description": "Replace every occurrence."},
            ),
        ),
        ToolSpec(
            name="glob",
            description="List files whose path matches a pattern such as `src/**/*.py`, sorted.",
            input_schema=_object(("pattern",), pattern=_text("Glob pattern relative to the workspace.", MAX_PATH)),
        ),
        ToolSpec(
            name="grep",
            description="Search text files by regular expression; answers `path:line:text`.",
            input_schema=_object(
                ("pattern",),
                pattern=_text("Regular expression.", MAX_PATH),
                path=_text("File or directory to search in.", MAX_PATH),
            ),
        ),
    )
}
BUILTIN: Final = tuple(sorted(_SPECS))


def builtin_tools(names: Iterable[str]) -> tuple[ToolSpec, ...]:
    """Specs of the named tools, sorted by name: the order is part of a call's key, so it never depends on a manifest's."""
    wanted = sorted(set(names))
    if unknown := [name for name in wanted if name not in _SPECS]:
        raise Invalid(f"builtin tool {unknown[0]!r} does not exist; known are {', '.join(BUILTIN)}")
    return tuple(_SPECS[name] for name in wanted)


def check_arguments(name: str, arguments: dict[str, Any]) -> str:
    """Why these arguments do not fit the tool's schema, as one sentence for the model; empty when they do.

    It understands what the table above uses of JSON Schema, no more: type, required, additionalProperties, the bounds.
    """
    if name not in _SPECS:
        return f"There is no tool {name!r}. Known are: {', '.join(BUILTIN)}."
    schema = _SPECS[name].input_schema
    properties: dict[str, dict[str, Any]] = schema["properties"]
    if missing := [key for key in schema["required"] if key not in arguments]:
        return f"Tool {name}: argument {missing[0]!r} is missing."
    if unknown := sorted(set(arguments) - set(properties)):
        return f"Tool {name}: argument {unknown[0][:64]!r} is not known; expected {', '.join(sorted(properties))}."
    for key, value in sorted(arguments.items()):
        if wrong := _misfit(value, properties[key]):
            return f"Tool {name}: argument {key!r} {wrong}."
    return ""


def _misfit(value: Any, schema: dict[str, Any]) -> str:
    if schema["type"] == "boolean":
        return "" if isinstance(value, bool) else "is not true or false"
    if schema["type"] == "integer":
        low, high = schema.get("minimum", 0), schema.get("maximum", 2**31)
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return "" if fits else f"is not an integer from {low} to {high}"
    low, high = schema.get("minLength", 0), schema["maxLength"]
    fits = isinstance(value, str) and low <= len(value) <= high
    return "" if fits else f"is not text of {low} to {high} characters"
