"""The unmodified OpenAI SDK against the simulator, in both of its formats."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionFunctionToolParam
from openai.types.responses import FunctionToolParam, Response

from simulator.faults import STATUSES

SCENARIO = """
name: openai
rules:
  - id: vote
    when: {wire: openai-*, schema: [Vote, digest], last_user: 're:digest (?P<digest>[0-9a-f]{6})'}
    reply: {json: {digest: '${digest}', approve: false}}
    usage: {input: 1200, output: 300, cached_input: 1000, reasoning: 40}
  - id: call
    when: {tools_include: bash, turn: 0}
    reply: {tool_calls: [{name: bash, arguments: {command: ls}}, {name: bash, arguments: {command: pwd}}]}
  - id: done
    when: {turn: 1, last_tool_result: ['README', '/work']}
    reply: {text: 'Saw ${last_tool_result}'}
  - {id: refused, when: {last_user: forbidden}, reply: {refusal: I will not.}}
  - {id: short, when: {last_user: long}, reply: {text: And so, stop: length}}
  - id: broken-call
    when: {last_user: broken call}
    reply: {tool_calls: [{name: bash, arguments: {a: 1}}], fault: {truncated_args: true}}
  - {id: echo, when: {last_user: who}, reply: {text: me}, model_echo: gpt-other}
  - {id: plain, when: {system: be brief, last_user: hello}, usage: {input: 10, output: 2}, reply: {text: Hello!}}
