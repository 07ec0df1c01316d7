"""The conductor's two doors: the operator's (client certificate) and the service's (tokens). docs/architecture.md, doors table.

The operator's door asks nobody who calls: its TLS context admits only the one certificate with clientAuth. The service door
verifies a token of audience folkmoot-conductor at every request and then asks which account may do this (`callers.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from folkmoot_core.document import SessionOrder, TenantDocument
from folkmoot_core.errors import Invalid
from folkmoot_runtime import web
from folkmoot_runtime.conductor.agents_door import AgentsDoor
from folkmoot_runtime.conductor.answers import evidence_answer, reports_answer
from folkmoot_runtime.conductor.documents import Documents
from folkmoot_runtime.conductor.evidence import Evidence
from folkmoot_runtime.conductor.log_door import LogDoor
from folkmoot_runtime.conductor.people_door import MAX_ORDER, PeopleDoor
from folkmoot_runtime.conductor.privacy_door import PrivacyDoor
from folkmoot_runtime.conductor.service import Sessions

MAX_DOCUMENT: Final = 32 * 1024 * 1024


def service_door(
    agents: AgentsDoor, people: PeopleDoor, privacy: PrivacyDoor, log: LogDoor, ready: Callable[[], bool]
) -> Starlette:
    """Port 8443."""
    return web.app([*agents.routes(), *people.routes(), *privacy.routes(), *log.routes()], ready=ready)


class OperatorDoor:
    """Port 8444."""

    def __init__(self, sessions: Sessions, documents: Documents, evidence: Evidence) -> None:
        self._sessions = sessions
        self._documents = documents
        self._evidence = evidence

    def app(self, ready: Callable[[], bool]) -> Starlette:
        """The door."""
        routes = [
            Route("/operator/v1/document", self._put_document, methods=["PUT"]),
            Route("/operator/v1/sessions", self._list, methods=["GET"]),
            Route("/operator/v1/sessions/{uid}", self._put_session, methods=["PUT"]),
            Route("/operator/v1/sessions/{uid}", self._cancel, methods=["DELETE"]),
            Route("/operator/v1/seal", self._seal, methods=["POST"]),
            Route("/operator/v1/evidence", self._export, methods=["GET"]),
        ]
        return web.app(routes, ready=ready)

    async def _put_document(self, request: Request) -> Response:
        document = await web.parse(request, TenantDocument, MAX_DOCUMENT)
        return JSONResponse({"digest": await self._documents.put(document)})

    async def _list(self, _: Request) -> Response:
        return reports_answer(self._sessions.open_reports())

    async def _put_session(self, request: Request) -> Response:
        order = await web.parse(request, SessionOrder, MAX_ORDER)
        if order.uid != request.path_params["uid"]:
            raise Invalid(f"the order is for session {order.uid[:80]!r}, the path names {request.path_params['uid'][:80]!r}")
        return web.answer(await self._sessions.accept(order))

    async def _cancel(self, request: Request) -> Response:
        return web.answer(await self._sessions.cancel(request.path_params["uid"]))

    async def _seal(self, _: Request) -> Response:
        return JSONResponse({"size": await self._sessions.seal()})

    async def _export(self, _: Request) -> Response:
        return await evidence_answer(self._evidence)
