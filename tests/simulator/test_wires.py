"""What each wire refuses, as its vendor would. What they accept is in the contract tests with the SDKs."""

import json
import random
from typing import Any

import pytest

from simulator.app import App
from simulator.http1 import Head
from simulator.model import BadRequest, WireName
from simulator.scenario import load
from simulator.wire import anthropic, gemini, openai_chat, openai_responses, route


@pytest.mark.parametrize(
    ("path", "wire"),
    [
        ("/v1/messages", "anthropic"),
        ("/anthropic/v1/messages", "anthropic"),
        ("/v1/chat/completions", "openai-chat"),
        ("/chat/completions", "openai-chat"),
        ("/v1/responses", "openai-responses"),
        ("/responses", "openai-responses"),
        ("/v1/models/gemini-3-pro:generateContent", "gemini"),
        ("/v1beta/models/gemini-3-pro:generateContent", "gemini"),
    ],
)
def test_paths(path: str, wire: WireName) -> None:
    found = route(path)
    assert found is not None
    assert found.wire.NAME == wire
    assert found.model == ("gemini-3-pro" if wire == "gemini" else "")


@pytest.mark.parametrize("path", ["/", "/v1/message", "/v2/responses", "/x/v1/messages", "/v1/models/a/b:generateContent"])
def test_other_paths_belong_to_no_wire(path: str) -> None:
    assert route(path) is None


USER = {"role": "user", "content": "hi"}
USE = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"stream": True}, "streaming"),
        ({"max_tokens": None}, "max_tokens"),
        ({"model": None}, "model"),
        ({"messages": []}, "at least one message"),
        ({"messages": "hi"}, "messages: expected an array"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role"),
        ({"messages": [USER, USE]}, "tool call 't1' has no result"),
        ({"messages": [USER, USE, USER]}, "has no result before the next message"),
        (
            {"messages": [USER, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "no"}]}]},
            "no preceding tool call",
        ),
        (
            {
                "messages": [
                    USER,
                    USE,
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "a"}, {"type": "tool_result", "tool_use_id": "t1"}],
                    },
                ]
            },
            "must come before text",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "'video' is not simulated"),
    ],
)
def test_anthropic_refuses(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadRequest, match=complaint):
        anthropic.parse({"model": "m", "max_tokens": 9, "messages": [USER], **changes}, "")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"stream": True}, "streaming"),
        ({"n": 2}, "n: only 1"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "'bot' is not a role"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, USER]}, "tool call 'c1' has no result"),
        ({"messages": [USER, {"role": "tool", "tool_call_id": "c1", "content": "x"}]}, "no preceding tool call"),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]}]},
            "not a JSON object in a string",
        ),
    ],
)
def test_openai_chat_refuses(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadRequest, match=complaint):
        openai_chat.parse({"model": "m", "messages": [USER], **changes}, "")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"stream": True}, "streaming"),
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "send the whole conversation"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "no preceding tool call"),
        ({"input": [{"type": "computer_call"}]}, "'computer_call' is not simulated"),
        ({"input": None}, "input: expected an array"),
    ],
)
def test_openai_responses_refuses(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadRequest, match=complaint):
        openai_responses.parse({"model": "m", "input": "hi", **changes}, "")


def function_call(**more: str) -> dict[str, Any]:
    return {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}, **more}]}


ASKED = {"role": "user", "parts": [{"text": "hi"}]}
RESULT = {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "x"}}}]}


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        ([], "at least one message"),
        ([{"role": "assistant", "parts": [{"text": "x"}]}], "expected user or model"),
        ([ASKED, function_call(), RESULT], "missing a thought_signature"),
        ([ASKED, function_call(thoughtSignature="eA=="), ASKED], "tool call 'f' has no result"),
        ([ASKED, RESULT], "no preceding tool call"),
        ([{"role": "user", "parts": "hi"}], "expected an array"),
    ],
)
def test_gemini_refuses(contents: list[Any], complaint: str) -> None:
    with pytest.raises(BadRequest, match=complaint):
        gemini.parse({"contents": contents}, "gemini-3-pro")


def test_older_gemini_models_need_no_signature_and_calls_without_id_pair_by_name() -> None:
    seen = gemini.parse({"contents": [ASKED, function_call(), RESULT]}, "gemini-2.5-pro")
    assert (seen.turn, seen.last_tool_result) == (1, "x")


def test_a_tool_result_that_is_not_plain_text_is_seen_as_json() -> None:
    result = {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"exit": 1, "log": "no"}}}]}
    seen = gemini.parse({"contents": [ASKED, function_call(), result]}, "gemini-2.5-pro")
    assert seen.last_tool_result == '{"exit": 1, "log": "no"}'


SCENARIO = load(
    "name: s\nrules: [{id: v, when: {schema: x, any_text: '0'}, reply: {text: '${last_user}'}}, {id: r, reply: {text: hi}}]"
)
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/messages": {
        "model": "m",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "s"}],
        "messages": [
            USER,
            USE,
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "x"}]}],
            },
        ],
        "tools": [{"name": "f", "input_schema": {}}],
        "output_config": {"format": {"type": "json_schema", "schema": {"title": "x", "properties": {"a": {}}}}},
    },
    "/v1/chat/completions": {
        "model": "m",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "x"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": {}}}},
    },
    "/v1/responses": {
        "model": "m",
        "instructions": "s",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "x"},
        ],
        "tools": [{"type": "function", "name": "f"}],
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {"properties": {}}}},
    },
    "/v1/models/gemini-3-pro:generateContent": {
        "systemInstruction": {"parts": [{"text": "s"}]},
        "contents": [ASKED, function_call(thoughtSignature="eA=="), RESULT],
        "tools": [{"functionDeclarations": [{"name": "f"}]}],
        "generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": {"title": "x", "properties": {}}},
    },
}
JUNK: tuple[Any, ...] = (None, True, 0, -1.5, "", "0", "\ud800", [], [[]], {}, {"type": []}, {"text": {}}, [None], [{"role": {}}])


def mutated(value: Any, at: random.Random) -> Any:
    """The value with one of its parts, or itself, replaced by something senseless."""
    if isinstance(value, dict) and value and at.random() < 0.9:
        key = at.choice(list(value))
        return {**value, key: mutated(value[key], at)}
    if isinstance(value, list) and value and at.random() < 0.9:
        place = at.randrange(len(value))
        return [*value[:place], mutated(value[place], at), *value[place + 1 :]]
    return at.choice(JUNK)


@pytest.mark.parametrize("path", REQUESTS)
def test_whatever_is_sent_is_answered_or_refused_in_the_vendors_words(path: str) -> None:
    app = App(SCENARIO)
    head = Head("POST", path, has_query_key=False, headers={"x-api-key": "k"})
    assert app.handle(head, json.dumps(REQUESTS[path]).encode()).status == 200
    at = random.Random(path)
    for _ in range(3000):
        body = json.dumps(mutated(REQUESTS[path], at)).encode()
        outcome = app.handle(head, body)
        assert outcome.status in (200, 400), body
        assert json.loads(outcome.body)