"""
PARAMETERS: dict[str, object] = {"type": "object", "properties": {"command": {"type": "string"}}}
CHAT_BASH: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {"name": "bash", "parameters": PARAMETERS},
}
BASH: FunctionToolParam = {"type": "function", "name": "bash", "parameters": PARAMETERS, "strict": False}


def client_of(url: str, prefix: str = "/v1") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="canary-key", base_url=url + prefix, max_retries=0, timeout=20)


@pytest.fixture(params=["/v1", ""], ids=["openai", "deepseek"])
async def client(simulate: Any, request: pytest.FixtureRequest) -> AsyncIterator[openai.AsyncOpenAI]:
    """With the base URL of OpenAI, and without its prefix as DeepSeek has it."""
    simulated = await simulate(SCENARIO)
    async with client_of(simulated.url, request.param) as client:
        yield client


async def chat(client: openai.AsyncOpenAI, text: str, **more: Any) -> ChatCompletion:
    answer = await client.chat.completions.create(
        model="gpt-x", messages=[{"role": "developer", "content": "be brief"}, {"role": "user", "content": text}], **more
    )
    assert isinstance(answer, ChatCompletion)
    return answer


async def respond(client: openai.AsyncOpenAI, text: str, **more: Any) -> Response:
    answer = await client.responses.create(model="gpt-x", instructions="be brief", input=text, **more)
    assert isinstance(answer, Response)
    return answer


async def test_chat_create(client: openai.AsyncOpenAI) -> None:
    answer = await chat(client, "hello")
    ChatCompletion.model_validate(answer.model_dump(), strict=True)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hello!", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (10, 2, 12)
    assert answer._request_id is not None


async def test_responses_create(client: openai.AsyncOpenAI) -> None:
    answer = await respond(client, "hello")
    Response.model_validate(answer.model_dump(), strict=True)
    assert (answer.output_text, answer.status, answer.model) == ("Hello!", "completed", "gpt-x")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (10, 2, 12)


async def test_chat_structured_output(client: openai.AsyncOpenAI, vote: Any) -> None:
    answer = await client.chat.completions.parse(
        model="gpt-x", messages=[{"role": "user", "content": "vote on digest abc123"}], response_format=vote
    )
    assert answer.choices[0].message.parsed == vote(digest="abc123", approve=False)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.completion_tokens_details is not None
    assert (answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (1200, 1000)
    assert answer.usage.completion_tokens_details.reasoning_tokens == 40


async def test_responses_structured_output(client: openai.AsyncOpenAI, vote: Any) -> None:
    answer = await client.responses.parse(model="gpt-x", input="vote on digest abc123", text_format=vote)
    assert answer.output_parsed == vote(digest="abc123", approve=False)
    assert answer.usage is not None
    assert answer.usage.input_tokens_details.cached_tokens == 1000
    assert answer.usage.output_tokens_details.reasoning_tokens == 40


async def test_chat_tool_round_trip(client: openai.AsyncOpenAI) -> None:
    first = await chat(client, "look around", tools=[CHAT_BASH])
    assert first.choices[0].finish_reason == "tool_calls"
    message = first.choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    calls = [call for call in message.tool_calls if call.type == "function"]
    assert [json.loads(call.function.arguments) for call in calls] == [{"command": "ls"}, {"command": "pwd"}]
    conversation: list[Any] = [
        {"role": "user", "content": "look around"},
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": calls[0].id, "content": "README"},
        {"role": "tool", "tool_call_id": calls[1].id, "content": [{"type": "text", "text": "/work"}]},
    ]
    second = await client.chat.completions.create(model="gpt-x", tools=[CHAT_BASH], messages=conversation)
    assert second.choices[0].message.content == "Saw README\n/work"


async def test_responses_tool_round_trip(client: openai.AsyncOpenAI) -> None:
    first = await respond(client, "look around", tools=[BASH])
    calls = [item for item in first.output if item.type == "function_call"]
    assert [json.loads(call.arguments) for call in calls] == [{"command": "ls"}, {"command": "pwd"}]
    conversation: list[Any] = [
        {"role": "user", "content": "look around"},
        *(item.model_dump(exclude_none=True) for item in first.output),
        {"type": "function_call_output", "call_id": calls[0].call_id, "output": "README"},
        {"type": "function_call_output", "call_id": calls[1].call_id, "output": "/work"},
    ]
    second = await client.responses.create(model="gpt-x", tools=[BASH], input=conversation)
    assert second.output_text == "Saw README\n/work"


async def test_chat_ways_to_stop(client: openai.AsyncOpenAI) -> None:
    assert (await chat(client, "forbidden")).choices[0].message.refusal == "I will not."
    assert (await chat(client, "long")).choices[0].finish_reason == "length"
    broken = (await chat(client, "broken call")).choices[0]
    assert broken.finish_reason == "length"
    assert broken.message.tool_calls is not None
    assert broken.message.tool_calls[0].type == "function"
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken.message.tool_calls[0].function.arguments)
    assert (await chat(client, "who")).model == "gpt-other"


async def test_responses_ways_to_stop(client: openai.AsyncOpenAI) -> None:
    refused = (await respond(client, "forbidden")).output[0]
    assert refused.type == "message"
    assert refused.content[0].type == "refusal"
    short = await respond(client, "long")
    assert short.status == "incomplete"
    assert short.incomplete_details is not None
    assert short.incomplete_details.reason == "max_output_tokens"
    broken = (await respond(client, "broken call")).output[0]
    assert broken.type == "function_call"
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken.arguments)


async def test_no_rule_matches_and_streams_are_refused(client: openai.AsyncOpenAI) -> None:
    for ask in (chat, respond):
        with pytest.raises(openai.BadRequestError, match="no rule matches"):
            await ask(client, "something else")
        with pytest.raises(openai.BadRequestError, match="streaming is not simulated"):
            await ask(client, "hello", stream=True)


CLASSES: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    429: openai.RateLimitError,
}


@pytest.mark.parametrize("status", STATUSES)
async def test_error_classes(simulate: Any, status: int) -> None:
    simulated = await simulate(f"name: s\nrules: [{{id: r, reply: {{fault: {{status: {status}}}}}}}]")
    expected = CLASSES.get(status, openai.InternalServerError if status >= 500 else openai.APIStatusError)
    async with client_of(simulated.url) as client:
        for ask in (chat, respond):
            with pytest.raises(openai.APIStatusError) as caught:
                await ask(client, "x")
            assert type(caught.value) is expected
            assert caught.value.status_code == status
            assert caught.value.type is not None
            assert "retry-after" not in caught.value.response.headers


@pytest.mark.parametrize("fault", ["{cut: true}", "{hang: 0.1}"])
async def test_lost_connections(simulate: Any, fault: str) -> None:
    simulated = await simulate(f"name: s\nrules: [{{id: r, reply: {{fault: {fault}}}}}]")
    async with client_of(simulated.url) as client:
        for ask in (chat, respond):
            with pytest.raises(openai.APIConnectionError):
                await ask(client, "x")


async def test_garbage(simulate: Any) -> None:
    simulated = await simulate("name: s\nrules: [{id: r, reply: {fault: {garbage: true}}}]")
    async with client_of(simulated.url) as client:
        for ask in (chat, respond):
            with pytest.raises((openai.APIResponseValidationError, ValueError)):
                await ask(client, "x")
