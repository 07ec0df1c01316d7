"""The unmodified Anthropic SDK against the simulator: its own types, its own errors."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, ToolParam

from simulator.faults import STATUSES

SCENARIO = """
name: anthropic
rules:
  - id: vote
    when: {wire: anthropic, schema: approve, last_user: 're:digest (?P<digest>[0-9a-f]{6})'}
    reply: {json: {digest: '${digest}', approve: true}}
    usage: {input: 1200, output: 300, cached_input: 1000, reasoning: 40}
  - id: call
    when: {tools_include: bash, turn: 0}
    reply:
      text: Looking.
      tool_calls: [{name: bash, arguments: {command: ls}}, {name: bash, arguments: {command: pwd}}]
  - id: done
    when: {turn: 1, last_tool_result: ['README', '/work']}
    reply: {text: 'Saw ${last_tool_result}'}
  - {id: refused, when: {last_user: forbidden}, reply: {refusal: I will not.}}
  - {id: short, when: {last_user: long}, reply: {text: And so, stop: length}}
  - id: broken-call
    when: {last_user: broken call}
    reply: {tool_calls: [{name: bash, arguments: {a: 1, b: 2}}], fault: {truncated_args: true}}
  - {id: echo, when: {last_user: who}, reply: {text: me}, model_echo: deepseek-chat}
  - {id: plain, when: {system: be brief, last_user: hello}, usage: {input: 10, output: 2}, reply: {text: Hello!}}
  - {id: violation, when: {schema: true}, reply: {fault: {schema_violation: true}}}
