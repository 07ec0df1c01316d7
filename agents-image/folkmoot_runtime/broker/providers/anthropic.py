"""Anthropic Messages, through the vendor's SDK (type `Anthropic`). runtime.md §1.1."""

from __future__ import annotations

from typing import Any, Literal, assert_never

import anthropic

from folkmoot_core.calls import ModelRequest, ModelResult, OpaquePart, Part, TextPart, ToolCallPart, ToolResultPart, Usage
from folkmoot_runtime.broker.providers import interface
from folkmoot_runtime.broker.providers.interface import Provider, Target

TYPE = "Anthropic"
BASE_URL = "https://api.anthropic.com"
_STOP: dict[str, Literal["end", "tool_use", "max_tokens", "refusal"]] = {
    "end_turn": "end", "stop_sequence": "end", "tool_use": "tool_use", "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens", "refusal": "refusal",
}  # fmt: skip


def build(target: Target) -> Provider:
    """A provider for one target."""
    return _Anthropic(target)


class _Anthropic:
    def __init__(self, target: Target) -> None:
        self._client = anthropic.AsyncAnthropic(
            api_key=target.api_key.reveal(), base_url=target.base_url or BASE_URL, http_client=target.http, max_retries=0
        )

    async def complete(self, model: str, request: ModelRequest, timeout: float) -> ModelResult:
        body = to_wire(model, request)
        try:
            raw = await self._client.messages.with_raw_response.create(**body, timeout=timeout)
        except anthropic.APIStatusError as error:
            raise interface.from_response(error.response) from None
        except anthropic.APIConnectionError as error:
            raise interface.from_transport(error) from None
        return from_wire(interface.parse_object(raw.http_response.content))


def to_wire(model: str, request: ModelRequest) -> dict[str, Any]:
    """The vendor's request. Adjacent user and tool messages become one turn: results of one step must come together."""
    turns: list[dict[str, Any]] = []
    for message in request.messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [_block(part) for part in message.parts]
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    body: dict[str, Any] = {"model": model, "max_tokens": request.max_output_tokens, "messages": turns}
    if request.system:
        body["system"] = request.system
    if request.tools:
        body["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.input_schema} for tool in request.tools
        ]
    if request.output is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": request.output.json_schema}}
    return body


def _block(part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ToolCallPart():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": part.arguments}
        case ToolResultPart():
            return {"type": "tool_result", "tool_use_id": part.id, "content": part.text, "is_error": part.error}
        case OpaquePart():
            return interface.echo(part, TYPE)
    assert_never(part)


def from_wire(body: dict[str, Any]) -> ModelResult:
    """The neutral answer; blocks that only this vendor understands stay opaque, to be echoed."""
    reason = body.get("stop_reason")
    usage = interface.as_object(body.get("usage"), "usage")
    cached = interface.count(usage.get("cache_read_input_tokens"), "usage")
    written = interface.count(usage.get("cache_creation_input_tokens"), "usage")
    parts = [_part(block) for block in interface.as_objects(body.get("content"), "content")]
    details = body.get("stop_details")
    explanation = details.get("explanation") if isinstance(details, dict) else None
    if reason == "refusal" and isinstance(explanation, str) and explanation:
        parts.append(TextPart(text=explanation))
    return ModelResult(
        parts=tuple(parts),
        stop=_STOP.get(str(reason), "other"),
        # The vendor counts what came from its cache and what went into it apart; the total input is the sum of the three.
        usage=Usage(
            input_tokens=interface.count(usage.get("input_tokens"), "usage") + cached + written,
            output_tokens=interface.count(usage.get("output_tokens"), "usage"),
            cached_input_tokens=cached,
        ),
        model_observed=interface.as_text(body.get("model"), "model"),
        response_id=str(body.get("id") or ""),
    )


def _part(block: dict[str, Any]) -> Part:
    kind = block.get("type")
    if kind == "text":
        return TextPart(text=interface.as_text(block.get("text"), "content.text"))
    if kind == "tool_use":
        return ToolCallPart(
            id=interface.as_text(block.get("id"), "tool_use.id"),
            name=interface.as_text(block.get("name"), "tool_use.name"),
            arguments=interface.as_object(block.get("input"), "tool_use.input"),
        )
    if not isinstance(kind, str):
        raise interface.garbage("content block without a type")
    return OpaquePart(provider_type=TYPE, value=block)
