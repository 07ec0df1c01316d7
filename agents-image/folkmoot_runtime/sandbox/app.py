"""The sandbox's door. Plain HTTP behind NetworkPolicy; every call is checked against a token and, within a lease, its nonce.

Obligations, numbered here and at the steps: 1. the token is this audience's and of the one caller this sandbox belongs to;
2. a lease with a lower fence than any seen is refused for ever; 3. a new lease kills and wipes first; 4. a call without the
current lease's nonce is refused; 5. the same call id is never run twice under one lease; 6. a tool that is not allowed is refused
here, whatever the model was told.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from folkmoot_core import names, tools
from folkmoot_core.errors import Conflict, Forbidden, Invalid
from folkmoot_core.workspace import Lease, ToolAnswer, ToolCall
from folkmoot_runtime import web
from folkmoot_runtime.sandbox import processes
from folkmoot_runtime.sandbox import tools as file_tools
from folkmoot_runtime.sandbox.processes import Jail, Ran
from folkmoot_runtime.sandbox.workspace import MAX_FILE, Workspace, wipe_directory
from folkmoot_runtime.trust import Trust

log = logging.getLogger(__name__)
LEASE_HEADER = "Folkmoot-Lease"
SHOWN_LEFT_OUT = 5


@dataclass(frozen=True)
class Rules:
    """What this sandbox's own environment says: who calls, which tools, how long a command may take."""

    caller: str
    tools: frozenset[str]
    timeout: int


