"""Call keys and model families: what makes two calls the same, and which models count as distinct."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from folkmoot_core.calls import (
    CallEnvelope,
    Message,
    ModelRequest,
    OpaquePart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
    call_key,
    family_of,
)

texts = st.text(max_size=20)
values = st.recursive(st.none() | st.booleans() | st.integers() | texts, lambda inner: st.dictionaries(texts, inner, max_size=3))
objects = st.dictionaries(texts, values, max_size=3)
parts = st.one_of(
    st.builds(TextPart, text=texts),
    st.builds(ToolCallPart, id=texts, name=texts, arguments=objects),
    st.builds(ToolResultPart, id=texts, name=texts, text=texts, error=st.booleans()),
    st.builds(OpaquePart, provider_type=texts, value=objects),
)
messages = st.builds(Message, role=st.sampled_from(["user", "assistant", "tool"]), parts=st.lists(parts, max_size=3).map(tuple))
requests = st.builds(ModelRequest, system=texts, messages=st.lists(messages, max_size=3).map(tuple))


def call(**changes: Any) -> CallEnvelope:
    request = ModelRequest(messages=(Message(role="user", parts=(TextPart(text="hi"),)),))
    fields: dict[str, Any] = {"session": "s", "task": "s/t", "step": 0, "provider": "p", "model": "m", "request": request}
    return CallEnvelope(**{**fields, **changes})


@given(requests)
def test_a_call_read_back_from_the_wire_has_the_same_key(request: ModelRequest) -> None:
    sent = call(request=request)
    assert call_key("ana", CallEnvelope.model_validate_json(sent.model_dump_json())) == call_key("ana", sent)


@pytest.mark.parametrize(
    "changes",
    [{"session": "x"}, {"task": "s/x"}, {"step": 1}, {"provider": "x"}, {"model": "x"},
     {"request": ModelRequest(messages=(), max_output_tokens=7)}],
)  # fmt: skip
def test_whatever_differs_makes_another_key(changes: dict[str, Any]) -> None:
    assert call_key("ana", call(**changes)) != call_key("ana", call())


def test_another_agent_makes_another_key() -> None:
    assert call_key("ana", call()) != call_key("ben", call())
    assert call_key("ana", call()) == call_key("ana", call())


def test_unknown_parts_are_refused_not_dropped() -> None:
    with pytest.raises(ValidationError):
        Message.model_validate({"role": "user", "parts": [{"kind": "image", "data": ""}]})


def test_usage_adds_up() -> None:
    one = Usage(input_tokens=1, output_tokens=2, cached_input_tokens=3)
    assert one + one == Usage(input_tokens=2, output_tokens=4, cached_input_tokens=6)


@pytest.mark.parametrize(
    ("model", "declared", "provider_type", "family"),
    [
        ("claude-sonnet-5-5", None, "Anthropic", "claude"),
        ("anthropic/claude-x", None, "OpenAICompatible", "claude"),
        ("GPT-6-sol", None, "OpenAI", "gpt"),
        ("o5-mini", None, "OpenAI", "gpt"),
        ("gemini-3-pro", "mine", "Google", "gemini"),
        ("codestral-2", None, "Mistral", "mistral"),
        ("house-model", "qwen", "OpenAICompatible", "qwen"),
        ("house-model", None, "OpenAICompatible", ""),
        ("claude-x", "claude", "Scripted", ""),
        ("", None, "OpenAI", ""),
    ],
)
def test_families(model: str, declared: str | None, provider_type: str, family: str) -> None:
    assert family_of(model, declared, provider_type=provider_type) == family
