"""The server itself: keys, control, the oracle, and its bounds against bad callers."""

import asyncio
import json
import logging
from typing import Any

import httpx2
import pytest

from simulator.http1 import Limits

HELLO = """
name: hello
rules:
  - {id: slow, when: {last_user: slow}, reply: {text: hi}, delay: 0.3}
  - {id: cut, when: {last_user: cut}, reply: {text: hi, fault: {cut: true}}}
  - {id: hang, when: {last_user: hang}, reply: {fault: {hang: 20}}}
  - {id: busy, when: {last_user: busy}, reply: {fault: {status: 503}}}
  - {id: hi, when: {last_user: hello}, reply: {text: hi}}
"""
KEY = {"authorization": "Bearer canary-key"}


def body(text: str = "hello") -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


async def raw(port: int, request: bytes) -> bytes:
    """What comes back for bytes that no HTTP library would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("path", "find"),
    [
        ("/v1/messages", lambda error: error["error"]["type"] == "authentication_error"),
        ("/v1/chat/completions", lambda error: error["error"]["code"] == "invalid_api_key"),
        ("/v1/responses", lambda error: error["error"]["code"] == "invalid_api_key"),
        ("/v1beta/models/g:generateContent", lambda error: error["error"]["status"] == "UNAUTHENTICATED"),
    ],
)
async def test_some_key_is_required(simulate: Any, path: str, find: Any) -> None:
    simulated = await simulate(HELLO)
    for headers in ({}, {"authorization": "Bearer"}, {"authorization": "Basic eA=="}, {"x-api-key": ""}):
        answer = await simulated.control.post(path, json=body(), headers=headers)
        assert answer.status_code == 401
        assert find(answer.json())


@pytest.mark.parametrize("headers", [KEY, {"x-api-key": "canary-key"}, {"x-goog-api-key": "canary-key"}])
async def test_every_style_of_key_is_taken(simulate: Any, headers: dict[str, str]) -> None:
    simulated = await simulate(HELLO)
    assert (await simulated.control.post("/chat/completions", json=body(), headers=headers)).status_code == 200


async def test_geminis_key_in_the_query(simulate: Any) -> None:
    simulated = await simulate(HELLO)
    contents = {"contents": [{"parts": [{"text": "hello"}]}]}
    path = "/v1/models/g:generateContent"
    assert (await simulated.control.post(f"{path}?key=canary-key", json=contents)).status_code == 200
    assert (await simulated.control.post(f"{path}?key=", json=contents)).status_code == 401


async def test_neither_key_nor_text_is_logged_or_kept(simulate: Any, caplog: pytest.LogCaptureFixture) -> None:
    simulated = await simulate(HELLO)
    with caplog.at_level(logging.DEBUG):
        await simulated.control.post("/chat/completions?key=canary-key", json=body("hello canary-text"), headers=KEY)
        seen = json.dumps([await simulated.calls(), await simulated.counts()])
    assert "call n=1" in caplog.text
    ours = [record.getMessage() for record in caplog.records if record.name == "simulator"]
    assert "canary" not in seen + "".join(ours)


async def test_calls_and_counts(simulate: Any) -> None:
    simulated = await simulate(HELLO)
    for text in ("hello", "hello", "busy"):
        await simulated.control.post("/chat/completions", json=body(text), headers=KEY)
    with pytest.raises(httpx2.RemoteProtocolError):
        await simulated.control.post("/chat/completions", json=body("cut"), headers=KEY)
    await simulated.control.post("/chat/completions", json=body("unknown"), headers=KEY)
    calls = await simulated.calls()
    assert [(call["n"], call["rule"], call["status"]) for call in calls] == [
        (1, "hi", 200),
        (2, "hi", 200),
        (3, "busy", 503),
        (4, "cut", 200),
        (5, None, 400),
    ]
    assert [call["billed"] for call in calls] == [True, True, False, True, False]
    assert [call["delivered"] for call in calls] == [True, True, True, False, True]
    assert {call["wire"] for call in calls} == {"openai-chat"}
    counts = await simulated.counts()
    assert (counts["calls"], counts["billed"], counts["unmatched"]) == (5, 3, 1)
    assert counts["by_rule"] == {"hi": 2, "cut": 1}
    assert counts["by_request"] == {calls[0]["request_sha256"]: 2, calls[3]["request_sha256"]: 1}
    assert counts["matched_by_rule"] == {"hi": 2, "busy": 1, "cut": 1}
    assert (await simulated.control.post("/_sim/reset")).status_code == 200
    assert await simulated.calls() == []
    assert (await simulated.counts())["billed"] == 0


async def test_a_reply_is_billed_though_its_caller_has_gone_and_not_delivered(simulate: Any) -> None:
    simulated = await simulate(HELLO)
    content = json.dumps(body("slow")).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", simulated.port)
    writer.write(b"POST /chat/completions HTTP/1.1\r\nauthorization: Bearer k\r\n")
    writer.write(b"content-length: %d\r\n\r\n" % len(content) + content)
    await writer.drain()
    await asyncio.sleep(0.1)
    assert (await simulated.calls())[0]["status"] is None
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.4)
    (call,) = await simulated.calls()
    assert (call["billed"], call["delivered"], call["status"]) == (True, False, 200)


async def test_a_reset_is_not_muddied_by_calls_under_way(simulate: Any) -> None:
    simulated = await simulate(HELLO)
    under_way = asyncio.create_task(simulated.control.post("/chat/completions", json=body("slow"), headers=KEY))
    await asyncio.sleep(0.1)
    await simulated.control.post("/_sim/reset")
    assert (await under_way).status_code == 200
    assert (await simulated.counts())["billed"] == 0


async def test_a_scenario_can_be_replaced(simulate: Any) -> None:
    simulated = await simulate(HELLO)
    refused = await simulated.control.put("/_sim/scenario", content="name: x\nrules: [{id: a}]")
    assert refused.status_code == 422
    assert refused.json()["problems"] == ["rule 'a'.reply: expected one of text, json, tool_calls, refusal, fault"]
    assert (await simulated.control.get("/healthz")).json()["scenario"] == "hello"
    replaced = await simulated.control.put("/_sim/scenario", content="name: x\nrules: [{id: a, reply: {text: new}}]")
    assert replaced.json() == {"scenario": "x", "rules": 1}
    answer = await simulated.control.post("/chat/completions", json=body(), headers=KEY)
    assert answer.json()["choices"][0]["message"]["content"] == "new"


async def test_unknown_paths_and_methods(simulate: Any) -> None:
    simulated = await simulate(HELLO)
    assert (await simulated.control.get("/v1/models")).status_code == 404
    assert (await simulated.control.get("/v1/messages")).status_code == 405
    assert (await simulated.control.post("/_sim/calls")).status_code == 405


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_json_object_gets_the_vendors_400(simulate: Any, content: bytes) -> None:
    simulated = await simulate(HELLO)
    answer = await simulated.control.post("/v1/messages", content=content, headers=KEY)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_body_that_is_too_large_gets_the_vendors_413(simulate: Any) -> None:
    simulated = await simulate(HELLO, Limits(body=1000))
    answer = await simulated.control.post("/v1/messages", content=b"x" * 200_000, headers=KEY)
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "request_too_large"

    async def chunks() -> Any:
        for _ in range(200):
            yield b"x" * 1000

    answer = await simulated.control.post("/v1/messages", content=chunks(), headers=KEY)
    assert answer.status_code == 413


async def test_a_chunked_body_is_read(simulate: Any) -> None:
    simulated = await simulate(HELLO)

    async def chunks() -> Any:
        for byte in json.dumps(body()).encode():
            yield bytes([byte])

    assert (await simulated.control.post("/chat/completions", content=chunks(), headers=KEY)).status_code == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/2\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"POST /v1/messages HTTP/1.1\r\ncontent-length: -1\r\n\r\n", b"400"),
        (b"POST /v1/messages HTTP/1.1\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n", b"413"),
        (b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\na: " + b"x" * 40_000 + b"\r\n\r\n", b"431"),
        (b"GET /heal", b"408"),
        (b"POST /v1/messages HTTP/1.1\r\ncontent-length: 10\r\n\r\n{", b"408"),
    ],
)
async def test_bad_and_slow_senders(simulate: Any, request_bytes: bytes, status: bytes) -> None:
    simulated = await simulate(HELLO, Limits(head_seconds=0.2, body_seconds=0.2))
    assert (await raw(simulated.port, request_bytes)).startswith(b"HTTP/1.1 " + status)


async def test_idle_connections_are_closed(simulate: Any) -> None:
    simulated = await simulate(HELLO, Limits(idle_seconds=0.1))
    assert await raw(simulated.port, b"") == b""


async def test_too_many_connections(simulate: Any) -> None:
    simulated = await simulate(HELLO, Limits(connections=1))
    reader, writer = await asyncio.open_connection("127.0.0.1", simulated.port)
    assert (await raw(simulated.port, b"")).startswith(b"HTTP/1.1 503")
    writer.write(b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


async def test_expect_100_continue(simulate: Any) -> None:
    simulated = await simulate(HELLO)
    head = b"POST /v1/messages HTTP/1.1\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    answer = await raw(simulated.port, head)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401")
