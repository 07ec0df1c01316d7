"""Takes what cores and brokers report and writes it into status: phase, result, usage, availability.

Called by the endpoint of any replica. Every write carries the resourceVersion it was computed from and a sequence, so that an
older report never overwrites a newer one, whichever replica it came through; on a conflict the object is read again and the
question is asked anew. It writes in the reporter's own namespace and on its own Tenant, nowhere else, and never a condition.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from folkmoot_core import names
from folkmoot_core.document import AgentReport, Report, SessionReport
from folkmoot_core.errors import Conflict, Missing, Unavailable
from folkmoot_core.resources.status import (
    AgentReported,
    BrokerReported,
    CoreReported,
    GateStatus,
    LedgerStatus,
    LogStatus,
    ProviderStatus,
    ResultStatus,
    SessionStatus,
    Status,
    UsageStatus,
    VotesStatus,
)
from folkmoot_operator.cache import Cache
from folkmoot_operator.kinds import AGENT, SESSION, TENANT, Key, Kind, Obj, key_of, uid_of
from folkmoot_operator.kube import Kube

log = logging.getLogger(__name__)
ATTEMPTS: Final = 8
PREVIEW: Final = 1024  # bytes
_TENANT_PARTS: Final = {"core": ("core", "log"), "broker": ("broker",)}


@dataclass
class ReportWriter:
    """Writes reports. `changed` is told which objects got news."""

    kube: Kube
    cache: Cache
    changed: Callable[[Kind, Key], None]
    _highest: dict[tuple[str, str], int] = field(default_factory=dict)

    async def take(self, tenant: Obj, namespace: str, report: Report) -> None:
        """Write one report of a tenant; raises `Unavailable` if the API server does not let it through (send it again)."""
        await self._tenant(key_of(tenant), report)
        for agent in report.agents:
            await self._agent(Key(namespace, agent.name), agent, report.sequence)
        for session in report.sessions:
            await self.session(namespace, session)

    async def session(self, namespace: str, report: SessionReport) -> None:
        """Write one session's report; for an object that is gone, or another of the same name, nothing."""

        def build(live: Obj) -> dict[str, Any] | None:
            status = live.get("status") or {}
            if uid_of(live) != report.uid or int(status.get("sequence") or 0) >= report.sequence:
                return None
            return session_status(report)

        await self._write(SESSION, Key(namespace, report.name), names.REPORT_MANAGER, build)

    async def _tenant(self, key: Key, report: Report) -> None:
        def build(live: Obj) -> dict[str, Any] | None:
            status = live.get("status") or {}
            before = {part: status[part] for part in _TENANT_PARTS[report.reporter] if part in status}
            # A core that lost its volume begins a new log and counts from one again: another origin is another count.
            same_log = not report.origin or (before.get("log") or {}).get("origin", "") in ("", report.origin)
            known = int((before.get(report.reporter) or {}).get("sequence") or 0)
            if same_log and max(known, self._highest.get((uid_of(live), report.reporter), 0)) >= report.sequence:
                return None
            self._highest[uid_of(live), report.reporter] = report.sequence
            after = {**before, **_tenant_parts(report, before)}
            return None if _same(before, after, report.reporter) else after

        await self._write(TENANT, key, f"{names.REPORT_MANAGER}-{report.reporter}", build)

    async def _agent(self, key: Key, report: AgentReport, sequence: int) -> None:
        def build(live: Obj) -> dict[str, Any] | None:
            before = (live.get("status") or {}).get("reported") or {}
            after = agent_status(report, sequence)
            if int(before.get("sequence") or 0) >= sequence or _same({"reported": before}, after, "reported"):
                return None
            return after

        await self._write(AGENT, key, names.REPORT_MANAGER, build)

    async def _write(self, kind: Kind, key: Key, manager: str, build: Callable[[Obj], dict[str, Any] | None]) -> None:
        live = self.cache.get(kind, key)
        for _ in range(ATTEMPTS):
            try:
                live = live or await self.kube.get(kind, key)
                status = build(live)
                if status is None:
                    return
                head = {**{k: live["metadata"][k] for k in ("name", "resourceVersion")}, **_namespace(key)}
                body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": head, "status": status}
                self.cache.wrote(kind, await self.kube.apply(kind, body, manager=manager, status=True))
            except Conflict:
                live = None
                continue
            except Missing:
                log.debug("a report about an object that is gone", extra={"kind": kind.kind, "object": str(key)})
                return
            self.changed(kind, key)
            return
        raise Unavailable(f"{kind.kind} {key}: its status changes faster than a report can be written; send it again")


def session_status(report: SessionReport) -> dict[str, Any]:
    """The reported part of a Session's status."""
    preview = report.result_preview.encode()[:PREVIEW].decode(errors="ignore")
    status = SessionStatus(
        phase=report.phase, sequence=report.sequence, reason=report.reason[:256] or None, message=report.message[:1024] or None,
        start_time=report.started or None, completion_time=report.finished or None,
        result=_unless_empty(ResultStatus(digest=report.result_digest, ref=report.result_ref[:512], preview=preview)),
        gate=_unless_empty(GateStatus(verdict=report.gate_verdict[:64], submission=report.gate_submission, shapes=report.gate_shapes[:64])),
        votes=_unless_empty(VotesStatus(for_=report.votes_for, against=report.votes_against, dissent=report.votes_dissent)),
        usage=UsageStatus(input_tokens=report.input_tokens, output_tokens=report.output_tokens,
                          cached_input_tokens=report.cached_input_tokens, cost=report.cost, currency=report.currency),
        ledger=_unless_empty(LedgerStatus(first=report.ledger_first, last=report.ledger_last)),
    )  # fmt: skip
    return {name: value for name, value in status.manifest().items() if name != "conditions"}


def agent_status(report: AgentReport, sequence: int) -> dict[str, Any]:
    """The reported part of an Agent's status."""
    reported = AgentReported(
        sequence=sequence, alive=report.alive, identity_bound=report.identity_bound, commitment=report.commitment[:64],
        key_fingerprint=report.key_fingerprint[:128],
    )  # fmt: skip
    return {"reported": reported.manifest()}


def _tenant_parts(report: Report, before: dict[str, Any]) -> dict[str, Any]:
    """The parts that this report speaks of; what it leaves out stays as it was."""
    if report.reporter == "broker":
        providers = tuple(
            ProviderStatus(name=p.name, available=p.available, reason=p.reason[:256], message=p.message[:1024]) for p in report.providers
        )
        known = tuple(ProviderStatus.model_validate(p) for p in (before.get("broker") or {}).get("providers") or ())
        return {"broker": BrokerReported(sequence=report.sequence, providers=providers or known).manifest()}
    document = report.document_digest or (before.get("core") or {}).get("document", "")
    parts = {"core": CoreReported(sequence=report.sequence, document=document).manifest()}
    if report.vkey or report.origin:
        parts["log"] = LogStatus(origin=report.origin[:256], vkey=report.vkey[:512]).manifest()
    return parts


def _same(before: dict[str, Any], after: dict[str, Any], part: str) -> bool:
    """Equal but for the sequence: then a write would only move a number."""

    def bare(status: dict[str, Any]) -> dict[str, Any]:
        return {**status, part: {k: v for k, v in (status.get(part) or {}).items() if k != "sequence"}}

    return bare(before) == bare(after)


def _unless_empty(status: Any) -> Any:
    assert isinstance(status, Status)  # noqa: S101 - for the reader
    return None if status == type(status)() else status


def _namespace(key: Key) -> dict[str, str]:
    return {"namespace": key.namespace} if key.namespace else {}
