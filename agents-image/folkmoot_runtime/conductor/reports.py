"""What the conductor tells the operator: sessions, agents, the document's digest, the log. Partial, repeated, never lost.

A report goes out soon after a change (changes that come together go together) and in full every minute. It is repeated until
the operator took it; which event of a session was reported is kept on disk, so that a restart repeats what may be missing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import httpx2

from folkmoot_core import names
from folkmoot_core.document import AgentReport, Report, SessionReport
from folkmoot_core.errors import Conflict, FolkmootError, Missing, Unavailable
from folkmoot_runtime.conductor import rows
from folkmoot_runtime.conductor.documents import Documents
from folkmoot_runtime.conductor.feed import Feed
from folkmoot_runtime.conductor.logwatch import FORK, LogWatch
from folkmoot_runtime.conductor.notary import Ledger
from folkmoot_runtime.conductor.service import Sessions
from folkmoot_runtime.conductor.store import Store
from folkmoot_runtime.settings import Settings
from folkmoot_runtime.trust import Trust

log = logging.getLogger(__name__)
ALIVE_SECONDS: Final = 60.0  # agents ask for the document every 10 s
COALESCE: Final = 0.2  # seconds in which further changes join a report
FULL_EVERY: Final = 60.0
FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 30.0
MAX_PROBLEM: Final = 64 * 1024
BATCH: Final = 100  # sessions in one report


class Operator(Protocol):
    """Takes reports; raises `Conflict` with reason ForkDetected when it took one and remembers another history of the log, and
    `Unavailable` for anything else but success."""

    async def report(self, report: Report) -> None: ...


class OperatorClient:
    """The operator's endpoint, with the core's own token."""

    def __init__(self, settings: Settings, trust: Trust) -> None:
        self._settings = settings
        self._trust = trust

    async def report(self, report: Report) -> None:
        """See `Operator.report`."""
        settings = self._settings
        try:
            token = settings.token_file(names.AUDIENCE_OPERATOR).read_text().strip()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            async with httpx2.AsyncClient(
                verify=self._trust.client_context(), timeout=settings.timeout, trust_env=False
            ) as client:
                response = await client.post(
                    f"{settings.operator_url}/v1/reports", content=report.model_dump_json(), headers=headers
                )
        except (httpx2.HTTPError, OSError) as error:
            raise Unavailable(f"operator {settings.operator_url} does not take reports: {type(error).__name__}") from error
        if response.status_code == httpx2.codes.CONFLICT and (why := _fork(response.content)):
            raise Conflict(why, reason=FORK)
        if not response.is_success:
            raise Unavailable(f"operator {settings.operator_url} answered {response.status_code} to a report")


def _fork(content: bytes) -> str:
    """What the operator remembers against the log, if that is what its answer says."""
    try:
        problem = json.loads(content[:MAX_PROBLEM])
        return str(problem["detail"])[:1024] if problem["type"] == FORK else ""
    except (ValueError, KeyError, TypeError):
        return ""


@dataclass
class _Seen:
    at: float
    commitment: str = ""
    key: str = ""
    seed: str = ""


class Presence:
    """When each agent was last heard of, and which commitment it last said it had bound. In memory: it is about now."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def seen(self, agent: str, commitment: str = "", key: str = "", seed: str = "") -> None:
        """The agent was heard of just now. `seed`: what its name was first bound to."""
        known = self._seen.get(agent) or _Seen(0)
        self._seen[agent] = _Seen(self._clock(), commitment or known.commitment, key or known.key, seed or known.seed)

    def report(self, name: str, commitment: str) -> AgentReport:
        """`identity_bound` only while it is alive and what it bound is the commitment in force."""
        seen = self._seen.get(name)
        alive = seen is not None and self._clock() - seen.at <= ALIVE_SECONDS
        if seen is None:
            return AgentReport(name=name, alive=False, identity_bound=False)
        bound = alive and bool(commitment) and seen.commitment == commitment
        return AgentReport(
            name=name,
            alive=alive,
            identity_bound=bound,
            key_fingerprint=seen.key,
            commitment=seen.commitment,
            bound_seed=seen.seed,
        )


