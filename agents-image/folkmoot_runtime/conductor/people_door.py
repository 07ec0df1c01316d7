"""The service door for people: sessions to give, list and follow live, and the evidence. Used through a port-forward.

Events are a server-sent event stream (`id:` is the event's number): a client that lost it asks again with `Last-Event-ID` and
misses nothing; after a session's last event the stream ends.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from folkmoot_core.document import SessionOrder
from folkmoot_core.errors import Invalid
from folkmoot_core.sessions import SessionEvent
from folkmoot_runtime import web
from folkmoot_runtime.conductor import rows
from folkmoot_runtime.conductor.answers import evidence_answer, reports_answer
from folkmoot_runtime.conductor.callers import AUDITORS, READERS, WRITERS, Callers
from folkmoot_runtime.conductor.evidence import Evidence
from folkmoot_runtime.conductor.feed import Feed
from folkmoot_runtime.conductor.service import Sessions
from folkmoot_runtime.conductor.store import Store

MAX_ORDER: Final = 24 * 1024 * 1024  # 16 inputs of a ConfigMap each, in base64
PAGE: Final = 200  # events read at once
KEEP_ALIVE: Final = 15.0  # seconds of silence after which a comment shows that the stream lives


class PeopleDoor:
    """Routes for `folkmoot-owner`, `folkmoot-viewer` and `folkmoot-auditor`."""

    def __init__(self, callers: Callers, sessions: Sessions, store: Store, feed: Feed, evidence: Evidence) -> None:
        self._callers = callers
        self._sessions = sessions
        self._store = store
        self._feed = feed
        self._evidence = evidence

    def routes(self) -> list[Route]:
        """For `web.app`."""
        return [
            Route("/v1/sessions", self._list, methods=["GET"]),
            Route("/v1/sessions", self._give, methods=["POST"]),
            Route("/v1/sessions/{name}", self._one, methods=["GET"]),
            Route("/v1/sessions/{name}/events", self._events, methods=["GET"]),
            Route("/v1/evidence", self._export, methods=["GET"]),
        ]

    async def _list(self, request: Request) -> Response:
        self._callers.account(request, READERS, "read sessions")
        return reports_answer(await self._sessions.all_reports())

    async def _give(self, request: Request) -> Response:
        self._callers.account(request, WRITERS, "give sessions")
        return web.answer(await self._sessions.accept_from_owner(await web.parse(request, SessionOrder, MAX_ORDER)), 201)

    async def _one(self, request: Request) -> Response:
        self._callers.account(request, READERS, "read sessions")
        return web.answer(await self._sessions.report(request.path_params["name"]))

    async def _events(self, request: Request) -> Response:
        self._callers.account(request, READERS, "follow sessions")
        row = await self._sessions.find(request.path_params["name"])
        last = request.headers.get("last-event-id", "0")
        if not (last.isascii() and last.isdigit() and len(last) < 12):
            raise Invalid(f"header Last-Event-ID {last[:40]!r}: expected the number of an event")
        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(self._stream(row.order.uid, int(last)), media_type="text/event-stream", headers=headers)

    async def _export(self, request: Request) -> Response:
        reader = self._callers.account(request, AUDITORS, "export evidence")
        await self._evidence.record(reader)  # first: the export that an auditor takes holds the entry about it
        return await evidence_answer(self._evidence)

    async def _stream(self, uid: str, last: int) -> AsyncIterator[str]:
        while True:
            bell = self._feed.bell(uid)
            over, events = await self._store.run(_page, uid, last)
            for event in events:
                yield _lines(event)
                last = event.n
            if not events and over:
                return
            if events:
                continue
            try:
                await asyncio.wait_for(bell.wait(), KEEP_ALIVE)
            except TimeoutError:
                yield ": waiting\n\n"


def _page(db: sqlite3.Connection, uid: str, last: int) -> tuple[bool, list[SessionEvent]]:
    """Whether the session has ended, and events behind `last`: read together, so that no last event is missed."""
    row = rows.get_session(db, uid)
    return row is None or row.finished_ms is not None, rows.get_events(db, uid, last, PAGE)


def _lines(event: SessionEvent) -> str:
    return f"id: {event.n}\nevent: {event.type}\ndata: {json.dumps(event.public())}\n\n"
