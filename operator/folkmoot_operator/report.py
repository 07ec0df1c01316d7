"""Takes what cores and brokers report and writes it into status: phase, result, usage, availability.

Called by the endpoint of any replica. Every write carries the resourceVersion it was computed from and a sequence, so that an
older report never overwrites a newer one, whichever replica it came through; on a conflict the object is read again and the
question is asked anew. It writes in the reporter's own namespace and on its own Tenant, nowhere else, and never a condition.
Sessions, agents and the log are the core's to report: the broker, which reads what vendors answer, has no word on them. What a log
says of itself is held against what is remembered outside its volume (`logs`); a fork is written down and then told to the reporter.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from folkmoot_core import names
from folkmoot_core.document import AgentReport, LogReport, Report, SessionReport
from folkmoot_core.errors import Conflict, Invalid, Missing, Unavailable
from folkmoot_core.ledger import rotation
from folkmoot_core.plan.audit_conditions import moment
from folkmoot_core.resources.status import (
    AgentStatus,
    AuditStatus,
    GateStatus,
    LedgerStatus,
    ProviderStatus,
    ReporterStatus,
    ResultStatus,
    SessionStatus,
    TenantStatus,
    UsageStatus,
    VotesStatus,
)
from folkmoot_operator.cache import Cache
from folkmoot_operator.kinds import AGENT, SESSION, TENANT, Key, Kind, Obj, key_of, uid_of
from folkmoot_operator.kube import Kube

log = logging.getLogger(__name__)
ATTEMPTS: Final = 8
PREVIEW: Final = 1024  # bytes
_AGENT_PARTS: Final = ("keyFingerprint", "boundCommitment", "boundSeed")
_MOVING: Final = frozenset({"size", "root", "entries", "anchored", "anchoredSize"})
_LEADERS: Final = frozenset({"sealedSize", "exported"})  # parts of status.audit that are the leader's
MOVE_SECONDS: Final = 300.0  # numbers of a log that move all the time are written this often: every write wakes who watches


class Logs(Protocol):
    """Who remembers tenants' logs outside their volumes: `fence.Fence`."""

    async def seen(self, tenant: Obj, report: LogReport) -> str:
        """Why this log has forked, or ''. Raises `LimitReached` for one log too many."""
        ...


