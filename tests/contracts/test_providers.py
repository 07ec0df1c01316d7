"""One suite for every provider: the four that go through a vendor's SDK, against the model simulator, and Scripted.

What is promised to the broker is the same for all: neutral parts, summed usage, the model echoed, failures told apart.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest
import yaml

import simulator.server
from folkmoot_core.calls import (
    Message,
    ModelRequest,
    ModelResult,
    OpaquePart,
    OutputSchema,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
)
from folkmoot_core.resources.tenant import ProviderSpec
from folkmoot_runtime.broker.providers.interface import Provider, ProviderError
from folkmoot_runtime.broker.providers.registry import Files, Registry
from simulator.app import App
from simulator.scenario import load

pytestmark = pytest.mark.contract

MODEL = "gemini-3-x"  # Google's wire takes the name from the path; from 3 on the simulator demands signatures back
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"approve": {"type": "boolean"}, "why": {"type": "string"}},
    "required": ["approve", "why"],
    "additionalProperties": False,
}
BASH = ToolSpec(name="bash", description="Run.", input_schema={"type": "object", "properties": {"command": {"type": "string"}}})
SDK_TYPES = ("Anthropic", "OpenAI", "Google", "DeepSeek", "Mistral", "OpenAICompatible")
RULES: list[dict[str, Any]] = [
    {"id": "plain", "when": {"last_user": "plain"}, "reply": {"text": "Hello there."},
     "usage": {"input": 100, "output": 20, "cached_input": 40, "reasoning": 5}},
    {"id": "schema", "when": {"last_user": "judge", "schema": True}, "reply": {"json": {"approve": True, "why": "sound"}}},
    {"id": "tool-1", "when": {"last_user": "count", "has_tool_result": False, "tools_include": "bash"},
     "reply": {"text": "Let me look.", "tool_calls": [{"name": "bash", "arguments": {"command": "ls | wc -l"}},
                                                      {"name": "bash", "arguments": {"command": "pwd"}}]}},
    {"id": "tool-2", "when": {"last_user": "count", "last_tool_result": "7"}, "reply": {"text": "There are 7."}},
    {"id": "refuse", "when": {"last_user": "forbidden"}, "reply": {"refusal": "I will not."}},
    {"id": "long", "when": {"last_user": "long"}, "reply": {"text": "and so on", "stop": "length"}},
    {"id": "echo", "when": {"last_user": "who"}, "reply": {"text": "me"}, "model_echo": "deepseek-v9"},
    {"id": "limited", "when": {"last_user": "limited"}, "reply": {"text": "ok"},
     "faults_first": [{"status": 429, "retry_after": 7}]},
    *({"id": f"status-{code}", "when": {"last_user": f"status {code}."}, "reply": {"fault": {"status": code}}}
      for code in (400, 401, 403, 404, 408, 413, 500, 503, 529)),
    {"id": "hang", "when": {"last_user": "hang"}, "reply": {"fault": {"hang": 600}}},
    {"id": "cut", "when": {"last_user": "cut"}, "reply": {"text": "half", "fault": {"cut": True}}},
    {"id": "garbage", "when": {"last_user": "garbage"}, "reply": {"text": "x", "fault": {"garbage": True}}},
    {"id": "broken", "when": {"last_user": "broken"},
     "reply": {"tool_calls": [{"name": "bash", "arguments": {"command": "echo 1234567890"}}], "fault": {"truncated_args": True}}},
]  # fmt: skip


@dataclass
class Subject:
    type: str
    provider: Provider

    @property
    def scripted(self) -> bool:
        return self.type == "Scripted"


def ask(text: str, **changes: Any) -> ModelRequest:
    fields: dict[str, Any] = {"messages": (Message(role="user", parts=(TextPart(text=text),)),), "max_output_tokens": 500}
    return ModelRequest(**{**fields, **changes})


def words(result: ModelResult) -> str:
    return "".join(part.text for part in result.parts if isinstance(part, TextPart))


@pytest.fixture
async def sim() -> AsyncIterator[int]:
    async with simulator.server.Server(App(load(yaml.safe_dump({"name": "contract", "rules": RULES})))) as server:
        yield server.port


def script() -> str:
    """The same rules in Scripted's own words."""
    rules = []
    for rule in RULES:
        reply, when = dict(rule["reply"]), dict(rule["when"])
        fault = reply.pop("fault", {})
        reply.pop("stop", None)
        when.pop("tools_include", None)
        faults = [f["status"] for f in rule.get("faults_first", [])] + ([fault["status"]] * 99 if "status" in fault else [])
        rules.append({"when": when, "reply": reply, "faults": faults, "delay": fault.get("hang", 0)})
    return yaml.safe_dump({"rules": rules})


