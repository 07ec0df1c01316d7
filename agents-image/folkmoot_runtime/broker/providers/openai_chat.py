"""Chat Completions, through OpenAI's SDK with another base URL: DeepSeek, Mistral and whatever is `OpenAICompatible`."""

from __future__ import annotations

from typing import Any, Literal, assert_never

import openai

from folkmoot_core.calls import ModelRequest, ModelResult, OpaquePart, Part, TextPart, ToolCallPart, ToolResultPart, Usage
from folkmoot_runtime.broker.providers import interface
from folkmoot_runtime.broker.providers.interface import Provider, ProviderError, Target

TYPE = "OpenAIChat"
BASE_URLS = {"DeepSeek": "https://api.deepseek.com", "Mistral": "https://api.mistral.ai/v1"}
_STOP: dict[str, Literal["end", "tool_use", "max_tokens", "refusal"]] = {
    "stop": "end", "length": "max_tokens", "tool_calls": "tool_use", "function_call": "tool_use", "content_filter": "refusal",
}  # fmt: skip
# Fields of an assistant message that some servers add and want back: reasoning that belongs to a tool call.
_ECHOED = ("reasoning_content",)


def build(target: Target) -> Provider:
    """A provider for one target; `OpenAICompatible` has no base URL of its own."""
    return _Chat(target)


class _Chat:
    def __init__(self, target: Target) -> None:
        base_url = target.base_url or BASE_URLS.get(target.type, "")
        if not base_url:
            raise ProviderError("status", f"provider {target.name} of type {target.type} needs a baseURL", status=400)
        # Of the vendors of this format DeepSeek alone knows no schema: it gets JSON mode and the schema as words.
        self._schema_in_words = target.type == "DeepSeek"
        self._client = openai.AsyncOpenAI(
            api_key=target.api_key.reveal(), base_url=base_url, http_client=target.http, max_retries=0,
            organization="", project="",
        )  # fmt: skip

    async def complete(self, model: str, request: ModelRequest, timeout: float) -> ModelResult:
        body = to_wire(model, request, schema_in_words=self._schema_in_words)
        try:
            raw = await self._client.chat.completions.with_raw_response.create(**body, timeout=timeout)
        except openai.APIStatusError as error:
            raise interface.from_response(error.response) from None
        except openai.APIConnectionError as error:
            raise interface.from_transport(error) from None
        return from_wire(interface.parse_object(raw.http_response.content))


def to_wire(model: str, request: ModelRequest, *, schema_in_words: bool = False) -> dict[str, Any]:
    """The vendor's request: tool results are messages of their own."""
    system = request.system
    body: dict[str, Any] = {"model": model, "max_tokens": request.max_output_tokens}
    if request.output is not None and schema_in_words:
        words = f"Answer with one JSON object that fits this JSON Schema:\n{interface.compact(request.output.json_schema)}"
        system = f"{system}\n\n{words}" if system else words
        body["response_format"] = {"type": "json_object"}
    elif request.output is not None:
        schema = {"name": request.output.name, "schema": request.output.json_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.tools:
        body["tools"] = [
            {"type": "function",
             "function": {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}}
            for tool in request.tools
        ]  # fmt: skip
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for message in request.messages:
        messages += _assistant(message.parts) if message.role == "assistant" else _others(message.parts)
    body["messages"] = messages
    return body


def _assistant(parts: tuple[Part, ...]) -> list[dict[str, Any]]:
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    extra: dict[str, Any] = {}
    for part in parts:
        match part:
            case TextPart():
                texts.append(part.text)
            case ToolCallPart():
                function = {"name": part.name, "arguments": interface.compact(part.arguments)}
                calls.append({"id": part.id, "type": "function", "function": function})
            case OpaquePart():
                extra.update(interface.echo(part, TYPE))
            case ToolResultPart():
                raise interface.misplaced(part.kind, "assistant")
            case _:
                assert_never(part)
    if not texts and not calls:
        return []
    message: dict[str, Any] = {"role": "assistant", "content": "\n".join(texts) if texts else None, **extra}
    if calls:
        message["tool_calls"] = calls
    return [message]


def _others(parts: tuple[Part, ...]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for part in parts:
        match part:
            case TextPart():
                messages.append({"role": "user", "content": part.text})
            case ToolResultPart():
                messages.append({"role": "tool", "tool_call_id": part.id, "content": interface.result_text(part)})
            case ToolCallPart() | OpaquePart():
                raise interface.misplaced(part.kind, "user or tool")
            case _:
                assert_never(part)
    return messages


def from_wire(body: dict[str, Any]) -> ModelResult:
    """The neutral answer."""
    choices = interface.as_objects(body.get("choices"), "choices")
    if not choices:
        raise interface.garbage("no choices")
    message = interface.as_object(choices[0].get("message"), "message")
    parts, broken = _parts(message)
    refused = isinstance(message.get("refusal"), str) and bool(message["refusal"])
    if refused:
        parts.append(TextPart(text=message["refusal"]))
    stop: Any = _STOP.get(str(choices[0].get("finish_reason")), "other")
    if refused:
        stop = "refusal"
    elif stop == "end" and any(isinstance(part, ToolCallPart) for part in parts):
        stop = "tool_use"  # some servers say `stop` beside tool calls
    elif broken and stop != "max_tokens":
        stop = "other"
    return ModelResult(
        parts=tuple(parts), stop=stop, usage=_usage(body), model_observed=interface.as_text(body.get("model"), "model"),
        response_id=str(body.get("id") or ""),
    )  # fmt: skip


def _parts(message: dict[str, Any]) -> tuple[list[Part], bool]:
    """Parts of the message, and whether a call was left out because its arguments break off."""
    parts: list[Part] = [
        OpaquePart(provider_type=TYPE, value={key: message[key]})
        for key in _ECHOED
        if isinstance(message.get(key), str) and message[key]
    ]
    content = message.get("content")
    if isinstance(content, str) and content:
        parts.append(TextPart(text=content))
    elif isinstance(content, list):  # Mistral's reasoning models answer in chunks; only the text ones are words of the answer
        chunks = interface.as_objects(content, "content")
        parts += [TextPart(text=interface.as_text(c.get("text"), "content.text")) for c in chunks if c.get("type") == "text"]
    broken = False
    for index, call in enumerate(interface.as_objects(message.get("tool_calls"), "tool_calls")):
        function = interface.as_object(call.get("function"), "function")
        arguments = interface.arguments(function.get("arguments"))
        if arguments is None:
            broken = True
            continue
        name = interface.as_text(function.get("name"), "function.name")
        parts.append(ToolCallPart(id=str(call.get("id") or f"{name}-{index}"), name=name, arguments=arguments))
    return parts, broken


def _usage(body: dict[str, Any]) -> Usage:
    """Tokens; servers of this format may leave usage out, which then counts as none."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return Usage()
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else usage.get("prompt_cache_hit_tokens")
    return Usage(
        input_tokens=interface.count(usage.get("prompt_tokens"), "usage"),
        output_tokens=interface.count(usage.get("completion_tokens"), "usage"),
        cached_input_tokens=interface.count(cached, "usage"),
    )
