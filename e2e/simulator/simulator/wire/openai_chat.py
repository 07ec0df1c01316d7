"""OpenAI Chat Completions: POST [/v1]/chat/completions, which most other vendors speak too (SDK 3.52)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulator.model import Answer, BadRequest, Message, SchemaRequest, Seen, ToolCall, WireName
from simulator.wire import common
from simulator.wire.openai_errors import error as error

NAME: WireName = "openai-chat"
REQUEST_ID_HEADER = "x-request-id"

_STOP = {"end": "stop", "length": "length", "tool_calls": "tool_calls", "refusal": "stop"}


def parse(body: Mapping[str, Any], model_in_path: str) -> Seen:
    if body.get("stream"):
        raise BadRequest(common.NO_STREAM)
    if body.get("n") not in (None, 1):
        raise BadRequest("n: only 1 is simulated")
    messages = [
        _message(common.mapping(item, f"messages[{at}]"), f"messages[{at}]")
        for at, item in enumerate(common.items(body.get("messages"), "messages"))
    ]
    declared = [common.mapping(tool, "tools") for tool in common.optional_items(body.get("tools"), "tools")]
    tools = [common.mapping(tool.get("function", tool), "tools") for tool in declared]
    return common.seen(NAME, body.get("model"), messages, tools, _schema(body))


def _message(item: Mapping[str, Any], where: str) -> Message:
    role = item.get("role")
    content = _plain_text(item.get("content"), f"{where}.content")
    if role in ("system", "developer"):
        return Message("system", content)
    if role == "user":
        return Message("user", content)
    if role == "tool":
        return Message("tool", content, answers=common.text(item.get("tool_call_id"), f"{where}.tool_call_id"))
    if role == "assistant":
        calls = common.optional_items(item.get("tool_calls"), f"{where}.tool_calls")
        return Message("assistant", content, tuple(_call(call, f"{where}.tool_calls") for call in calls))
    raise BadRequest(f"{where}.role: {role!r} is not a role")


def _call(value: Any, where: str) -> ToolCall:
    call = common.mapping(value, where)
    function = common.mapping(call.get("function"), f"{where}.function")
    arguments = common.arguments_of(function.get("arguments"), f"{where}.function.arguments")
    return ToolCall(common.text(function.get("name"), where), arguments, common.text(call.get("id"), where))


def _plain_text(value: Any, where: str) -> str:
    """A string, nothing (a turn of tool calls only), or parts of which the text ones count."""
    if value is None or isinstance(value, str):
        return value or ""
    parts = [common.mapping(part, where) for part in common.items(value, where)]
    return "\n".join(common.text(part.get("text"), where) for part in parts if part.get("type") == "text")


def _schema(body: Mapping[str, Any]) -> SchemaRequest | None:
    asked = common.optional(body.get("response_format"), "response_format")
    if asked.get("type") == "json_object":
        return SchemaRequest("", {})
    if asked.get("type") != "json_schema":
        return None
    inner = common.mapping(asked.get("json_schema"), "response_format.json_schema")
    return common.schema_request(inner.get("name"), inner.get("schema"), "response_format.json_schema.schema")


def render(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": answer.refusal}
    if answer.tool_calls:
        message["tool_calls"] = [
            {
                "id": f"call_{call.id}",
                "type": "function",
                "function": {"name": call.name, "arguments": common.arguments_text(call, answer.truncated_arguments)},
            }
            for call in answer.tool_calls
        ]
    usage = answer.usage
    return {
        "id": f"chatcmpl-{answer.id}",
        "object": "chat.completion",
        "created": common.CREATED,
        "model": answer.model,
        "choices": [{"index": 0, "message": message, "finish_reason": _STOP[answer.stop], "logprobs": None}],
        "usage": {
            "prompt_tokens": usage.input,
            "completion_tokens": usage.output,
            "total_tokens": usage.input + usage.output,
            "prompt_tokens_details": {"cached_tokens": usage.cached_input},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
        },
    }
