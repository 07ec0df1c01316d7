"""Model calls in one vendor-neutral form: what an agent asks, what the broker answers.

Provider files translate both ways and nothing else (style.md §2, habit 15). Unknown parts raise, they never vanish.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from folkmoot_core.canonical import canonical_json, sha256_hex

MAX_REQUEST = 8 * 1024 * 1024  # bytes of one call's JSON


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextPart(_Frozen):
    kind: Literal["text"] = "text"
    text: str


class ToolCallPart(_Frozen):
    """The model asks for a tool. `arguments` is always an object here; providers that send text are parsed at their file."""

    kind: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    arguments: dict[str, Any]


class ToolResultPart(_Frozen):
    kind: Literal["tool_result"] = "tool_result"
    id: str
    name: str
    text: str
    error: bool = False


class OpaquePart(_Frozen):
    """A vendor's part that must be echoed unchanged (thinking signatures). Never read by anyone but that vendor's file."""

    kind: Literal["opaque"] = "opaque"
    provider_type: str
    value: dict[str, Any]


Part = Annotated[TextPart | ToolCallPart | ToolResultPart | OpaquePart, Field(discriminator="kind")]


class Message(_Frozen):
    role: Literal["user", "assistant", "tool"]
    parts: tuple[Part, ...]


class ToolSpec(_Frozen):
    name: str
    description: str
    input_schema: dict[str, Any]


class OutputSchema(_Frozen):
    """Structured output: `name` is [a-z_]{1,64}, `json_schema` an object schema with additionalProperties false."""

    name: str
    json_schema: dict[str, Any]


class ModelRequest(_Frozen):
    system: str = ""
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    max_output_tokens: int = Field(default=4096, ge=1, le=200_000)
    output: OutputSchema | None = None


class CallEnvelope(_Frozen):
    """Body of the broker's `POST /v1/calls`. The agent's name is *not* in it: the token says who calls."""

    session: str = Field(max_length=64)  # Session uid
    task: str = Field(max_length=128)
    step: int = Field(ge=0, le=1000)
    provider: str = Field(max_length=63)
    model: str = Field(max_length=128)
    request: ModelRequest


class Usage(_Frozen):
    """Tokens. `input_tokens` is the total input, cached included."""

    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    cached_input_tokens: int = Field(default=0, ge=0)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
        )


class ModelResult(_Frozen):
    """What a provider file returns. `model_observed` is what the response says, never what was asked for."""

    parts: tuple[Part, ...]
    stop: Literal["end", "tool_use", "max_tokens", "refusal", "other"]
    usage: Usage
    model_observed: str
    response_id: str = ""


class CallAnswer(_Frozen):
    """Body of the broker's answer. `stored` is True when it came from the journal, i.e. was not paid for again."""

    call_key: str
    result: ModelResult
    family: str  # '' when unknown: never counts as a distinct family
    provider: str
    cost: str | None = None  # decimal text in `currency`; None when the model has no price
    currency: str | None = None
    stored: bool = False


def call_key(agent: str, call: CallEnvelope) -> str:
    """wiring.md §7: equal prompts at different steps are different calls. The task is part of the step's name."""
    fields = {
        "session": call.session, "agent": agent, "step": f"{call.task}/{call.step}", "provider": call.provider,
        "model": call.model, "request": sha256_hex(call.request.model_dump_json().encode()),
    }  # fmt: skip
    return sha256_hex(canonical_json(fields))


_FAMILIES: tuple[tuple[str, str], ...] = (
    (r"claude", "claude"), (r"gpt", "gpt"), (r"chatgpt", "gpt"), (r"o\d", "gpt"), (r"gemini", "gemini"), (r"gemma", "gemini"),
    (r"deepseek", "deepseek"), (r"mistral|mixtral|magistral|codestral|ministral", "mistral"), (r"qwen|qwq", "qwen"),
    (r"llama", "llama"), (r"grok", "grok"), (r"command", "command"), (r"phi", "phi"), (r"glm", "glm"), (r"kimi", "kimi"),
)  # fmt: skip


def family_of(model: str, declared: str | None = None, *, provider_type: str = "") -> str:
    """Model family by name prefix; `declared` is the provider entry's `family`, used only when the table knows none.
    'Scripted' and the unknown have none: they never count as distinct."""
    if provider_type == "Scripted":
        return ""
    name = model.lower().rsplit("/", 1)[-1]
    for pattern, family in _FAMILIES:
        if re.match(pattern, name):
            return family
    return declared or ""