@pytest.fixture(params=[*SDK_TYPES, "Scripted"])
async def subject(request: pytest.FixtureRequest, sim: int, tmp_path: Any) -> AsyncIterator[Subject]:
    kind = request.param
    files = Files(tmp_path / "keys", tmp_path / "ca", tmp_path / "scripts")
    (files.keys / "p").mkdir(parents=True)
    (files.keys / "p" / "key").write_text("canary-key\n")
    (files.scripts / "p").mkdir(parents=True)
    (files.scripts / "p" / "script.yaml").write_text(script())
    base = f"http://127.0.0.1:{sim}" + ("" if kind in ("Anthropic", "Google") else "/v1")
    registry = Registry(files)
    async with registry.use(ProviderSpec(name="p", type=kind, base_url=base, timeout="5s")) as provider:
        yield Subject(kind, provider)
    await registry.aclose()


sdk_only = pytest.mark.parametrize("subject", SDK_TYPES, indirect=True)


async def fails(subject: Subject, text: str, timeout: float = 5.0) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await subject.provider.complete(MODEL, ask(text), timeout)
    assert "canary-key" not in caught.value.message
    assert len(caught.value.message) <= 200
    return caught.value


async def test_plain_text(subject: Subject) -> None:
    result = await subject.provider.complete(MODEL, ask("plain", system="Be brief."), 5.0)
    assert words(result) == "Hello there."
    assert result.stop == "end"
    assert result.model_observed == MODEL


@sdk_only
async def test_usage_is_the_total_with_cached_input_and_reasoning_included(subject: Subject) -> None:
    usage = (await subject.provider.complete(MODEL, ask("plain"), 5.0)).usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens) == (100, 20, 40)


async def test_structured_output_fits_its_schema(subject: Subject) -> None:
    request = ask("judge", output=OutputSchema(name="verdict", json_schema=SCHEMA))
    result = await subject.provider.complete(MODEL, request, 5.0)
    jsonschema.validate(json.loads(words(result)), SCHEMA)
    assert result.stop == "end"


async def test_a_tool_call_goes_round(subject: Subject) -> None:
    first = await subject.provider.complete(MODEL, ask("count", tools=(BASH,)), 5.0)
    calls = [part for part in first.parts if isinstance(part, ToolCallPart)]
    assert first.stop == "tool_use"
    assert [call.arguments for call in calls] == [{"command": "ls | wc -l"}, {"command": "pwd"}]
    assert len({call.id for call in calls}) == 2
    # What came back is stored and sent again as JSON, like the agent does: nothing may be lost on that way.
    kept = ModelResult.model_validate_json(first.model_dump_json())
    results = tuple(
        ToolResultPart(id=call.id, name=call.name, text=text, error=text != "7")
        for call, text in zip(calls, ("7", "/x"), strict=True)
    )
    messages = (
        *ask("count").messages,
        Message(role="assistant", parts=kept.parts),
        Message(role="tool", parts=results[:1]),
        Message(role="tool", parts=results[1:]),
    )
    second = await subject.provider.complete(MODEL, ask("", messages=messages, tools=(BASH,)), 5.0)
    assert words(second) == "There are 7."


async def test_a_refusal_is_an_answer(subject: Subject) -> None:
    result = await subject.provider.complete(MODEL, ask("forbidden"), 5.0)
    assert result.stop == "refusal"
    if subject.type != "Google":  # the SDK drops the vendor's sentence on its way
        assert "I will not." in words(result)


@sdk_only
async def test_the_output_limit_is_told(subject: Subject) -> None:
    result = await subject.provider.complete(MODEL, ask("long"), 5.0)
    assert (result.stop, words(result)) == ("max_tokens", "and so on")


@sdk_only
async def test_the_model_that_answered_is_recorded_not_the_one_asked_for(subject: Subject) -> None:
    assert (await subject.provider.complete(MODEL, ask("who"), 5.0)).model_observed == "deepseek-v9"


async def test_a_rate_limit_carries_when_to_come_back_and_passes(subject: Subject) -> None:
    error = await fails(subject, "limited")
    assert (error.fault, error.status) == ("status", 429)
    assert error.retry_after == (None if subject.scripted else 7.0)
    assert words(await subject.provider.complete(MODEL, ask("limited"), 5.0)) == "ok"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 500, 503, 529])
async def test_errors_are_told_apart_by_status(subject: Subject, status: int) -> None:
    error = await fails(subject, f"status {status}.")
    assert (error.fault, error.status) == ("status", status)


async def test_silence_is_a_timeout_after_sending(subject: Subject) -> None:
    error = await fails(subject, "hang", timeout=0.2)
    assert (error.fault, error.sent) == ("timeout", True)


@sdk_only
async def test_a_cut_connection_is_a_lost_answer(subject: Subject) -> None:
    error = await fails(subject, "cut")
    assert (error.fault, error.sent) == ("lost", True)


@sdk_only
async def test_what_is_not_the_vendors_format_is_garbage(subject: Subject) -> None:
    error = await fails(subject, "garbage")
    assert (error.fault, error.sent) == ("garbage", True)


@sdk_only
async def test_tool_arguments_that_break_off_are_no_call(subject: Subject) -> None:
    result = await subject.provider.complete(MODEL, ask("broken", tools=(BASH,)), 5.0)
    assert result.stop in ("max_tokens", "other")
    calls = [part.arguments for part in result.parts if isinstance(part, ToolCallPart)]
    assert {"command": "echo 1234567890"} not in calls