class Reporter:
    """Run `run` until cancelled."""

    def __init__(  # noqa: PLR0913 - what it reports on
        self,
        store: Store,
        sessions: Sessions,
        documents: Documents,
        presence: Presence,
        feed: Feed,
        ledger: Ledger,
        operator: Operator,
        watch: LogWatch,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._documents = documents
        self._presence = presence
        self._ledger = ledger
        self._operator = operator
        self._watch = watch
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._vkey = ""
        self._agents: tuple[AgentReport, ...] = ()
        feed.listen(self._changed)
        documents.on_change(self._wake.set)
        watch.on_news(self._wake.set)

    async def run(self) -> None:
        """Report changes at once, everything once a minute, for ever."""
        for uid in await self._store.run(rows.unreported_sessions):
            self._dirty[uid] = None
        full = True
        while True:
            await self._report(full=full)
            full = False
            try:
                await asyncio.wait_for(self._wake.wait(), FULL_EVERY)
            except TimeoutError:
                full = True
            await asyncio.sleep(COALESCE)
            self._wake.clear()

    def agents_changed(self) -> None:
        """Called when an agent was heard of: a report follows if that changes what is known of it."""
        if self._agent_reports() != self._agents:
            self._wake.set()

    def _changed(self, uid: str) -> None:
        self._dirty[uid] = None
        self._wake.set()

    def _agent_reports(self) -> tuple[AgentReport, ...]:
        document = self._documents.current
        return tuple(self._presence.report(a.name, a.identity.commitment) for a in document.agents) if document else ()

    async def _report(self, *, full: bool) -> None:
        """Send what is due, with retries; in batches where there is much."""
        if full:
            self._dirty.update(dict.fromkeys(report.uid for report in self._sessions.open_reports()))
        while True:
            uids = list(self._dirty)[:BATCH]
            for uid in uids:
                del self._dirty[uid]
            sessions = [report for uid in uids if (report := await self._session(uid)) is not None]
            self._agents = self._agent_reports()
            await self._send(tuple(sessions))
            await self._store.run(_mark_reported, sessions)
            if not self._dirty:
                return

    async def _session(self, uid: str) -> SessionReport | None:
        try:
            row = await self._sessions.find(uid)
            return await self._sessions.report(uid) if row.origin == "operator" else None
        except Missing:
            return None  # forgotten since: its time was over

    async def _send(self, sessions: tuple[SessionReport, ...]) -> None:
        wait = FIRST_WAIT
        while True:
            stands = self._watch.current
            vkey = stands.vkeys[0] if stands is not None and stands.vkeys else await self._log_key()
            report = Report(
                reporter="core", sequence=await self._store.run(rows.next_number, "report"), log=stands,
                document_digest=self._documents.digest, vkey=vkey, origin=vkey.partition("+")[0], sessions=sessions, agents=self._agents,
            )  # fmt: skip
            try:
                return await self._operator.report(report)
            except Conflict as error:  # it took the report: what is left to do is the log's
                return self._watch.forked(error.message)
            except Unavailable as error:
                log.warning("waiting for the operator", extra={"sequence": report.sequence, "error": error.message})
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    async def _log_key(self) -> str:
        """The log's verifier key from the log's files, read once; '' while the ledger is away. `LogWatch` knows of exchanged ones."""
        if not self._vkey:
            try:
                async with asyncio.timeout(2):
                    self._vkey = ((await self._ledger.read("log.vkey")) or b"").decode(errors="replace").strip()
            except (FolkmootError, TimeoutError) as error:
                log.warning("ledger's key not known yet", extra={"error": str(error)})
        return self._vkey


def _mark_reported(db: sqlite3.Connection, reports: list[SessionReport]) -> None:
    for report in reports:
        rows.update_session(db, report.uid, reported=report.sequence)