"""
BASH: ToolParam = {"name": "bash", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}}}


def client_of(url: str) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(api_key="canary-key", base_url=url, max_retries=0, timeout=20)


@pytest.fixture
async def client(simulate: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    simulated = await simulate(SCENARIO)
    async with client_of(simulated.url) as client:
        yield client


async def ask(client: anthropic.AsyncAnthropic, text: str, **more: Any) -> Message:
    answer = await client.messages.create(model="claude-x", max_tokens=100, messages=[{"role": "user", "content": text}], **more)
    assert isinstance(answer, Message)
    return answer


async def test_create(client: anthropic.AsyncAnthropic) -> None:
    answer = await ask(client, "hello", system="be brief")
    Message.model_validate(answer.model_dump(), strict=True)
    assert [block.text for block in answer.content if block.type == "text"] == ["Hello!"]
    assert (answer.role, answer.stop_reason, answer.model) == ("assistant", "end_turn", "claude-x")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (10, 2)
    assert answer.id.startswith("msg_")
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


async def test_structured_output(client: anthropic.AsyncAnthropic, vote: Any) -> None:
    answer = await client.messages.parse(
        model="claude-x",
        max_tokens=100,
        messages=[{"role": "user", "content": "vote on digest abc123"}],
        output_format=vote,
    )
    assert answer.parsed_output == vote(digest="abc123", approve=True)
    # The vendor's total input is the sum of its parts.
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (200, 1000, 300)
    assert usage.output_tokens_details is not None
    assert usage.output_tokens_details.thinking_tokens == 40


async def test_tool_round_trip(client: anthropic.AsyncAnthropic) -> None:
    first = await ask(client, "look around", tools=[BASH])
    uses = [block for block in first.content if block.type == "tool_use"]
    assert first.stop_reason == "tool_use"
    assert [use.input for use in uses] == [{"command": "ls"}, {"command": "pwd"}]
    results: list[Any] = [
        {"type": "tool_result", "tool_use_id": uses[0].id, "content": "README"},
        {"type": "tool_result", "tool_use_id": uses[1].id, "content": [{"type": "text", "text": "/work"}]},
    ]
    second = await client.messages.create(
        model="claude-x",
        max_tokens=100,
        tools=[BASH],
        messages=[
            {"role": "user", "content": "look around"},
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": results},
        ],
    )
    assert [block.text for block in second.content if block.type == "text"] == ["Saw README\n/work"]


async def test_the_same_request_gets_the_same_answer_elsewhere(client: anthropic.AsyncAnthropic, simulate: Any) -> None:
    elsewhere = await simulate(SCENARIO)
    async with client_of(elsewhere.url) as other:
        assert await ask(client, "who", system="s") == await ask(other, "who", system="s")


async def test_ways_to_stop(client: anthropic.AsyncAnthropic) -> None:
    refused = await ask(client, "forbidden")
    assert (refused.stop_reason, refused.content) == ("refusal", [])
    assert refused.stop_details is not None
    assert refused.stop_details.explanation == "I will not."
    assert (await ask(client, "long")).stop_reason == "max_tokens"
    broken = await ask(client, "broken call")
    assert broken.stop_reason == "max_tokens"
    assert [block.input for block in broken.content if block.type == "tool_use"] == [{"a": 1}]
    assert (await ask(client, "who")).model == "deepseek-chat"


async def test_json_that_violates_the_schema(client: anthropic.AsyncAnthropic, vote: Any) -> None:
    answer = await ask(client, "x", output_config={"format": {"type": "json_schema", "schema": vote.model_json_schema()}})
    assert json.loads(answer.content[0].text if answer.content[0].type == "text" else "") == {"unexpected": "schema_violation"}


async def test_no_rule_matches(client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        await ask(client, "a" * 200 + " tail")
    assert caught.value.type == "invalid_request_error"
    message = str(caught.value.api_message)
    assert "no rule matches: scenario 'anthropic', wire anthropic, model claude-x" in message
    assert message.endswith("a" * 115 + " tail'")


async def test_streaming_is_refused_clearly(client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="streaming is not simulated"):
        await client.messages.create(model="claude-x", max_tokens=9, messages=[{"role": "user", "content": "hello"}], stream=True)


async def test_key_in_the_older_header(client: anthropic.AsyncAnthropic) -> None:
    headers = {"Authorization": anthropic.Omit(), "x-api-key": "canary-key"}
    answer = await ask(client, "hello", system="be brief", extra_headers=headers)
    assert answer.stop_reason == "end_turn"


CLASSES: dict[int, type[anthropic.APIStatusError]] = {
    400: anthropic.BadRequestError,
    401: anthropic.AuthenticationError,
    402: anthropic.APIStatusError,
    403: anthropic.PermissionDeniedError,
    404: anthropic.NotFoundError,
    408: anthropic.RequestTimeoutError,
    409: anthropic.ConflictError,
    413: anthropic.ContentTooLargeError,
    429: anthropic.RateLimitError,
    500: anthropic.InternalServerError,
    502: anthropic.InternalServerError,
    503: anthropic.ServiceUnavailableError,
    504: anthropic.GatewayTimeoutError,
    529: anthropic.OverloadedError,
}


@pytest.mark.parametrize("status", STATUSES)
async def test_error_classes(simulate: Any, status: int) -> None:
    simulated = await simulate(f"name: s\nrules: [{{id: r, reply: {{fault: {{status: {status}, retry_after: 1.5}}}}}}]")
    async with client_of(simulated.url) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await ask(client, "x")
    assert isinstance(caught.value, CLASSES[status])
    assert caught.value.status_code == status
    assert caught.value.response.headers["retry-after"] == "1.5"
    assert caught.value.type is not None
    assert caught.value.request_id is not None


@pytest.mark.parametrize("fault", ["{cut: true}", "{hang: 0.1}"])
async def test_lost_connections(simulate: Any, fault: str) -> None:
    simulated = await simulate(f"name: s\nrules: [{{id: r, reply: {{fault: {fault}}}}}]")
    async with client_of(simulated.url) as client:
        with pytest.raises(anthropic.APIConnectionError):
            await ask(client, "x")


async def test_a_hanging_call_runs_into_the_callers_timeout(simulate: Any) -> None:
    simulated = await simulate("name: s\nrules: [{id: r, reply: {fault: {hang: 30}}}]")
    async with client_of(simulated.url) as client:
        with pytest.raises(anthropic.APITimeoutError):
            await ask(client, "x", timeout=0.3)


async def test_garbage(simulate: Any) -> None:
    simulated = await simulate("name: s\nrules: [{id: r, reply: {fault: {garbage: true}}}]")
    async with client_of(simulated.url) as client:
        with pytest.raises((anthropic.APIResponseValidationError, ValueError)):
            await ask(client, "x")


async def test_the_sdks_own_retries_see_first_faults(simulate: Any) -> None:
    simulated = await simulate("""
name: s
rules: [{id: r, reply: {text: hi}, faults_first: [{status: 429, retry_after: 0}, {status: 529, retry_after: 0}]}]
""")
    async with client_of(simulated.url).with_options(max_retries=2) as client:
        assert (await ask(client, "x")).stop_reason == "end_turn"
    assert [call["status"] for call in await simulated.calls()] == [429, 529, 200]
    assert (await simulated.counts())["billed"] == 1