@dataclass
class ReportWriter:
    """Writes reports. `changed` is told which objects got news; `clock` gives seconds that never go back."""

    kube: Kube
    cache: Cache
    changed: Callable[[Kind, Key], None]
    logs: Logs | None = None
    clock: Callable[[], float] = time.monotonic
    _moved: dict[str, float] = field(default_factory=dict)
    _highest: dict[tuple[str, str], int] = field(default_factory=dict)

    async def take(self, tenant: Obj, namespace: str, report: Report) -> None:
        """Write one report of a tenant; raises `Unavailable` if the API server does not let it through (send it again), and, when
        all else is written, `Conflict` with reason ForkDetected: the reporter must freeze its log."""
        if report.reporter != names.SA_CORE and (report.agents or report.sessions or report.log):
            raise Invalid(f"reporter {report.reporter} may not report agents, sessions or the log; those are the core's")
        if report.log is not None:
            check_log(report, report.log)
        report, fork = self._of_its_own_log(tenant, report), ""
        if report.log is not None:
            fork = await self.logs.seen(tenant, report.log) if self.logs is not None else ""
        await self._tenant(key_of(tenant), report, fork)
        for agent in report.agents:
            await self._agent(Key(namespace, agent.name), agent, report.sequence)
        for session in report.sessions:
            await self.session(namespace, session)
        if fork and report.log is not None and report.log.state != "Frozen":
            raise Conflict(fork, reason="ForkDetected")

    async def session(self, namespace: str, report: SessionReport) -> None:
        """Write one session's report; for an object that is gone, or another of the same name, nothing."""

        def build(live: Obj) -> dict[str, Any] | None:
            status = live.get("status") or {}
            if uid_of(live) != report.uid or int(status.get("sequence") or 0) >= report.sequence:
                return None
            return session_status(report)

        await self._write(SESSION, Key(namespace, report.name), names.REPORT_MANAGER, build)

    def _of_its_own_log(self, tenant: Obj, report: Report) -> Report:
        """The report without its log, where another Tenant had that log first: keys are only names here, and who could register
        another's log with keys of his own, at a witness that remembers nothing, would end it."""
        origin = report.origin or (report.log.origin if report.log is not None else "")
        if not origin or origin == _origin(tenant):
            return report
        for other in self.cache.objects(TENANT):
            if _origin(other) == origin and uid_of(other) != uid_of(tenant):
                both = {"tenant": key_of(tenant).name, "other": key_of(other).name, "origin": origin[:80]}
                log.error("a tenant reports the log that another one has; what it says of it is not taken", extra=both)
                return report.model_copy(update={"log": None, "origin": "", "vkey": ""})
        return report

    async def _tenant(self, key: Key, report: Report, fork: str) -> None:
        def build(live: Obj) -> dict[str, Any] | None:
            uid, status = uid_of(live), live.get("status") or {}
            # A core that lost its volume begins a new log and counts from one again: another origin is another count.
            same_log = not report.origin or (status.get("audit") or {}).get("origin", "") in ("", report.origin)
            known = max(reported_sequence(status, report.reporter), self._highest.get((uid, report.reporter), 0))
            if same_log and known > report.sequence:
                # A volume that was rolled back counts again what it counted before: of such a report only the fork is taken.
                if not fork or (status.get("audit") or {}).get("fork") == fork:
                    return None
                return tenant_status(Report(reporter=report.reporter, sequence=known), status, fork)
            self._highest[uid, report.reporter] = report.sequence
            after = tenant_status(report, status, fork)
            return after if self._due(uid, after, status) else None

        await self._write(TENANT, key, f"{names.REPORT_MANAGER}-{report.reporter}", build)

    def _due(self, uid: str, after: dict[str, Any], stored: dict[str, Any]) -> bool:
        """Whether it is written now: nothing new is not, and numbers of the log that only move wait until it is time for them."""
        news, now = _news(after, stored), self.clock()
        changed = _changed(after.get("audit") or {}, stored.get("audit") or {})
        if not news and not changed:
            return False
        moving = set(news) <= {"audit"} and changed <= _MOVING
        if moving and now - self._moved.get(uid, now - MOVE_SECONDS) < MOVE_SECONDS:
            return False
        self._moved[uid] = now
        return True

    async def _agent(self, key: Key, report: AgentReport, sequence: int) -> None:
        def build(live: Obj) -> dict[str, Any] | None:
            status = live.get("status") or {}
            after = agent_status(report, sequence)
            if int(status.get("sequence") or 0) >= sequence:
                return None
            # What is reported no longer (a binding that ended) must count as news too.
            gone = [name for name in _AGENT_PARTS if name in status and name not in after]
            return after if gone or _news(after, status) else None

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
    """The reported part of a Session's status. Pure."""
    preview = report.result_preview.encode()[:PREVIEW].decode(errors="ignore")
    result = ResultStatus(digest=report.result_digest[:80] or None, ref=report.result_ref[:512] or None, preview=preview or None)
    shapes = tuple(shape[:64] for shape in report.gate_shapes[:64])
    gate = GateStatus(verdict=report.gate_verdict[:64], submission=report.gate_submission, shapes=shapes)
    votes = VotesStatus(for_=report.votes_for, against=report.votes_against, dissent=report.votes_dissent)
    usage = UsageStatus(
        input_tokens=report.input_tokens, output_tokens=report.output_tokens, cached_input_tokens=report.cached_input_tokens,
        cost=report.cost[:32] if report.cost else None, currency=report.currency[:3] if report.currency else None,
    )  # fmt: skip
    status = SessionStatus(
        phase=report.phase, sequence=report.sequence, reason=report.reason[:253] or None, message=_short(report.message),
        start_time=report.started or None, completion_time=report.finished or None, duration=duration(report.started, report.finished),
        result=result if result.manifest() else None, gate=gate if report.gate_verdict else None,
        votes=votes if report.votes_for or report.votes_against or report.votes_dissent else None, usage=usage,
        ledger=LedgerStatus(first=report.ledger_first, last=report.ledger_last) if report.ledger_first is not None else None,
    )  # fmt: skip
    return status.manifest()


