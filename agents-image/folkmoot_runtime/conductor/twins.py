"""The conductor's peers in memory: ledger, operator, checks sandbox. For tests and dry runs; the bus's twin is `bus.memory`.

Nothing survives the process. Each can be made to fail the way the real one does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from folkmoot_core.document import LogReport, Report
from folkmoot_core.entries import EntryRequest, Producer, Receipt
from folkmoot_core.errors import Conflict, FolkmootError, Unavailable
from folkmoot_core.messages import WorkspaceManifest
from folkmoot_core.workspace import Lease, ToolAnswer, ToolCall
from folkmoot_runtime.conductor.blobs import File
from folkmoot_runtime.ledger.twin import MemoryLog

CONDUCTOR = Producer(id="core/conductor")


class MemoryLedger:
    """`notary.Ledger` over the ledger's own twin. Set `failing` to have everything refused with it."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.failing: FolkmootError | None = None
        self.entries: dict[str, EntryRequest] = {}
        self.duplicates: list[str] = []
        self.frozen: tuple[str, str] | None = None

    async def append(self, request: EntryRequest) -> Receipt:
        """See `LedgerClient.append`."""
        if self.failing is not None:
            raise self.failing
        if self.frozen is not None:
            raise Unavailable(f"the log is frozen ({self.frozen[0]})", reason="LogFrozen", retry_after=60)
        (receipt,) = await self.log.append([request], CONDUCTOR)
        if receipt.duplicate:
            self.duplicates.append(request.id)
        self.entries.setdefault(request.id, request)
        return receipt

    async def close_log(self) -> int:
        """See `LedgerClient.close_log`."""
        if self.failing is not None:
            raise self.failing
        return await self.log.close_log()

    async def read(self, path: str) -> bytes | None:
        """See `LedgerClient.read`."""
        await self.log.publish()
        return await self.log.read(path)

    async def status(self) -> LogReport:
        """See `LedgerClient.status`."""
        if self.failing is not None:
            raise self.failing
        stands = self.log.status()
        if self.frozen is None:
            return stands
        return stands.model_copy(update={"state": "Frozen", "reason": self.frozen[0], "message": self.frozen[1]})

    async def freeze(self, reason: str, message: str) -> LogReport:
        """See `LedgerClient.freeze`."""
        self.frozen = self.frozen or (reason, message)
        return await self.status()

    async def rotate(self) -> str:
        """See `LedgerClient.rotate`."""
        return await self.log.rotate()

    async def anchor(self) -> LogReport:
        """See `LedgerClient.anchor`."""
        await self.log.anchor()
        return self.log.status()

    async def aclose(self) -> None:
        """Nothing to close."""

    def types(self, session: str) -> list[str]:
        """Entry types of a session, in the order they were first appended."""
        return [entry.type for entry in self.entries.values() if entry.session == session]


class MemoryOperator:
    """`reports.Operator`: keeps what it was told. While `away` it takes nothing; with `fork` it answers that the log has forked."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.away = False
        self.fork = ""

    async def report(self, report: Report) -> None:
        """See `Operator.report`."""
        if self.away:
            raise Unavailable("the operator is away")
        self.reports.append(Report.model_validate(json.loads(report.model_dump_json())))
        if self.fork and report.log is not None and report.log.state != "Frozen":
            raise Conflict(self.fork, reason="ForkDetected")


class MemoryCalls:
    """`erasure.Calls`: keeps what it was asked. While `away` it erases nothing."""

    def __init__(self) -> None:
        self.erased: list[str] = []
        self.away = False

    async def erase(self, sessions: Sequence[str]) -> None:
        """See `Calls.erase`."""
        if self.away:
            raise Unavailable("the broker is away")
        self.erased += sessions

    async def aclose(self) -> None:
        """Nothing to close."""


class MemorySandbox:
    """`checks.Sandbox`: answers by a function of command and files. `deaths` runs end with the sandbox's death first."""

    def __init__(self, answer: Callable[[str, dict[str, File]], tuple[int, str]]) -> None:
        self.deaths = 0
        self.leases: list[Lease] = []
        self.runs: list[tuple[str, dict[str, File]]] = []
        self._answer = answer

    async def run(self, lease: Lease, files: dict[str, File], call: ToolCall) -> ToolAnswer:
        """See `Sandbox.run`."""
        if self.leases and lease.fence <= self.leases[-1].fence:
            raise Unavailable("the lease's fence is not higher than one before")
        self.leases.append(lease)
        if self.deaths > 0:
            self.deaths -= 1
            raise Unavailable("the checks sandbox died")
        command = str(call.arguments["command"])
        self.runs.append((command, files))
        exit_code, text = self._answer(command, files)
        return ToolAnswer(text=text, error=exit_code != 0, exit_code=exit_code, workspace=WorkspaceManifest())
