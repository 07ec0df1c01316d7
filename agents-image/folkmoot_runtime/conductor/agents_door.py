"""The service door for agents and broker: configuration, artefacts, the journal of tool calls, leases on sandboxes.

An agent sees its own prompt and nobody else's, writes the journal of its own open tasks alone, and gets a lease on its own
sandbox for a session that waits for its answer. docs/architecture.md, doors table.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from folkmoot_core import names
from folkmoot_core.deliberation import AskAgent
from folkmoot_core.document import AgentEntry, TenantDocument
from folkmoot_core.errors import Conflict, Forbidden, Invalid, Missing, Unavailable
from folkmoot_core.workspace import Lease, LeaseRequest, StepRecord
from folkmoot_runtime import web
from folkmoot_runtime.conductor import rows
from folkmoot_runtime.conductor.blobs import MAX_BLOB, Artefacts
from folkmoot_runtime.conductor.callers import Callers
from folkmoot_runtime.conductor.documents import Documents
from folkmoot_runtime.conductor.journal import Journal
from folkmoot_runtime.conductor.reports import Presence, Reporter
from folkmoot_runtime.conductor.service import Sessions
from folkmoot_runtime.conductor.store import Store

CONFIGURED: Final = frozenset({names.SA_BROKER, names.SA_CORE})  # the router runs as core
STORING: Final = frozenset({names.SA_BROKER})
READING: Final = frozenset({names.SA_BROKER, names.SA_OWNER})
MAX_STEP: Final = 512 * 1024
LEASE_RETRY: Final = 2.0


class AgentsDoor:
    """`endpoints` maps an agent to its sandbox's URL where that is not the Service in this namespace (`folkmoot dev`)."""

    def __init__(  # noqa: PLR0913 - what its routes reach
        self, callers: Callers, sessions: Sessions, documents: Documents, artefacts: Artefacts, store: Store, presence: Presence,
        reporter: Reporter, endpoints: Mapping[str, str],
    ) -> None:  # fmt: skip
        self._callers = callers
        self._sessions = sessions
        self._documents = documents
        self._artefacts = artefacts
        self._store = store
        self._presence = presence
        self._reporter = reporter
        self._endpoints = endpoints

    def routes(self) -> list[Route]:
        """For `web.app`. A task's id has slashes, which arrive decoded: hence `path`."""
        return [
            Route("/v1/document", self._document, methods=["GET"]),
            Route("/v1/artifacts", self._put_artifact, methods=["PUT"]),
            Route("/v1/artifacts/{digest}", self._get_artifact, methods=["GET"]),
            Route("/v1/tasks/{task:path}/steps", self._steps, methods=["GET"]),
            Route("/v1/tasks/{task:path}/steps/{n:int}", self._put_step, methods=["PUT"]),
            Route("/v1/leases", self._lease, methods=["POST"]),
        ]

    async def _document(self, request: Request) -> Response:
        account = self._callers.account(request, CONFIGURED, "read the tenant document", agents=True)
        agent = names.agent_of_service_account(account)
        document = self._documents.require()
        if agent is not None:
            bound, key = request.query_params.get("bound", "")[:64], request.query_params.get("key", "")[:64]
            first = await self._first_seed(document, agent, bound)
            self._presence.seen(agent, bound, key, first)
            self._reporter.agents_changed()
            document = without_impostor(document, agent, first)
        etag = f'"{self._documents.digest}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"ETag": etag})
        shown = document if agent is None else seen_by(document, agent)
        body = shown.model_dump_json(by_alias=True, exclude_none=True)
        return Response(body, media_type="application/json", headers={"ETag": etag})

    async def _first_seed(self, document: TenantDocument, agent: str, bound: str) -> str:
        entry = next((a for a in document.agents if a.name == agent), None)
        claimed = entry.identity.seed if entry is not None and bound == entry.identity.commitment else ""
        return await self._store.run(rows.first_seed, agent, claimed)

    async def _put_artifact(self, request: Request) -> Response:
        account = self._callers.account(request, STORING, "store artefacts", agents=True)
        agent, session = names.agent_of_service_account(account), request.query_params.get("session", "")[:64]
        if not session:
            raise Invalid("an artefact belongs to a session; say which: PUT /v1/artifacts?session=<uid>")
        # Also after the session's end: a tool call that ran is recorded, with what it said, whatever became of its session.
        if agent is not None and not await self._store.run(rows.was_asked, session, agent):
            raise Forbidden(f"agent {agent} was given no task in session {session}")
        return JSONResponse({"digest": await self._artefacts.put(session, await web.body(request, MAX_BLOB))})

    async def _get_artifact(self, request: Request) -> Response:
        self._callers.account(request, READING, "read artefacts", agents=True)
        content = await self._artefacts.get(request.path_params["digest"])
        return Response(content, media_type="application/octet-stream")

    async def _steps(self, request: Request) -> Response:
        task = request.path_params["task"]
        self._task_of(request, task)
        found = await self._store.run(rows.get_steps, task)
        return Response(f"[{','.join(found)}]", media_type="application/json")

    async def _put_step(self, request: Request) -> Response:
        task = request.path_params["task"]
        journal, need = self._task_of(request, task)
        record = await web.parse(request, StepRecord, MAX_STEP)
        if record.step != request.path_params["n"]:
            raise Invalid(f"step {record.step} was sent to the place of step {request.path_params['n']}")
        if journal.needs[need.id].answered:
            raise Conflict(f"task {task[:128]} has its result already; its journal is closed", reason="TaskClosed")
        if record.workspace is not None:
            await self._artefacts.keep_workspace(journal.uid, record.workspace)
        await self._store.run(_write_step, journal.uid, task, record)
        return Response(status_code=204)

    async def _lease(self, request: Request) -> Response:
        agent = self._callers.agent(request, "have a lease")
        wanted = await web.parse(request, LeaseRequest, 4096)
        journal = self._sessions.at_work(wanted.session)
        if not _works_for(journal, agent):
            raise Forbidden(f"agent {agent} has no open task in session {wanted.session}")
        holder = await self._store.run(rows.lease_holder, names.sandbox_workload(agent))
        if holder is not None and holder != wanted.session and self._holds(holder, agent):
            raise Unavailable(f"the sandbox of {agent} serves another session", reason="SandboxBusy", retry_after=LEASE_RETRY)
        nonce = secrets.token_urlsafe(32)
        fence = await self._store.run(rows.grant_lease, names.sandbox_workload(agent), wanted.session, nonce)
        endpoint = self._endpoints.get(agent) or f"http://{names.sandbox_workload(agent)}:{names.PORT_SANDBOX}"
        return web.answer(Lease(session=wanted.session, endpoint=endpoint, nonce=nonce, fence=fence))

    def _task_of(self, request: Request, task: str) -> tuple[Journal, AskAgent]:
        """The open session and need behind a task's id, if it is this caller's."""
        agent = self._callers.agent(request, "keep a journal")
        session, _, need_id = task.partition("/")
        journal = self._sessions.at_work(session)
        row = journal.needs.get(need_id)
        if row is None or not isinstance(row.need, AskAgent):
            raise Missing(f"task {task[:128]!r} was never given")
        if row.need.agent != agent:
            raise Forbidden(f"task {task[:128]} is not {agent}'s")
        return journal, row.need

    def _holds(self, session: str, agent: str) -> bool:
        try:
            return _works_for(self._sessions.at_work(session), agent)
        except Missing:
            return False


