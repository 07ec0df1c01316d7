"""Gemini generateContent, through the vendor's SDK (type `Google`). runtime.md §1.1.

The HTTP client is always handed in: without one the SDK takes aiohttp where that is installed, which sleeps and retries on
its own and times out with another class.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Literal, assert_never

import httpx2
from google import genai
from google.genai import errors, types

from folkmoot_core.calls import ModelRequest, ModelResult, OpaquePart, Part, TextPart, ToolCallPart, ToolResultPart, Usage
from folkmoot_runtime.broker.providers import interface
from folkmoot_runtime.broker.providers.interface import Provider, ProviderError, Target

TYPE = "Google"
BASE_URL = "https://generativelanguage.googleapis.com"
_STOP: dict[str, Literal["end", "max_tokens", "refusal"]] = {
    "STOP": "end", "MAX_TOKENS": "max_tokens", "SAFETY": "refusal", "RECITATION": "refusal", "BLOCKLIST": "refusal",
    "PROHIBITED_CONTENT": "refusal", "SPII": "refusal", "IMAGE_SAFETY": "refusal", "LANGUAGE": "refusal",
}  # fmt: skip


def build(target: Target) -> Provider:
    """A provider for one target."""
    return _Google(target)


class _Google:
    def __init__(self, target: Target) -> None:
        options = types.HttpOptions(
            base_url=target.base_url or BASE_URL,
            httpx_async_client=target.http,
            # Never used, but without it the SDK loads the system's certificates for a second time.
            httpx_client=httpx2.Client(transport=httpx2.MockTransport(_no_sync_calls)),
        )
        self._client = genai.Client(api_key=target.api_key.reveal(), vertexai=False, http_options=options)

    async def complete(self, model: str, request: ModelRequest, timeout: float) -> ModelResult:
        contents, config = to_wire(request)
        config["http_options"] = {"timeout": max(1, int(timeout * 1000))}  # the SDK counts in milliseconds
        try:
            answer = await self._client.aio.models.generate_content(
                model=model, contents=contents, config=types.GenerateContentConfig(**config)
            )
            body = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
        except errors.APIError as error:
            raise _refused(error) from None
        except httpx2.HTTPError as error:
            raise interface.from_transport(error) from None
        except ValueError:  # not JSON, or JSON that does not fit the SDK's types (pydantic's error is a ValueError)
            raise interface.garbage("body") from None
        return from_wire(body)


def _no_sync_calls(_: httpx2.Request) -> httpx2.Response:
    raise httpx2.UnsupportedProtocol("the broker makes no synchronous calls")


def _refused(error: errors.APIError) -> ProviderError:
    if isinstance(error.response, httpx2.Response):
        return interface.from_response(error.response)
    text = interface.printable(str(error.message or f"HTTP {error.code}"))
    return ProviderError("status", text, status=error.code)


def to_wire(request: ModelRequest) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The vendor's contents and configuration. Adjacent messages of one role become one turn."""
    contents: list[dict[str, Any]] = []
    for message in request.messages:
        role = "model" if message.role == "assistant" else "user"
        parts = _parts(message.parts)
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": role, "parts": parts})
    config: dict[str, Any] = {
        "max_output_tokens": request.max_output_tokens,
        "automatic_function_calling": {"disable": True},
    }
    if request.system:
        config["system_instruction"] = request.system
    if request.tools:
        declarations = [
            {"name": tool.name, "description": tool.description, "parameters_json_schema": tool.input_schema}
            for tool in request.tools
        ]
        config["tools"] = [{"function_declarations": declarations}]
    if request.output is not None:
        config |= {"response_mime_type": "application/json", "response_json_schema": request.output.json_schema}
    return contents, config


