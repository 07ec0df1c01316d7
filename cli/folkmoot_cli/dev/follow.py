"""Following a session: the conductor's event stream as lines for people. Resumes where it was cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2

from folkmoot_core.sessions import ENDED

RECONNECT_SECONDS = 0.5
MAX_LINE = 200


async def events(client: httpx2.AsyncClient, url: str, token: Callable[[], str]) -> AsyncIterator[dict[str, Any]]:
    """All events of a session, each once, until the stream says it is over. `client` must not have a read timeout."""
    last = ""
    while True:
        headers = {"Authorization": f"Bearer {token()}", "Accept": "text/event-stream"}
        if last:
            headers["Last-Event-ID"] = last
        try:
            async with client.stream("GET", url, headers=headers) as response:
                response.raise_for_status()
                async for number, event in _parse(response.aiter_lines()):
                    last = number or last
                    yield event
                    if event.get("type") == "session.phase" and event.get("phase") in ENDED:
                        return
        except httpx2.TransportError:
            await asyncio.sleep(RECONNECT_SECONDS)


async def _parse(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    number, data = "", ""
    async for line in lines:
        if line.startswith("id:"):
            number = line[3:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()
        elif not line and data:
            yield number, json.loads(data)
            data = ""