def duration(started: str, finished: str) -> str | None:
    """From start to end such as 4m12s, or None while one of them is not known. Pure."""
    try:
        seconds = int((datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds())
    except (ValueError, TypeError):
        return None
    hours, rest = divmod(max(0, seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else (f"{minutes}m{seconds}s" if minutes else f"{seconds}s")


def agent_status(report: AgentReport, sequence: int) -> dict[str, Any]:
    """The reported part of an Agent's status. Pure."""
    return AgentStatus(
        sequence=sequence, alive=report.alive, key_fingerprint=report.key_fingerprint[:80] or None,
        bound_commitment=report.commitment[:64] if report.identity_bound else None, bound_seed=report.bound_seed[:64] or None,
    ).manifest()  # fmt: skip


def check_log(report: Report, log_report: LogReport) -> None:
    """Raises `Invalid` unless a log's report is of one log: its keys bear its name, and nothing else in the report names another."""
    rotation.check_keys(log_report.origin, log_report.vkeys)
    if report.origin not in ("", log_report.origin):
        raise Invalid(f"report: log.origin is {log_report.origin[:80]!r}, origin is {report.origin[:80]!r}; expected the same")


def tenant_status(report: Report, stored: dict[str, Any], fork: str = "") -> dict[str, Any]:
    """The reporter's part of a Tenant's status: what the report leaves out stays as it is stored. Pure."""
    reporters = (ReporterStatus(name=report.reporter, sequence=report.sequence),)
    if report.reporter == "broker":
        providers = tuple(
            ProviderStatus(name=p.name[:253], available=p.available, reason=p.reason[:253] or None, message=_short(p.message))
            for p in report.providers[:32]
        )
        known = tuple(ProviderStatus.model_validate(p) for p in stored.get("providers") or ())
        return TenantStatus(reporters=reporters, providers=providers or known).manifest()
    document = report.document_digest[:80] or stored.get("reportedDocument")
    return TenantStatus(
        reporters=reporters, audit=audit_status(report, stored.get("audit") or {}, fork), reported_document=document
    ).manifest()


def audit_status(report: Report, stored: dict[str, Any], fork: str = "") -> AuditStatus | None:
    """What the core says of its log, and what is known against it. Pure."""
    if report.log is not None:
        said = report.log
        at = moment(said.anchored)
        return AuditStatus(
            origin=said.origin[:253], vkey=said.vkeys[0][:512], vkeys=tuple(vkey[:2304] for vkey in said.vkeys), size=said.size,
            root=said.root[:64] or None, entries=said.entries, state=said.state, reason=said.reason[:253] or None,
            message=_short(said.message), fork=_short(fork), witnessed=tuple(name[:253] for name in said.witnessed[:16]),
            anchored=datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at is not None else None,
            anchored_size=said.anchored_size if at is not None and said.anchored_size >= 0 else None, unanchored=_short(said.unanchored),
        )  # fmt: skip
    origin, vkey = report.origin[:253] or stored.get("origin"), report.vkey[:512] or stored.get("vkey")
    if not origin and not vkey:
        return None
    if origin != stored.get("origin"):
        return AuditStatus(origin=origin, vkey=vkey)
    kept = {name: value for name, value in stored.items() if name not in _LEADERS}
    return AuditStatus.model_validate({**kept, "origin": origin, "vkey": vkey, "fork": _short(fork) or stored.get("fork")})


def _origin(tenant: Obj) -> str:
    return str(((tenant.get("status") or {}).get("audit") or {}).get("origin") or "")


def reported_sequence(stored: dict[str, Any], reporter: str) -> int:
    """The highest sequence of a reporter that was taken in. Pure."""
    return next((int(r.get("sequence") or 0) for r in stored.get("reporters") or () if r.get("name") == reporter), 0)


def _news(after: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """What of `after` is not in `stored` already, sequences aside: a write that only moves a number is not made."""

    def covered(want: Any, have: Any) -> bool:
        if isinstance(want, dict) and isinstance(have, dict):
            return all(covered(value, have.get(name)) for name, value in want.items())
        return bool(want == have)

    return {n: v for n, v in after.items() if n not in ("sequence", "reporters") and not covered(v, stored.get(n))}


def _changed(audit: dict[str, Any], stored: dict[str, Any]) -> set[str]:
    """Parts of status.audit that read otherwise now; one that moves all the time and was not there before is given an extra name."""
    if not audit:
        return set()
    parts = {name for name in {*audit, *stored} - _LEADERS if audit.get(name) != stored.get(name)}
    return parts | {f"first {name}" for name in parts & _MOVING if name not in stored}


def _short(text: str) -> str | None:
    return text[:1024] or None


def _namespace(key: Key) -> dict[str, str]:
    return {"namespace": key.namespace} if key.namespace else {}
