"""What the four wires share: careful reading of untrusted JSON, and the pairing of tool calls with their results.

Every complaint is a `BadRequest`, which becomes the vendor's own 400.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from simulator.model import BadRequest, Message, RequestSha256, SchemaRequest, Seen, ToolCall, WireName

CREATED = 1_767_225_600
"""2026-01-01 in every answer: a clock would make two processes answer differently."""

NO_STREAM = "streaming is not simulated: ask without it"


def text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{where}: expected a string")
    return value


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{where}: expected an object")
    return value


def items(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise BadRequest(f"{where}: expected an array")
    return value


def optional(value: Any, where: str) -> Mapping[str, Any]:
    """An object that may be absent or null."""
    return {} if value is None else mapping(value, where)


def optional_items(value: Any, where: str) -> Sequence[Any]:
    return () if value is None else items(value, where)


def arguments_of(value: Any, where: str) -> Mapping[str, Any]:
    """Tool arguments sent back as a JSON string."""
    try:
        return mapping(json.loads(text(value, where)), where)
    except ValueError as error:
        raise BadRequest(f"{where}: not a JSON object in a string") from error


def schema_request(name: Any, schema: Any, where: str) -> SchemaRequest:
    checked = optional(schema, where)
    mapping(checked.get("properties", {}), f"{where}.properties")
    return SchemaRequest(name if isinstance(name, str) else "", checked)


def seen(wire: WireName, model: Any, messages: list[Message], tools: Sequence[Any], schema: SchemaRequest | None) -> Seen:
    """The request in neutral words, once its turns make sense. `tools` are the declarations as sent."""
    if not any(message.role != "system" for message in messages):
        raise BadRequest("at least one message is required")
    check_tool_results(messages)
    return Seen(
        wire=wire,
        model=text(model, "model"),
        messages=tuple(messages),
        tools=tuple(str(tool.get("name") or tool.get("type", "")) for tool in tools if isinstance(tool, dict)),
        schema=schema,
        request_sha256=RequestSha256(""),
        tools_length=len(json.dumps(list(tools))) * bool(tools) + len(json.dumps(schema.schema) if schema else ""),
    )


def check_tool_results(messages: Sequence[Message]) -> None:
    """Each call is answered exactly once, before anyone else speaks, as all vendors demand."""
    pending: list[str] = []
    before = "user"
    for message in messages:
        if message.role == "tool":
            if message.answers not in pending:
                raise BadRequest(f"tool result for '{message.answers}', which no preceding tool call asked for")
            pending.remove(message.answers)
        elif pending and (message.role == "user" or (message.role == "assistant" and before != "assistant")):
            raise BadRequest(f"tool call '{pending[0]}' has no result before the next message")
        pending += [call.id for call in message.tool_calls]
        before = message.role
    if pending:
        raise BadRequest(f"tool call '{pending[0]}' has no result")


def half_of_json(call: ToolCall) -> str:
    """Arguments that break off: never valid JSON, since an object's first half lacks its end."""
    whole = json_text(dict(call.arguments))
    return whole[: len(whole) // 2]


def arguments_text(call: ToolCall, truncated: bool) -> str:
    return half_of_json(call) if truncated else json_text(dict(call.arguments))


def json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
