"""The workspace of one task: files by digest in the conductor's artefact store, at work in the sandbox under a lease.

The store is the truth: after each call what changed goes there, and a sandbox that died is filled again from it. Nothing here
decides whether a call may run again; that is the worker's journal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from pydantic import ValidationError

from folkmoot_core.errors import Conflict, FolkmootError, Forbidden, Invalid, LimitReached, Unavailable
from folkmoot_core.messages import WorkspaceFile, WorkspaceManifest
from folkmoot_core.workspace import Lease, ToolAnswer, ToolCall
from folkmoot_runtime.agent.peers import Conductor, Sandbox, patiently

log = logging.getLogger(__name__)
TRANSFERS = 4  # files on their way at once: bounds memory to a few artefacts
REOPEN_SECONDS = 0.5
Item = TypeVar("Item")


class NoResult(Exception):
    """The call has no result that counts; the workspace is as it was before. `state` is how it is recorded."""

    state = "refused"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Refused(NoResult):
    """The sandbox did not run it."""


class SandboxLost(NoResult):
    """The lease is gone, or the sandbox: what was running there has an unknown effect."""

    state = "interrupted"


class Undone(NoResult):
    """It ran, but its workspace cannot be stored; the sandbox is given up, so that nobody builds on what is not kept."""

    state = "undone"


class Workspace:
    """`digest` names the last manifest that is in the store. The sandbox is opened when it is first needed."""

    def __init__(self, conductor: Conductor, sandbox_of: Callable[[Lease], Sandbox], session: str, digest: str) -> None:
        self.digest = digest
        self._conductor = conductor
        self._sandbox_of = sandbox_of
        self._session = session
        self._sandbox: Sandbox | None = None
        self._stored: set[str] = set()

    async def ready(self) -> None:
        """A sandbox under a fresh lease, filled from the store. Waits as long as its caller lets it."""
        while self._sandbox is None:
            try:
                lease = await patiently(lambda: self._conductor.lease(self._session), "lease")
                sandbox = self._sandbox_of(lease)
                await patiently(sandbox.open, "sandbox")
                await self._fill(sandbox)
                self._sandbox = sandbox
            except (Conflict, Unavailable) as error:
                log.warning("workspace not open yet", extra={"session": self._session, "error": error.message})
                await asyncio.sleep(REOPEN_SECONDS)

    async def run(self, call: ToolCall) -> ToolAnswer:
        """Run a tool and bring what it changed into the store; `digest` moves. Raises `NoResult`."""
        sandbox = self._sandbox
        if sandbox is None:
            raise SandboxLost("no lease")
        try:
            answer = await sandbox.run(call)
        except (Invalid, Forbidden, LimitReached) as error:
            raise Refused(error.message) from error
        except (Conflict, Unavailable) as error:
            self._sandbox = None
            raise SandboxLost(error.reason) from error
        except FolkmootError as error:
            self._sandbox = None
            raise Undone(error.message) from error
        await self._store(sandbox, answer.workspace)
        return answer

    async def _store(self, sandbox: Sandbox, manifest: WorkspaceManifest) -> None:
        try:
            changed = {file.digest for file in manifest.files} - self._stored
            await _each(sorted(changed), lambda digest: self._save(sandbox, digest))
            content = manifest.canonical()
            self.digest = await patiently(lambda: self._conductor.put_artifact(self._session, content), "conductor")
        except (Conflict, Unavailable) as error:
            self._sandbox = None
            raise SandboxLost(error.reason) from error
        except FolkmootError as error:
            self._sandbox = None
            raise Undone(error.message) from error

    async def release(self) -> None:
        """Give the sandbox back; whoever needs it next takes it with a higher fence in any case."""
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            await sandbox.release()

    async def _save(self, sandbox: Sandbox, digest: str) -> None:
        content = await sandbox.blob(digest)
        await patiently(lambda: self._conductor.put_artifact(self._session, content), "conductor")
        self._stored.add(digest)

    async def _fill(self, sandbox: Sandbox) -> None:
        content = await patiently(lambda: self._conductor.artifact(self.digest), "conductor")
        try:
            manifest = WorkspaceManifest.model_validate_json(content)
        except ValidationError:
            raise Invalid(f"artefact {self.digest} is no workspace manifest", reason="BadManifest") from None
        await _each(manifest.files, lambda file: self._put(sandbox, file))
        self._stored.update(file.digest for file in manifest.files)

    async def _put(self, sandbox: Sandbox, file: WorkspaceFile) -> None:
        content = await patiently(lambda: self._conductor.artifact(file.digest), "conductor")
        await sandbox.put_file(file, content)


async def _each(items: Iterable[Item], act: Callable[[Item], Awaitable[None]]) -> None:
    """Act on all, a few at a time; the first failure stops the rest."""
    waiting = iter(items)

    async def lane() -> None:
        for item in waiting:
            await act(item)

    lanes = [asyncio.ensure_future(lane()) for _ in range(TRANSFERS)]
    try:
        await asyncio.gather(*lanes)
    finally:
        for each in lanes:
            each.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
