"""A conductor in memory, product code for tests: what the operator's door of every tenant would answer."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from folkmoot_core.document import SessionOrder, SessionReport, TenantDocument
from folkmoot_core.errors import FolkmootError, Missing
from folkmoot_operator.conductor_client import finish_export


@dataclass
class FakeConductor:
    """All tenants' conductors. `errors[verb]` are raised one after the other before anything happens."""

    documents: dict[str, TenantDocument] = field(default_factory=dict)
    orders: dict[tuple[str, str], SessionOrder] = field(default_factory=dict)
    reports: dict[tuple[str, str], SessionReport] = field(default_factory=dict)
    sealed: dict[str, int] = field(default_factory=dict)
    cancelled: list[tuple[str, str]] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    errors: dict[str, list[FolkmootError]] = field(default_factory=dict)
    log_size: int = 7

    def fail(self, verb: str, *errors: FolkmootError) -> None:
        """The next calls of `verb` raise these."""
        self.errors.setdefault(verb, []).extend(errors)

    async def put_document(self, document: TenantDocument) -> str:
        """See `conductor_client.Conductor`."""
        self._enter("put_document", document.tenant)
        self.documents[document.tenant] = document
        return document.digest()

    async def put_session(self, tenant: str, order: SessionOrder) -> SessionReport:
        """See `conductor_client.Conductor`."""
        self._enter("put_session", tenant)
        key = (tenant, order.uid)
        before = self.reports.get(key)
        if before is None or before.generation != order.generation:
            self.orders[key] = order
            sequence = before.sequence + 1 if before else 1
            self.reports[key] = SessionReport(
                uid=order.uid, name=order.name, generation=order.generation, sequence=sequence, phase="Pending"
            )
        return self.reports[key]

    async def cancel(self, tenant: str, uid: str) -> None:
        """See `conductor_client.Conductor`."""
        self._enter("cancel", tenant)
        self.cancelled.append((tenant, uid))
        self.reports.pop((tenant, uid), None)

    async def sessions(self, tenant: str) -> list[SessionReport]:
        """See `conductor_client.Conductor`."""
        self._enter("sessions", tenant)
        ended = ("Succeeded", "Failed", "Cancelled")
        return [report for (owner, _), report in sorted(self.reports.items()) if owner == tenant and report.phase not in ended]

    async def seal(self, tenant: str) -> int:
        """See `conductor_client.Conductor`."""
        self._enter("seal", tenant)
        return self.sealed.setdefault(tenant, self.log_size)

    async def evidence(self, tenant: str, target: Path) -> None:
        """See `conductor_client.Conductor`."""
        self._enter("evidence", tenant)
        if tenant not in self.sealed:
            raise Missing(f"tenant {tenant}: the log is not sealed")
        partial = target.with_name(target.name + ".part")
        with tarfile.open(partial, "w") as archive:
            content = f"folkmoot/{tenant}\n{self.sealed[tenant]}\n".encode()
            member = tarfile.TarInfo("checkpoint")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        finish_export(partial, target)

    def _enter(self, verb: str, tenant: str) -> None:
        self.calls.append((verb, tenant))
        planned = self.errors.get(verb)
        if planned:
            raise planned.pop(0)
