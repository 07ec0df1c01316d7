"""`folkmoot ledger export --format ocsf --follow` as a process at a real ledger: to standard output, a file and an OTLP endpoint."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from served_ledger import Tenant, free_port, served
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from folkmoot_core.entries import Actor, new_entry
from folkmoot_runtime import web

CONDUCTOR = Actor(kind="service", id="conductor")


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[Tenant]:
    async with served(tmp_path) as made:
        yield made


async def record(tenant: Tenant, *ids: str) -> None:
    client = tenant.conductor()
    for one in ids:
        await client.append(new_entry("session.start", CONDUCTOR, id=one, data={"name": one}, session=one, now=1.0))
    await client.aclose()


@asynccontextmanager
async def following(tenant: Tenant, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [sys.executable, "-m", "folkmoot_cli.main", "ledger", "export", *words, "--format", "ocsf", "--follow"]
    process = await asyncio.create_subprocess_exec(
        *command, *tenant.reading(), stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        async with asyncio.timeout(90):
            yield process
    finally:
        process.kill()
        await process.communicate()


def chained(events: list[dict[str, Any]]) -> list[str]:
    """Entries of sessions among the events, which must be a chain of the whole log from its opening on."""
    attestations = [event["attestation_list"][0] for event in events]
    prints = [one["fingerprint"]["value"] for one in attestations]
    assert [one["prev_event"]["fingerprint"]["value"] for one in attestations[1:]] == prints[:-1]
    assert events[0]["message"] == "log.opened"
    return [json.loads(event["raw_data"])["ce"]["id"] for event in events if event["message"] == "session.start"]


def over(events: list[dict[str, Any]], last: str) -> bool:
    return any(json.loads(event["raw_data"])["ce"]["id"] == last for event in events)


async def test_to_standard_output(tenant: Tenant) -> None:
    await record(tenant, "before-01")
    events: list[dict[str, Any]] = []
    async with following(tenant) as process:
        assert process.stdout is not None
        while not over(events, "before-01"):
            events.append(json.loads(await process.stdout.readline()))
        await record(tenant, "after-001", "after-002")
        while not over(events, "after-002"):
            events.append(json.loads(await process.stdout.readline()))
    assert chained(events) == ["before-01", "after-001", "after-002"]


async def test_to_a_file(tenant: Tenant, tmp_path: Path) -> None:
    def written() -> list[dict[str, Any]]:
        file = tmp_path / "events"
        whole = file.read_text().rpartition("\n")[0] if file.exists() else ""
        return [json.loads(line) for line in whole.splitlines()]

    await record(tenant, "before-01")
    async with following(tenant, str(tmp_path / "events")):
        while not over(written(), "before-01"):
            await asyncio.sleep(0.1)
        await record(tenant, "after-001")
        while not over(written(), "after-001"):
            await asyncio.sleep(0.1)
    assert chained(written()) == ["before-01", "after-001"]


async def test_to_an_otlp_endpoint_that_is_busy_at_first(tenant: Tenant) -> None:
    events: list[dict[str, Any]] = []
    asked = 0

    async def logs(request: Request) -> Response:
        nonlocal asked
        asked += 1
        if asked == 1:
            return Response(status_code=503)
        for resource in (await request.json())["resourceLogs"]:
            for scope in resource["scopeLogs"]:
                events.extend(json.loads(one["body"]["stringValue"]) for one in scope["logRecords"])
        return JSONResponse({})

    port = free_port()
    app = web.app([Route("/v1/logs", logs, methods=["POST"])], ready=lambda: True)
    collector = asyncio.create_task(web.serve(app, host="127.0.0.1", port=port))
    await record(tenant, "before-01")
    async with following(tenant, "--otlp", f"http://127.0.0.1:{port}/v1/logs"):
        while not over(events, "before-01"):
            await asyncio.sleep(0.1)
        await record(tenant, "after-001")
        while not over(events, "after-001"):
            await asyncio.sleep(0.1)
    collector.cancel()
    await asyncio.gather(collector, return_exceptions=True)
    assert chained(events) == ["before-01", "after-001"]
    assert asked > 2
