"""Gemini: POST /v1|/v1beta/models/{model}:generateContent (SDK google-genai 3.4; ai.google.dev/api/generate-content).

From Gemini 3 on the vendor refuses a conversation whose function calls come back without the thought signature they
were given; so does this wire, because an adapter that drops it works everywhere but in production.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from simulator.model import Answer, BadRequest, Message, SchemaRequest, Seen, ToolCall, WireName
from simulator.wire import common

NAME: WireName = "gemini"
REQUEST_ID_HEADER = "x-request-id"

_FINISH = {"end": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "refusal": "SAFETY"}
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}
_SIGNED = re.compile(r"gemini-(?:[3-9]|\d\d)")


def parse(body: Mapping[str, Any], model_in_path: str) -> Seen:
    messages: list[Message] = []
    instruction = common.optional(body.get("systemInstruction"), "systemInstruction")
    if instruction:
        messages.append(Message("system", _text_of(_parts(instruction, "systemInstruction"), "systemInstruction")))
    for at, item in enumerate(common.items(body.get("contents"), "contents")):
        content = common.mapping(item, f"contents[{at}]")
        messages += _content(content, f"contents[{at}]", signed=_SIGNED.match(model_in_path) is not None)
    tools = [common.mapping(tool, "tools") for tool in common.optional_items(body.get("tools"), "tools")]
    declared = [
        declaration
        for tool in tools
        for declaration in common.optional_items(tool.get("functionDeclarations"), "tools.functionDeclarations")
    ]
    return common.seen(NAME, model_in_path, messages, declared, _schema(body))


def _parts(content: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    return [common.mapping(part, f"{where}.parts") for part in common.items(content.get("parts"), f"{where}.parts")]


def _text_of(parts: list[Mapping[str, Any]], where: str) -> str:
    """The parts' text without thoughts, which are no words of the conversation."""
    texts = [part["text"] for part in parts if "text" in part and not part.get("thought")]
    return "\n".join(common.text(text, where) for text in texts)


def _content(content: Mapping[str, Any], where: str, signed: bool) -> Iterator[Message]:
    parts = _parts(content, where)
    calls = [part for part in parts if "functionCall" in part]
    role = content.get("role", "user")
    if role == "model":
        if signed and calls and not calls[0].get("thoughtSignature"):
            # Only the first call of a step carries one.
            raise BadRequest(f"{where}: function call is missing a thought_signature in functionCall parts")
        yield Message("assistant", _text_of(parts, where), tuple(_call(part["functionCall"], where) for part in calls))
        return
    if role not in ("user", "function"):
        raise BadRequest(f"{where}.role: expected user or model")
    for part in parts:
        if "functionResponse" in part:
            yield _result(common.mapping(part["functionResponse"], where), where)
    if any("text" in part for part in parts):
        yield Message("user", _text_of(parts, where))


def _call(value: Any, where: str) -> ToolCall:
    call = common.mapping(value, f"{where}.functionCall")
    name = common.text(call.get("name"), f"{where}.functionCall.name")
    return ToolCall(name, common.optional(call.get("args"), f"{where}.functionCall.args"), call.get("id") or name)


def _result(result: Mapping[str, Any], where: str) -> Message:
    name = common.text(result.get("name"), f"{where}.functionResponse.name")
    response = common.optional(result.get("response"), f"{where}.functionResponse.response")
    # By the vendor's convention `output` (and `error`) hold the text; anything else is shown as JSON.
    (key, *more) = response or ("",)
    plain = not more and key in ("output", "result", "error") and isinstance(response[key], str)
    text = response[key] if plain else common.json_text(response)
    return Message("tool", text, answers=result.get("id") or name)


def _schema(body: Mapping[str, Any]) -> SchemaRequest | None:
    config = common.optional(body.get("generationConfig"), "generationConfig")
    for name in ("responseJsonSchema", "responseSchema"):
        if config.get(name) is not None:
            schema = common.mapping(config[name], f"generationConfig.{name}")
            return common.schema_request(schema.get("title"), schema, f"generationConfig.{name}")
    return SchemaRequest("", {}) if config.get("responseMimeType") == "application/json" else None


def render(answer: Answer) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"text": answer.text}] if answer.text else []
    for at, call in enumerate(answer.tool_calls):
        part: dict[str, Any] = {"functionCall": {"id": call.id, "name": call.name, "args": dict(call.arguments)}}
        if at == 0:
            part["thoughtSignature"] = base64.b64encode(f"sim-{call.id}".encode()).decode()
        parts.append(part)
    finish = _FINISH[answer.stop]
    if answer.truncated_arguments and answer.tool_calls:
        # Arguments are an object here: what breaks off is reported by the vendor and never shown.
        parts, finish = [], "MALFORMED_FUNCTION_CALL"
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": parts}, "finishReason": finish}
    if answer.refusal is not None:
        candidate["finishMessage"] = answer.refusal
    usage = answer.usage
    counts = {
        "promptTokenCount": usage.input,
        # Unlike elsewhere, thoughts are not part of the output count.
        "candidatesTokenCount": usage.output - usage.reasoning,
        "totalTokenCount": usage.input + usage.output,
    }
    if usage.reasoning:
        counts["thoughtsTokenCount"] = usage.reasoning
    if usage.cached_input:
        counts["cachedContentTokenCount"] = usage.cached_input
    return {
        "candidates": [candidate],
        "usageMetadata": counts,
        "modelVersion": answer.model,
        "responseId": answer.id,
    }


def error(status: int, message: str, retry_after: float | None, request_id: str) -> dict[str, Any]:
    body: dict[str, Any] = {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}
    if retry_after is not None:
        delay = f"{math.ceil(retry_after)}s"
        body["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    return {"error": body}
