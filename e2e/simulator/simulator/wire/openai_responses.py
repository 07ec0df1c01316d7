"""OpenAI Responses: POST [/v1]/responses, without what is stored at the vendor (SDK 3.52)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulator.model import Answer, BadRequest, Message, SchemaRequest, Seen, ToolCall, WireName
from simulator.wire import common
from simulator.wire.openai_errors import error as error

NAME: WireName = "openai-responses"
REQUEST_ID_HEADER = "x-request-id"

_TEXT_PARTS = ("input_text", "output_text", "text")
_NOT_SIMULATED = {
    "stream": common.NO_STREAM,
    "background": "background responses are not simulated: ask without it",
    "previous_response_id": "stored responses are not simulated: send the whole conversation as input",
    "conversation": "stored conversations are not simulated: send the whole conversation as input",
}


def parse(body: Mapping[str, Any], model_in_path: str) -> Seen:
    for name, message in _NOT_SIMULATED.items():
        if body.get(name):
            raise BadRequest(message)
    messages: list[Message] = []
    if body.get("instructions"):
        messages.append(Message("system", common.text(body["instructions"], "instructions")))
    given = body.get("input")
    if isinstance(given, str):
        messages.append(Message("user", given))
    else:
        for at, item in enumerate(common.items(given, "input")):
            messages.append(_item(common.mapping(item, f"input[{at}]"), f"input[{at}]"))
    tools = common.optional_items(body.get("tools"), "tools")
    return common.seen(NAME, body.get("model"), messages, tools, _schema(body))


def _item(item: Mapping[str, Any], where: str) -> Message:
    kind = item.get("type", "message")
    if kind == "message":
        return _message(item, where)
    if kind == "function_call":
        arguments = common.arguments_of(item.get("arguments"), f"{where}.arguments")
        call_id = common.text(item.get("call_id"), f"{where}.call_id")
        return Message("assistant", "", (ToolCall(common.text(item.get("name"), where), arguments, call_id),))
    if kind == "function_call_output":
        call_id = common.text(item.get("call_id"), f"{where}.call_id")
        return Message("tool", _plain_text(item.get("output"), f"{where}.output"), answers=call_id)
    if kind == "reasoning":
        return Message("assistant")
    raise BadRequest(f"{where}.type: {kind!r} is not simulated")


def _message(item: Mapping[str, Any], where: str) -> Message:
    content = _plain_text(item.get("content"), f"{where}.content")
    role = item.get("role")
    if role in ("system", "developer"):
        return Message("system", content)
    if role == "user":
        return Message("user", content)
    if role == "assistant":
        return Message("assistant", content)
    raise BadRequest(f"{where}.role: {role!r} is not a role")


def _plain_text(value: Any, where: str) -> str:
    """A string, or parts of which the text ones count."""
    if isinstance(value, str):
        return value
    parts = [common.mapping(part, where) for part in common.items(value, where)]
    return "\n".join(common.text(part.get("text"), where) for part in parts if part.get("type") in _TEXT_PARTS)


def _schema(body: Mapping[str, Any]) -> SchemaRequest | None:
    asked = common.optional(common.optional(body.get("text"), "text").get("format"), "text.format")
    if asked.get("type") == "json_object":
        return SchemaRequest("", {})
    if asked.get("type") != "json_schema":
        return None
    return common.schema_request(asked.get("name"), asked.get("schema"), "text.format.schema")


def render(answer: Answer) -> dict[str, Any]:
    incomplete = answer.stop == "length"
    status = "incomplete" if incomplete else "completed"
    output: list[dict[str, Any]] = []
    content: list[dict[str, Any]] = []
    if answer.text:
        content.append({"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []})
    if answer.refusal is not None:
        content.append({"type": "refusal", "refusal": answer.refusal})
    if content:
        message = {"type": "message", "id": f"msg_{answer.id}", "role": "assistant"}
        output.append({**message, "status": status, "content": content})
    for call in answer.tool_calls:
        arguments = common.arguments_text(call, answer.truncated_arguments)
        named = {"type": "function_call", "id": f"fc_{call.id}", "call_id": f"call_{call.id}", "name": call.name}
        output.append({**named, "arguments": arguments, "status": status})
    usage = answer.usage
    return {
        "id": f"resp_{answer.id}",
        "object": "response",
        "created_at": common.CREATED,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if incomplete else None,
        "instructions": None,
        "metadata": {},
        "model": answer.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "store": False,
        "usage": {
            "input_tokens": usage.input,
            "input_tokens_details": {"cached_tokens": usage.cached_input, "cache_write_tokens": 0},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.input + usage.output,
        },
    }