@sdk_only
async def test_a_closed_port_proves_that_nothing_was_sent(
    request: pytest.FixtureRequest, subject: Subject, unused_tcp_port: int, tmp_path: Any
) -> None:
    registry = Registry(Files(tmp_path / "none", tmp_path / "none", tmp_path / "none"))
    spec = ProviderSpec(name="p", type=subject.type, base_url=f"http://127.0.0.1:{unused_tcp_port}", timeout="5s")  # type: ignore[arg-type]
    async with registry.use(spec) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.complete(MODEL, ask("plain"), 2.0)
    await registry.aclose()
    assert (caught.value.fault, caught.value.sent) == ("connect", False)


@sdk_only
async def test_a_part_of_another_vendor_is_refused_and_never_dropped(subject: Subject) -> None:
    alien = OpaquePart(provider_type="Elsewhere", value={"type": "thinking"})
    messages = (*ask("plain").messages, Message(role="assistant", parts=(alien,)), *ask("plain").messages)
    with pytest.raises(ProviderError) as caught:
        await subject.provider.complete(MODEL, ask("", messages=messages), 5.0)
    assert caught.value.status == 422


async def test_one_provider_serves_many_calls_at_once(subject: Subject) -> None:
    import asyncio

    results = await asyncio.gather(*(subject.provider.complete(MODEL, ask("plain"), 5.0) for _ in range(20)))
    assert {words(result) for result in results} == {"Hello there."}


Echo = Callable[[dict[str, Any]], ModelResult]


def test_anthropic_thinking_is_echoed_unchanged() -> None:
    from folkmoot_runtime.broker.providers import anthropic

    thinking = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    body = {"content": [thinking, {"type": "text", "text": "a"}], "stop_reason": "end_turn", "model": "m", "usage": {}}
    parts = anthropic.from_wire(body).parts
    request = ask("", messages=(Message(role="user", parts=(TextPart(text="q"),)), Message(role="assistant", parts=parts)))
    assert anthropic.to_wire("m", request)["messages"][1]["content"][0] == thinking


def test_openai_reasoning_is_echoed_when_it_can_be_and_asked_for_only_from_models_that_have_it() -> None:
    from folkmoot_runtime.broker.providers import openai

    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "zzz"}
    at_vendor = {"type": "reasoning", "id": "rs_2", "summary": []}
    text = {"type": "message", "content": [{"type": "output_text", "text": "a"}]}
    body = {"output": [reasoning, at_vendor, text], "status": "completed", "model": "m", "usage": {}, "error": None}
    parts = openai.from_wire(body).parts
    request = ask("", messages=(Message(role="user", parts=(TextPart(text="q"),)), Message(role="assistant", parts=parts)))
    items = openai.to_wire("gpt-6", request)["input"]
    assert items[1] == reasoning
    assert at_vendor not in items
    assert "include" in openai.to_wire("gpt-6", request)
    assert "include" in openai.to_wire("o5-mini", request)
    assert "include" not in openai.to_wire("gpt-4o", request)
    assert "include" not in openai.to_wire("gpt-5-chat-latest", request)


def test_a_response_that_failed_after_its_200_is_a_refusal_of_the_vendor() -> None:
    from folkmoot_runtime.broker.providers import openai

    with pytest.raises(ProviderError) as caught:
        openai.from_wire({"error": {"code": "rate_limit_exceeded", "message": "slow down"}})
    assert caught.value.status == 429


def test_deepseek_gets_the_schema_in_words_and_its_reasoning_back() -> None:
    from folkmoot_runtime.broker.providers import openai_chat

    request = ask("q", system="S.", output=OutputSchema(name="v", json_schema=SCHEMA))
    body = openai_chat.to_wire("deepseek-chat", request, schema_in_words=True)
    assert body["response_format"] == {"type": "json_object"}
    assert "JSON" in body["messages"][0]["content"]
    assert '"approve"' in body["messages"][0]["content"]
    message = {"content": "a", "reasoning_content": "because"}
    parts = openai_chat.from_wire({"choices": [{"message": message, "finish_reason": "stop"}], "model": "m"}).parts
    messages = (Message(role="user", parts=(TextPart(text="q"),)), Message(role="assistant", parts=parts))
    echoed = openai_chat.to_wire("m", ask("", messages=messages))["messages"][1]
    assert (echoed["reasoning_content"], echoed["content"]) == ("because", "a")


def test_a_blocked_prompt_is_googles_refusal() -> None:
    from folkmoot_runtime.broker.providers import google

    result = google.from_wire({"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": "m", "usageMetadata": {}})
    assert (result.stop, result.parts) == ("refusal", ())


@pytest.mark.parametrize("tokens", [-1, 10**13, "7", True])
def test_a_token_count_that_is_none_is_garbage(tokens: Any) -> None:
    from folkmoot_runtime.broker.providers import anthropic

    body = {"content": [], "stop_reason": "end_turn", "model": "m", "usage": {"input_tokens": tokens}}
    with pytest.raises(ProviderError) as caught:
        anthropic.from_wire(body)
    assert caught.value.fault == "garbage"
