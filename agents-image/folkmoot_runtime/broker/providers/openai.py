"""OpenAI Responses, through the vendor's SDK (type `OpenAI`). runtime.md §1.1. Nothing is stored at the vendor."""

from __future__ import annotations

import re
from typing import Any, assert_never

import openai

from folkmoot_core.calls import ModelRequest, ModelResult, OpaquePart, Part, TextPart, ToolCallPart, ToolResultPart, Usage
from folkmoot_runtime.broker.providers import interface
from folkmoot_runtime.broker.providers.interface import Provider, ProviderError, Target

TYPE = "OpenAI"
BASE_URL = "https://api.openai.com/v1"
# Models that reason give their reasoning back encrypted, to be echoed; asking others for it is refused with 400.
_REASONING = re.compile(r"(o\d|gpt-[5-9](?!.*chat)|gpt-\d\d(?!.*chat))")
_FAILED_STATUS = {"rate_limit_exceeded": 429, "server_error": 500}  # error codes of a response that failed after a 200


def build(target: Target) -> Provider:
    """A provider for one target."""
    return _OpenAI(target)


class _OpenAI:
    def __init__(self, target: Target) -> None:
        self._client = openai.AsyncOpenAI(
            api_key=target.api_key.reveal(), base_url=target.base_url or BASE_URL, http_client=target.http, max_retries=0,
            organization="", project="",  # '' keeps the SDK from taking them out of the environment
        )  # fmt: skip

    async def complete(self, model: str, request: ModelRequest, timeout: float) -> ModelResult:
        body = to_wire(model, request)
        try:
            raw = await self._client.responses.with_raw_response.create(**body, timeout=timeout)
        except openai.APIStatusError as error:
            raise interface.from_response(error.response) from None
        except openai.APIConnectionError as error:
            raise interface.from_transport(error) from None
        return from_wire(interface.parse_object(raw.http_response.content))


def to_wire(model: str, request: ModelRequest) -> dict[str, Any]:
    """The vendor's request: a flat list of items, in which calls and results are items of their own."""
    items: list[dict[str, Any]] = []
    for message in request.messages:
        items += [_item(part, message.role) for part in message.parts]
    body: dict[str, Any] = {"model": model, "input": items, "max_output_tokens": request.max_output_tokens, "store": False}
    if _REASONING.match(model.rsplit("/", 1)[-1].lower()):
        body["include"] = ["reasoning.encrypted_content"]
    if request.system:
        body["instructions"] = request.system
    if request.tools:
        body["tools"] = [
            {"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.input_schema,
             "strict": False}
            for tool in request.tools
        ]  # fmt: skip
    if request.output is not None:
        body["text"] = {
            "format": {
                "type": "json_schema", "name": request.output.name, "schema": request.output.json_schema, "strict": True,
            }
        }  # fmt: skip
    return body


def _item(part: Part, role: str) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"role": "assistant" if role == "assistant" else "user", "content": part.text}
        case ToolCallPart():
            text = interface.compact(part.arguments)
            return {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": text}
        case ToolResultPart():
            return {"type": "function_call_output", "call_id": part.id, "output": interface.result_text(part)}
        case OpaquePart():
            return interface.echo(part, TYPE)
    assert_never(part)


def from_wire(body: dict[str, Any]) -> ModelResult:
    """The neutral answer. A response may fail after the 200 was sent: that is the vendor's refusal, not an answer."""
    error = body.get("error")
    if isinstance(error, dict):
        status = _FAILED_STATUS.get(str(error.get("code")), 400)
        raise ProviderError("status", interface.printable(str(error.get("message") or "response failed")), status=status)
    parts: list[Part] = []
    broken = refused = False
    for item in interface.as_objects(body.get("output"), "output"):
        found, refusal = _parts(item)
        parts += [part for part in found if part is not None]
        broken = broken or None in found
        refused = refused or refusal
    usage = interface.as_object(body.get("usage"), "usage")
    details = usage.get("input_tokens_details")
    return ModelResult(
        parts=tuple(parts),
        stop=_stop(body, refused, broken, any(isinstance(part, ToolCallPart) for part in parts)),
        usage=Usage(
            input_tokens=interface.count(usage.get("input_tokens"), "usage"),
            output_tokens=interface.count(usage.get("output_tokens"), "usage"),
            cached_input_tokens=interface.count((details if isinstance(details, dict) else {}).get("cached_tokens"), "usage"),
        ),
        model_observed=interface.as_text(body.get("model"), "model"),
        response_id=str(body.get("id") or ""),
    )


def _stop(body: dict[str, Any], refused: bool, broken: bool, calls: bool) -> Any:
    details = body.get("incomplete_details")
    why = details.get("reason") if isinstance(details, dict) else None
    if refused or why == "content_filter":
        return "refusal"
    if why == "max_output_tokens":
        return "max_tokens"
    if broken or body.get("status") != "completed":
        return "other"
    return "tool_use" if calls else "end"


def _parts(item: dict[str, Any]) -> tuple[list[Part | None], bool]:
    """Parts of one output item and whether it is a refusal; None stands for a call whose arguments break off."""
    kind = item.get("type")
    if kind == "message":
        content = interface.as_objects(item.get("content"), "message.content")
        refusals = [interface.as_text(c.get("refusal"), "refusal") for c in content if c.get("type") == "refusal"]
        texts = [interface.as_text(c.get("text"), "output_text") for c in content if c.get("type") == "output_text"]
        return [TextPart(text=text) for text in [*texts, *refusals]], bool(refusals)
    if kind == "function_call":
        arguments = interface.arguments(item.get("arguments"))
        if arguments is None:
            return [None], False
        return [
            ToolCallPart(
                id=interface.as_text(item.get("call_id"), "call_id"),
                name=interface.as_text(item.get("name"), "function_call.name"),
                arguments=arguments,
            )
        ], False
    if kind == "reasoning":
        # Without its encrypted content it exists only at the vendor, which keeps nothing for us: echoing it would be refused.
        echoable = {key: item[key] for key in ("type", "id", "summary", "encrypted_content") if key in item}
        return ([OpaquePart(provider_type=TYPE, value=echoable)] if item.get("encrypted_content") else []), False
    raise interface.garbage(f"output item of type {interface.printable(str(kind))[:40]}")