def _parts(parts: tuple[Part, ...]) -> list[dict[str, Any]]:
    """Parts of one turn. A signature is an opaque part before the part that it signs."""
    wire: list[dict[str, Any]] = []
    signature: bytes | None = None
    for part in parts:
        if isinstance(part, OpaquePart):
            signature = _signature(interface.echo(part, TYPE))
            continue
        item = _part(part)
        if signature is not None:
            item["thought_signature"] = signature
            signature = None
        wire.append(item)
    if signature is not None:  # one that closed the turn: the vendor sends it on an empty text
        wire.append({"text": "", "thought_signature": signature})
    return wire


def _signature(value: dict[str, Any]) -> bytes:
    try:
        return base64.urlsafe_b64decode(str(value["thoughtSignature"]))
    except (KeyError, ValueError, binascii.Error):
        raise interface.misplaced("opaque part without a signature", TYPE) from None


def _part(part: TextPart | ToolCallPart | ToolResultPart) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"text": part.text}
        case ToolCallPart():
            return {"function_call": {"id": part.id, "name": part.name, "args": part.arguments}}
        case ToolResultPart():
            response = {"error" if part.error else "output": part.text}
            return {"function_response": {"id": part.id, "name": part.name, "response": response}}
    assert_never(part)


def from_wire(body: dict[str, Any]) -> ModelResult:
    """The neutral answer. A prompt that was blocked has no candidate: that is a refusal."""
    candidates = interface.as_objects(body.get("candidates"), "candidates")
    feedback = body.get("promptFeedback")
    blocked = isinstance(feedback, dict) and bool(feedback.get("blockReason"))
    if not candidates and not blocked:
        raise interface.garbage("no candidates")
    first = candidates[0] if candidates else {}
    finish = "SAFETY" if blocked else str(first.get("finishReason"))
    content = first.get("content")
    parts = _neutral(interface.as_object(content, "content") if content is not None else {})
    message = first.get("finishMessage")
    stop: Any = _STOP.get(finish, "other")
    if stop == "refusal" and isinstance(message, str) and message:
        parts.append(TextPart(text=message))
    if stop == "end" and any(isinstance(part, ToolCallPart) for part in parts):
        stop = "tool_use"
    usage = body.get("usageMetadata") or {}
    thoughts = interface.count(usage.get("thoughtsTokenCount"), "usage")
    tool_input = interface.count(usage.get("toolUsePromptTokenCount"), "usage")
    return ModelResult(
        parts=tuple(parts),
        stop=stop,
        # Unlike elsewhere, thoughts are not part of the output count, but they are billed as output.
        usage=Usage(
            input_tokens=interface.count(usage.get("promptTokenCount"), "usage") + tool_input,
            output_tokens=interface.count(usage.get("candidatesTokenCount"), "usage") + thoughts,
            cached_input_tokens=interface.count(usage.get("cachedContentTokenCount"), "usage"),
        ),
        model_observed=interface.as_text(body.get("modelVersion"), "modelVersion"),
        response_id=str(body.get("responseId") or ""),
    )


def _neutral(content: dict[str, Any]) -> list[Part]:
    parts: list[Part] = []
    for index, item in enumerate(interface.as_objects(content.get("parts"), "parts")):
        if item.get("thought"):
            continue  # a summary of thinking, for people; only its signature is ever sent back
        if item.get("thoughtSignature"):
            parts.append(OpaquePart(provider_type=TYPE, value={"thoughtSignature": item["thoughtSignature"]}))
        if "functionCall" in item:
            call = interface.as_object(item["functionCall"], "functionCall")
            name = interface.as_text(call.get("name"), "functionCall.name")
            arguments = interface.as_object(call.get("args") or {}, "functionCall.args")
            parts.append(ToolCallPart(id=str(call.get("id") or f"{name}-{index}"), name=name, arguments=arguments))
        elif "text" in item:
            text = interface.as_text(item["text"], "text")
            if text:
                parts.append(TextPart(text=text))
        else:
            raise interface.garbage("part that is neither text nor a function call")
    return parts