@dataclass
class Sandbox:
    """State of one sandbox. `fence_file` keeps the highest fence over a restart of the process."""

    trust: Trust
    rules: Rules
    workspace: Workspace
    jail: Jail
    fence_file: Path
    scratch: tuple[Path, ...] = ()
    """Directories beside the workspace that a command can write; wiped with it. In a pod alone."""
    _lease: Lease | None = None
    _fence: int = 0  # the highest seen by this process: a command may have written the file, never this
    _ran: set[str] = field(default_factory=set)
    _running: asyncio.Task[Ran] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def app(self) -> Starlette:
        """Routes of docs/architecture.md."""
        routes = [
            Route("/v1/lease", self._take, methods=["POST"]),
            Route("/v1/lease", self._release, methods=["DELETE"]),
            Route("/v1/files/{path:path}", self._put_file, methods=["PUT"]),
            Route("/v1/blobs/{digest}", self._blob),
            Route("/v1/tools", self._tool, methods=["POST"]),
        ]
        return web.app(routes, ready=lambda: True)

    async def _take(self, request: Request) -> Response:
        self._authenticate(request)
        lease = await web.parse(request, Lease, limit=8192)
        highest = self._highest()
        if lease.fence < highest:  # 2
            raise Conflict(
                f"lease with fence {lease.fence} is older than {highest}; ask the conductor for a new one", reason="Fenced"
            )
        if self._lease is not None and lease.fence == self._lease.fence and hmac.compare_digest(lease.nonce, self._lease.nonce):
            return JSONResponse({"fence": lease.fence})  # said again after a lost answer: nothing to wipe
        if lease.fence == highest:
            raise Conflict(f"fence {lease.fence} was used before; ask the conductor for a new lease", reason="Fenced")
        self._fence = lease.fence
        self.fence_file.parent.mkdir(parents=True, exist_ok=True)
        self.fence_file.write_text(str(lease.fence))
        await self._clear()  # 3
        self._lease = lease
        log.info("lease taken", extra={"session": lease.session, "fence": lease.fence})
        return JSONResponse({"fence": lease.fence})

    async def _release(self, request: Request) -> Response:
        self._check(request)
        await self._clear()
        return Response(status_code=204)

    async def _put_file(self, request: Request) -> Response:
        self._check(request)
        data = await web.body(request, MAX_FILE)
        executable = request.query_params.get("executable") == "1"
        async with self._lock:
            self._check(request)
            await asyncio.to_thread(self.workspace.write, request.path_params["path"], data, executable=executable)
        return Response(status_code=204)

    async def _blob(self, request: Request) -> Response:
        self._check(request)
        async with self._lock:
            data = await asyncio.to_thread(self.workspace.blob, request.path_params["digest"])
        return Response(data, media_type="application/octet-stream")

    async def _tool(self, request: Request) -> Response:
        self._check(request)
        call = await web.parse(request, ToolCall, limit=4 * 1024 * 1024)
        if call.name not in self.rules.tools:  # 6
            raise Forbidden(
                f"tool {call.name[:32]!r} is not allowed here; allowed: {', '.join(sorted(self.rules.tools)) or 'none'}"
            )
        if wrong := tools.check_arguments(call.name, call.arguments):
            raise Invalid(wrong)
        async with self._lock:
            self._check(request)  # the lease may have changed while we waited
            if call.id in self._ran:  # 5
                raise Conflict(f"call {call.id[:100]} was run under this lease before", reason="AlreadyRun")
            self._ran.add(call.id)
            return web.answer(await self._run(call))

    async def _run(self, call: ToolCall) -> ToolAnswer:
        if call.name in {"bash", "grep"}:
            return await self._command(call)
        text, error = await asyncio.to_thread(file_tools.run, self.workspace, call.name, call.arguments)
        return await self._answer(text, error=error)

    async def _answer(self, text: str, **ended: Any) -> ToolAnswer:
        """With the workspace as it is now, and a word on what of it cannot be kept."""
        manifest = await asyncio.to_thread(self.workspace.manifest)
        left_out = self.workspace.left_out
        if left_out:
            more = f" and {len(left_out) - SHOWN_LEFT_OUT} more" if len(left_out) > SHOWN_LEFT_OUT else ""
            text += f"\n[not kept: {', '.join(left_out[:SHOWN_LEFT_OUT])}{more}]"
        return ToolAnswer(text=processes.clean(text), workspace=manifest, **ended)

    async def _command(self, call: ToolCall) -> ToolAnswer:
        script = call.arguments["command"] if call.name == "bash" else file_tools.grep_script(self.workspace, **call.arguments)
        limit = min(call.timeout_seconds, self.rules.timeout)
        self._running = asyncio.create_task(processes.run(self.jail, script, limit, self.workspace.overweight))
        try:
            ran = await self._running
        except asyncio.CancelledError:
            if self._running.cancelled():
                raise Conflict("the lease was taken over while the command ran; it was killed", reason="Fenced") from None
            raise
        finally:
            self._running = None
        if call.name == "grep" and ran.exit_code == 1:
            return await self._answer("(no line matches)", exit_code=1)
        text = ran.output
        if ran.timed_out:
            text += f"\n[killed after {limit} s, with everything it had started]"
        elif ran.stopped:
            text += f"\n[killed, with everything it had started: {ran.stopped}]"
        elif ran.exit_code:
            text += f"\n[exit code {ran.exit_code}]"
        failed = ran.timed_out or bool(ran.stopped) or bool(ran.exit_code)
        return await self._answer(text, error=failed, exit_code=ran.exit_code, timed_out=ran.timed_out)

    async def _clear(self) -> None:
        """Kill what runs, wipe. The lease is gone first, so that nothing new starts in between."""
        self._lease = None
        if self._running is not None:
            self._running.cancel()
        async with self._lock:
            await processes.kill_descendants()
            await asyncio.to_thread(self.workspace.wipe)
            await asyncio.to_thread(self._wipe_scratch)
            self._ran = set()

    def _wipe_scratch(self) -> None:
        for directory in self.scratch:
            wipe_directory(directory, keep=self.fence_file)

    def _authenticate(self, request: Request) -> None:
        caller = self.trust.caller(request.headers.get("authorization"), names.AUDIENCE_SANDBOX)  # 1
        if caller.service_account != self.rules.caller:
            raise Forbidden(
                f"ServiceAccount {caller.service_account} has no business here; this sandbox belongs to {self.rules.caller}"
            )

    def _check(self, request: Request) -> None:
        self._authenticate(request)
        nonce = request.headers.get(LEASE_HEADER, "")
        if self._lease is None or not hmac.compare_digest(nonce.encode(), self._lease.nonce.encode()):  # 4
            raise Conflict(
                f"header {LEASE_HEADER} does not name the current lease; ask the conductor for a new one", reason="LeaseLost"
            )

    def _highest(self) -> int:
        """The highest fence seen. The file is for a restart of this process; a command shares our uid and may have written it,
        so it can raise the fence of its own sandbox, and never lower it while we live."""
        try:
            return max(self._fence, int(self.fence_file.read_text()))
        except (FileNotFoundError, ValueError):
            return self._fence
