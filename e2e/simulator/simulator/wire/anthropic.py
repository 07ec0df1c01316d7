"""Anthropic Messages: POST /v1/messages (facts: docs.anthropic.com/en/api/messages; SDK 2.11)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from simulator.model import Answer, BadRequest, Message, SchemaRequest, Seen, ToolCall, WireName
from simulator.wire import common

NAME: WireName = "anthropic"
REQUEST_ID_HEADER = "request-id"

_STOP = {"end": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "refusal": "refusal"}
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_SILENT_BLOCKS = ("thinking", "redacted_thinking", "image", "document")
"""Blocks that carry no text a rule could match on."""


def parse(body: Mapping[str, Any], model_in_path: str) -> Seen:
    if body.get("stream"):
        raise BadRequest(common.NO_STREAM)
    if not isinstance(body.get("max_tokens"), int):
        raise BadRequest("max_tokens: Field required")
    messages: list[Message] = []
    if body.get("system"):
        messages.append(Message("system", _plain_text(body["system"], "system")))
    for at, item in enumerate(common.items(body.get("messages"), "messages")):
        messages += _message(common.mapping(item, f"messages.{at}"), f"messages.{at}")
    tools = common.optional_items(body.get("tools"), "tools")
    return common.seen(NAME, body.get("model"), messages, tools, _schema(body))


def _message(item: Mapping[str, Any], where: str) -> Iterator[Message]:
    role = item.get("role")
    content = item.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else common.items(content, where)
    if role == "assistant":
        yield _assistant(blocks, where)
        return
    if role not in ("user", "system"):
        raise BadRequest(f"{where}.role: expected user or assistant")
    texts: list[str] = []
    for block in blocks:
        kind = common.mapping(block, where).get("type")
        if kind == "tool_result":
            if texts:
                # The API demands results first; text before them would part the call from its result.
                raise BadRequest(f"{where}: tool_result blocks must come before text")
            result = _plain_text(block.get("content", ""), f"{where}.tool_result")
            yield Message("tool", result, answers=common.text(block.get("tool_use_id"), f"{where}.tool_use_id"))
        elif kind == "text":
            texts.append(common.text(block.get("text"), f"{where}.text"))
        elif kind not in _SILENT_BLOCKS:
            raise BadRequest(f"{where}: block type {kind!r} is not simulated")
    if texts:
        yield Message("system" if role == "system" else "user", "\n".join(texts))


def _assistant(blocks: Any, where: str) -> Message:
    texts: list[str] = []
    calls: list[ToolCall] = []
    for block in blocks:
        kind = common.mapping(block, where).get("type")
        if kind == "text":
            texts.append(common.text(block.get("text"), f"{where}.text"))
        elif kind == "tool_use":
            arguments = common.mapping(block.get("input"), f"{where}.input")
            calls.append(ToolCall(common.text(block.get("name"), where), arguments, common.text(block.get("id"), where)))
        elif kind not in _SILENT_BLOCKS:
            raise BadRequest(f"{where}: block type {kind!r} is not simulated")
    return Message("assistant", "\n".join(texts), tuple(calls))


def _plain_text(value: Any, where: str) -> str:
    """A string, or blocks of which the text ones count."""
    if isinstance(value, str):
        return value
    blocks = [common.mapping(block, where) for block in common.items(value, where)]
    return "\n".join(common.text(block.get("text"), where) for block in blocks if block.get("type") == "text")


def _schema(body: Mapping[str, Any]) -> SchemaRequest | None:
    config = common.optional(body.get("output_config"), "output_config")
    asked = common.optional(config.get("format"), "output_config.format")
    if asked.get("type") != "json_schema":
        return None
    return common.schema_request(asked.get("name"), asked.get("schema"), "output_config.format.schema")


def render(answer: Answer) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}] if answer.text else []
    for call in answer.tool_calls:
        arguments = dict(call.arguments)
        if answer.truncated_arguments:
            # An object cannot break off mid-string; what is lost is its last members.
            arguments = dict(list(arguments.items())[: len(arguments) // 2])
        content.append({"type": "tool_use", "id": f"toolu_{call.id}", "name": call.name, "input": arguments})
    refused = answer.refusal is not None
    details = {"type": "refusal", "category": None, "explanation": answer.refusal} if refused else None
    return {
        "id": f"msg_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": _STOP[answer.stop],
        "stop_sequence": None,
        "stop_details": details,
        "usage": {
            # The vendor's total input is the sum of these three.
            "input_tokens": answer.usage.input - answer.usage.cached_input,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": answer.usage.cached_input,
            "output_tokens": answer.usage.output,
            "output_tokens_details": {"thinking_tokens": answer.usage.reasoning},
            "service_tier": "standard",
        },
    }


def error(status: int, message: str, retry_after: float | None, request_id: str) -> dict[str, Any]:
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
