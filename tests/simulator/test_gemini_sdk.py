"""The unmodified google-genai SDK against the simulator."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from google import genai
from google.genai import errors, types
from google.genai.client import AsyncClient

from simulator.faults import STATUSES

SCENARIO = """
name: gemini
rules:
  - id: vote
    when: {wire: gemini, schema: [Vote, digest], last_user: 're:digest (?P<digest>[0-9a-f]{6})'}
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
    reply: {tool_calls: [{name: bash, arguments: {a: 1}}], fault: {truncated_args: true}}
  - {id: echo, when: {last_user: who}, reply: {text: me}, model_echo: gemini-other}
  - {id: plain, when: {model: gemini-*, system: be brief, last_user: hello}, usage: {input: 10, output: 2}, reply: {text: Hello!}}
"""
MODEL = "gemini-3-pro"
BASH = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="bash",
            parameters_json_schema={"type": "object", "properties": {"command": {"type": "string"}}},
        )
    ]
)


@asynccontextmanager
async def client_of(url: str, version: str | None = None) -> AsyncIterator[AsyncClient]:
    # The client is handed in, as the broker does: without one the SDK takes aiohttp wherever that happens to be installed.
    async with httpx2.AsyncClient() as http:
        options = types.HttpOptions(base_url=url, api_version=version, timeout=20_000, httpx_async_client=http)
        with genai.Client(api_key="canary-key", vertexai=False, http_options=options) as client:
            async with client.aio as aio:
                yield aio


@pytest.fixture(params=[None, "v1beta"], ids=["default", "v1beta"])
async def client(simulate: Any, request: pytest.FixtureRequest) -> AsyncIterator[AsyncClient]:
    simulated = await simulate(SCENARIO)
    async with client_of(simulated.url, request.param) as client:
        yield client


async def ask(client: AsyncClient, contents: Any, **config: Any) -> types.GenerateContentResponse:
    given = types.GenerateContentConfig(system_instruction="be brief", **config)
    return await client.models.generate_content(model=MODEL, contents=contents, config=given)


def candidate_of(answer: types.GenerateContentResponse) -> types.Candidate:
    assert answer.candidates is not None
    return answer.candidates[0]


async def test_generate(client: AsyncClient) -> None:
    answer = await ask(client, "hello")
    assert (answer.text, answer.model_version) == ("Hello!", MODEL)
    assert answer.response_id
    assert candidate_of(answer).finish_reason is types.FinishReason.STOP
    usage = answer.usage_metadata
    assert usage is not None
    assert (usage.prompt_token_count, usage.candidates_token_count, usage.total_token_count) == (10, 2, 12)


@pytest.mark.parametrize("style", ["response_schema", "response_json_schema"])
async def test_structured_output(client: AsyncClient, vote: Any, style: str) -> None:
    schema = vote if style == "response_schema" else vote.model_json_schema()
    config: dict[str, Any] = {"response_mime_type": "application/json", style: schema}
    answer = await ask(client, "vote on digest abc123", **config)
    assert vote.model_validate_json(answer.text or "") == vote(digest="abc123", approve=True)
    if style == "response_schema":
        assert answer.parsed == vote(digest="abc123", approve=True)
    usage = answer.usage_metadata
    assert usage is not None
    # Thoughts are counted beside the candidates, not in them.
    assert (usage.candidates_token_count, usage.thoughts_token_count) == (260, 40)
    assert (usage.prompt_token_count, usage.cached_content_token_count) == (1200, 1000)
    assert usage.total_token_count == 1500


async def test_tool_round_trip(client: AsyncClient) -> None:
    first = await ask(client, "look around", tools=[BASH])
    assert first.function_calls is not None
    assert [call.args for call in first.function_calls] == [{"command": "ls"}, {"command": "pwd"}]
    answered = candidate_of(first).content
    assert answered is not None
    results = [
        types.Part(function_response=types.FunctionResponse(id=call.id, name=call.name, response={"output": output}))
        for call, output in zip(first.function_calls, ("README", "/work"), strict=True)
    ]
    asked = types.Content(role="user", parts=[types.Part(text="look around")])
    second = await ask(client, [asked, answered, types.Content(role="user", parts=results)], tools=[BASH])
    assert second.text == "Saw README\n/work"
    stripped = types.Content(role="model", parts=[types.Part(function_call=call) for call in first.function_calls])
    with pytest.raises(errors.ClientError, match="missing a thought_signature"):
        await ask(client, [asked, stripped, types.Content(role="user", parts=results)], tools=[BASH])


async def test_ways_to_stop(client: AsyncClient) -> None:
    refused = candidate_of(await ask(client, "forbidden"))
    # The vendor sends a finishMessage too, which this SDK drops.
    assert refused.finish_reason is types.FinishReason.SAFETY
    assert refused.content is not None
    assert not refused.content.parts
    assert candidate_of(await ask(client, "long")).finish_reason is types.FinishReason.MAX_TOKENS
    broken = candidate_of(await ask(client, "broken call"))
    assert broken.finish_reason is types.FinishReason.MALFORMED_FUNCTION_CALL
    assert (await ask(client, "who")).model_version == "gemini-other"


async def test_no_rule_matches_and_streams_are_refused(client: AsyncClient) -> None:
    with pytest.raises(errors.ClientError, match=r"no rule matches: .* wire gemini, model gemini-3-pro") as caught:
        await ask(client, "something else")
    assert caught.value.status == "INVALID_ARGUMENT"
    with pytest.raises(errors.ClientError, match="streaming is not simulated"):
        async for _ in await client.models.generate_content_stream(model=MODEL, contents="hello"):
            pass


@pytest.mark.parametrize("status", STATUSES)
async def test_error_classes(simulate: Any, status: int) -> None:
    simulated = await simulate(f"name: s\nrules: [{{id: r, reply: {{fault: {{status: {status}, retry_after: 2}}}}}}]")
    async with client_of(simulated.url) as client:
        with pytest.raises(errors.APIError) as caught:
            await ask(client, "x")
    assert type(caught.value) is (errors.ServerError if status >= 500 else errors.ClientError)
    assert caught.value.code == status
    assert caught.value.status not in (None, "UNKNOWN") or status == 402
    assert caught.value.details["error"]["details"][0]["retryDelay"] == "2s"


@pytest.mark.parametrize("fault", ["{cut: true}", "{hang: 0.1}"])
async def test_lost_connections(simulate: Any, fault: str) -> None:
    simulated = await simulate(f"name: s\nrules: [{{id: r, reply: {{fault: {fault}}}}}]")
    async with client_of(simulated.url) as client:
        with pytest.raises(httpx2.TransportError):
            await ask(client, "x")


async def test_garbage(simulate: Any) -> None:
    simulated = await simulate("name: s\nrules: [{id: r, reply: {fault: {garbage: true}}}]")
    async with client_of(simulated.url) as client:
        with pytest.raises((errors.UnknownApiResponseError, ValueError)):
            await ask(client, "x")