def without_impostor(document: TenantDocument, agent: str, first: str) -> TenantDocument:
    """The document without this agent, if its name is on record under another seed: it gets no work, and binds no key."""
    kept = tuple(a for a in document.agents if a.name != agent or first in ("", a.identity.seed))
    return document if len(kept) == len(document.agents) else document.model_copy(update={"agents": kept})


def seen_by(document: TenantDocument, agent: str) -> TenantDocument:
    """The document without the other agents' prompts. Its digest stays that of the whole one (the ETag)."""
    return document.model_copy(update={"agents": tuple(a if a.name == agent else _without_prompt(a) for a in document.agents)})


def _without_prompt(entry: AgentEntry) -> AgentEntry:
    spec = entry.spec.model_copy(update={"system_prompt": None, "system_prompt_from": None})
    return entry.model_copy(update={"system_prompt": "", "spec": spec})


def _works_for(journal: Journal, agent: str) -> bool:
    """Whether the session waits for this agent's answer."""
    return any(isinstance(row.need, AskAgent) and row.need.agent == agent and not row.answered for row in journal.needs.values())


def _write_step(db: sqlite3.Connection, session: str, task: str, record: StepRecord) -> None:
    """Forward only: what is done or interrupted stays so, whoever writes again."""
    stored = rows.get_step(db, task, record.step)
    if stored is not None:
        known = StepRecord.model_validate_json(stored)
        if known == record:
            return
        if known.state != "started" or known.call_id != record.call_id:
            raise Conflict(f"step {record.step} of {task[:128]} is {known.state} already", reason="StepClosed")
    rows.put_step(db, session, task, record.step, record.model_dump_json())
