"""A gate's checks: a command over a submission, in the checks sandbox, with the original tests restored.

Called by the driver for RunCheck. A check only reads the submission, so unlike an agent's command it may be run again when its
sandbox died; how often is bounded. The sandbox serves one lease at a time, so checks of all sessions stand in one line.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import httpx2
from pydantic import ValidationError

from folkmoot_core import names
from folkmoot_core.deliberation import CheckResult, RunCheck
from folkmoot_core.errors import FolkmootError, Unavailable
from folkmoot_core.probes import is_test_file
from folkmoot_core.probes.change import SETTINGS, steering
from folkmoot_core.workspace import Lease, ToolAnswer, ToolCall
from folkmoot_runtime.conductor import rows
from folkmoot_runtime.conductor.blobs import Artefacts, File
from folkmoot_runtime.conductor.store import Store

log = logging.getLogger(__name__)
ATTEMPTS: Final = 4  # a sandbox that dies this often under one check is killed by it
PATIENCE: Final = 120.0  # seconds to wait for a sandbox that does not answer at all
RETRY_SECONDS: Final = 2.0
ANSWER_SLACK: Final = 30.0  # seconds that the sandbox may take beyond the command's own limit
OUTPUT: Final = 4096


class Sandbox(Protocol):
    """One command over a set of files; raises `Unavailable` when the sandbox did not answer or died."""

    async def run(self, lease: Lease, files: dict[str, File], call: ToolCall) -> ToolAnswer: ...


class Checks:
    """Runs checks one after another. `sandbox` None: this tenant has none, and checks cannot pass."""

    def __init__(self, store: Store, artefacts: Artefacts, sandbox: Sandbox | None, endpoint: str) -> None:
        self._store = store
        self._artefacts = artefacts
        self._sandbox = sandbox
        self._endpoint = endpoint
        self._line = asyncio.Lock()

    async def run(self, session: str, need: RunCheck) -> CheckResult:
        """Never raises for what sandbox or submission do: what could not be run has no exit code, which is not a pass."""
        if self._sandbox is None:
            return CheckResult(exit_code=None, error="no checks sandbox is configured (FOLKMOOT_SANDBOX_URL)")
        try:
            head, base = await self._artefacts.files(need.workspace), await self._artefacts.files(need.base)
        except FolkmootError as error:
            return CheckResult(exit_code=None, error=error.message)
        async with self._line:
            return await self._attempts(self._sandbox, session, need, restored(head, base))

    async def _attempts(self, sandbox: Sandbox, session: str, need: RunCheck, files: dict[str, File]) -> CheckResult:
        last = "it did not answer"
        loop = asyncio.get_running_loop()
        give_up = loop.time() + PATIENCE + ATTEMPTS * need.timeout_seconds
        for attempt in range(1, ATTEMPTS + 1):
            lease = await self._lease(session)
            call = ToolCall(
                id=f"{need.id}/{lease.fence}"[-200:],
                name="bash",
                arguments={"command": need.run},
                timeout_seconds=need.timeout_seconds,
            )
            try:
                return _result(await self._patient(sandbox, lease, files, call, give_up))
            except FolkmootError as error:
                last = error.message
                log.warning("check not run", extra={"session": session, "check": need.name, "attempt": attempt, "error": last})
        return CheckResult(exit_code=None, error=f"the checks sandbox failed {ATTEMPTS} times; last: {last}"[:500])

    async def _patient(
        self, sandbox: Sandbox, lease: Lease, files: dict[str, File], call: ToolCall, give_up: float
    ) -> ToolAnswer:
        """Wait for a sandbox that is not there yet. Once it had the lease, its death counts as an attempt."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await sandbox.run(lease, files, call)
            except NotReached:
                if loop.time() > give_up:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    async def _lease(self, session: str) -> Lease:
        nonce = secrets.token_urlsafe(32)
        fence = await self._store.run(rows.grant_lease, names.SANDBOX_CHECKS, session, nonce)
        return Lease(session=session, endpoint=self._endpoint, nonce=nonce, fence=fence)


class NotReached(Unavailable):
    """The sandbox did not take the lease: nothing has run."""


class HttpSandbox:
    """The real one, over plain HTTP behind NetworkPolicy, with the core's own token."""

    def __init__(self, endpoint: str, token_file: Path, transport: Callable[[], httpx2.AsyncBaseTransport] | None = None) -> None:
        self._endpoint = endpoint
        self._token_file = token_file
        self._transport = transport

    async def run(self, lease: Lease, files: dict[str, File], call: ToolCall) -> ToolAnswer:
        """Take the lease (which wipes), put the files, run, let go."""
        try:
            token = self._token_file.read_text().strip()
        except OSError as error:
            raise NotReached(f"own token for {names.AUDIENCE_SANDBOX} cannot be read: {type(error).__name__}") from error
        headers = {"Authorization": f"Bearer {token}", "Folkmoot-Lease": lease.nonce}
        timeout = httpx2.Timeout(call.timeout_seconds + ANSWER_SLACK, connect=5)
        transport = self._transport() if self._transport else None
        async with httpx2.AsyncClient(
            base_url=self._endpoint, headers=headers, timeout=timeout, transport=transport, trust_env=False
        ) as client:
            try:
                taken = await client.post(
                    "/v1/lease", content=lease.model_dump_json(), headers={"Content-Type": "application/json"}
                )
            except httpx2.HTTPError as error:
                raise NotReached(f"checks sandbox {self._endpoint} does not take a lease: {type(error).__name__}") from error
            if taken.status_code == httpx2.codes.CONFLICT:
                # It died after it had noted the fence and before it answered. The same lease is refused for ever: a new one.
                raise Unavailable(f"checks sandbox {self._endpoint} has seen fence {lease.fence} before")
            if not taken.is_success:
                raise NotReached(f"checks sandbox {self._endpoint} answered {taken.status_code} to a lease")
            try:
                return await _use(client, files, call)
            except httpx2.HTTPError as error:
                raise Unavailable(f"checks sandbox {self._endpoint} went away: {type(error).__name__}") from error


async def _use(client: httpx2.AsyncClient, files: dict[str, File], call: ToolCall) -> ToolAnswer:
    for path, file in sorted(files.items()):
        query = {"executable": "1"} if file.executable else {}
        _expect(await client.put(f"/v1/files/{quote(path)}", content=file.content, params=query))
    response = _expect(
        await client.post("/v1/tools", content=call.model_dump_json(), headers={"Content-Type": "application/json"})
    )
    try:
        answer = ToolAnswer.model_validate_json(response.content)
    except ValidationError as error:
        raise Unavailable("checks sandbox answered with something else than a ToolAnswer") from error
    await client.delete("/v1/lease")
    return answer


def _expect(response: httpx2.Response) -> httpx2.Response:
    if not response.is_success:
        raise Unavailable(
            f"checks sandbox answered {response.status_code} to {response.request.method} {response.request.url.path[:80]}"
        )
    return response


def restored(head: dict[str, File], base: dict[str, File]) -> dict[str, File]:
    """The submission with the base's tests put back: deleted ones return, changed ones are as they were, new ones stay.

    Where the base has tests, their settings are the base's too, and what only the submission has and what could switch every
    test off is left out: a new conftest.py, a start-up hook, a module in front of the runner's. The base's tests need none that
    the base lacks. What no restoring helps against is code under test that ends the process: that is for reviewers, and for
    the probe `harness-tampered`.
    """
    tests = {path: file for path, file in base.items() if is_test_file(path)}
    if not tests:
        return head
    tests |= {path: file for path, file in base.items() if path.rsplit("/", 1)[-1] in SETTINGS}
    steers = steering(base)
    kept = {path: file for path, file in head.items() if path in base or not steers(path)}
    shadowed = {
        path for path in kept if any(test.startswith(f"{path}/") for test in tests)
    }  # a file where the tests' directory was
    return {**{path: file for path, file in kept.items() if path not in shadowed}, **tests}


def _result(answer: ToolAnswer) -> CheckResult:
    # What a tool call itself refused (error without exit code) did not run the command: not a pass either.
    error = answer.text[-500:] if answer.exit_code is None and not answer.timed_out else ""
    return CheckResult(exit_code=answer.exit_code, timed_out=answer.timed_out, output=answer.text[-OUTPUT:], error=error)
