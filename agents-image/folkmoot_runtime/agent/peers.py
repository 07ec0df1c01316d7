"""HTTP to the agent's peers: conductor, broker, sandbox. Status codes become our errors; answers are bounded and parsed.

What may pass (no answer, 503, a token that is about to be renewed) is `Unavailable`, and `patiently` tries it again until the
task's deadline cancels it. Every request here is safe to repeat: digests, journal places, fences and call keys see to that.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx2
from pydantic import TypeAdapter, ValidationError

from folkmoot_core import errors
from folkmoot_core.calls import CallAnswer, CallEnvelope
from folkmoot_core.canonical import digest as digest_of
from folkmoot_core.document import TenantDocument
from folkmoot_core.messages import WorkspaceFile
from folkmoot_core.workspace import Lease, LeaseRequest, StepRecord, ToolAnswer, ToolCall
from folkmoot_runtime.trust import Trust

log = logging.getLogger(__name__)
Result = TypeVar("Result")
MAX_ANSWER = 12 * 1024 * 1024  # bytes of any answer; artefacts have at most 10 MiB
CALL_TIMEOUT = 120.0  # seconds without an answer after which a model call is asked for again: the broker knows its key
TOOL_GRACE = 30.0  # seconds beyond a command's own limit
FIRST_WAIT = 0.1
LONGEST_WAIT = 5.0
_STEPS = TypeAdapter(list[StepRecord])


class PeerFailed(errors.FolkmootError):
    """The peer did its part and failed for good (a provider refused, a status that nobody expected)."""

    reason = "PeerFailed"


_BY_STATUS: dict[int, type[errors.FolkmootError]] = {
    400: errors.Invalid, 403: errors.Forbidden, 404: errors.Missing, 409: errors.Conflict, 413: errors.LimitReached,
    429: errors.LimitReached,
}  # fmt: skip
_PASSING = frozenset({401, 500, 503, 504})  # 401: the token is renewed, or the JWKS is about to arrive


async def patiently(act: Callable[[], Awaitable[Result]], what: str) -> Result:
    """Until it succeeds or fails for good. Bounded by the caller's deadline alone."""
    wait = FIRST_WAIT
    while True:
        try:
            return await act()
        except errors.Unavailable as error:
            log.warning("waiting for a peer", extra={"what": what, "error": error.message})
            pause = min(max(wait, error.retry_after or 0.0), LONGEST_WAIT)
        await asyncio.sleep(pause)
        wait *= 2


class Peer:
    """One peer by URL. `trust` None: plain HTTP (the sandbox). `transport`: a fake instead of the network."""

    def __init__(
        self, url: str, token_file: Path, trust: Trust | None, timeout: float, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self.url = url
        self._token_file = token_file
        self._trust = trust
        self._timeout = timeout
        self._transport = transport
        self._bundle = ""
        self._client: httpx2.AsyncClient | None = None

    async def ask(
        self, method: str, path: str, content: bytes | None = None, headers: dict[str, str] | None = None, timeout: float = 0.0
    ) -> httpx2.Response:
        """A successful answer (or 304), read whole; anything else is raised."""
        sent = {**(headers or {}), "Content-Type": "application/json"} if content is not None else dict(headers or {})
        try:
            sent["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
            request = self._connected().build_request(
                method, self.url + path, content=content, headers=sent, timeout=timeout or self._timeout
            )
            response = await self._connected().send(request, stream=True)
            try:
                body = await self._read(response)
            finally:
                await response.aclose()
        except (httpx2.HTTPError, OSError) as error:
            raise errors.Unavailable(f"{self.url} did not answer: {type(error).__name__}", reason="NoAnswer") from error
        if response.status_code >= 300 and response.status_code != httpx2.codes.NOT_MODIFIED:
            raise _refusal(self.url, response, body)
        return httpx2.Response(response.status_code, headers=_plain(response.headers), content=body)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _read(self, response: httpx2.Response) -> bytes:
        chunks, size = [], 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > MAX_ANSWER:
                raise PeerFailed(f"{self.url} answered with more than {MAX_ANSWER} bytes", reason="AnswerTooLarge")
            chunks.append(chunk)
        return b"".join(chunks)

    def _connected(self) -> httpx2.AsyncClient:
        """The client; made anew when the CA bundle changed. The old one is left to its running requests."""
        bundle = self._trust.read("ca.crt") if self._trust is not None else ""
        if self._client is None or bundle != self._bundle:
            self._bundle = bundle
            verify = self._trust.client_context() if self._trust is not None else False
            self._client = httpx2.AsyncClient(verify=verify, transport=self._transport, trust_env=False)
        return self._client


def _plain(headers: httpx2.Headers) -> dict[str, str]:
    """Headers of the body as read: it is decoded already."""
    return {key: value for key, value in headers.items() if key.lower() not in ("content-encoding", "content-length")}


def _refusal(url: str, response: httpx2.Response, body: bytes) -> errors.FolkmootError:
    try:
        problem = json.loads(body)
        reason, detail = str(problem["type"])[:64], str(problem["detail"])[:500]
    except (ValueError, KeyError, TypeError):
        reason, detail = "", f"{url} answered {response.status_code}"
    retry_after = response.headers.get("Retry-After", "")
    if response.status_code in _PASSING or (response.status_code == httpx2.codes.TOO_MANY_REQUESTS and retry_after.isdigit()):
        seconds = float(retry_after) if retry_after.isdigit() else None
        return errors.Unavailable(detail, reason=reason or "Unavailable", retry_after=seconds)
    kind = _BY_STATUS.get(response.status_code, PeerFailed)
    return kind(detail, reason=reason or None)


class Conductor:
    """The conductor's service door, as far as an agent may use it."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._etag = ""

    async def document(self, bound: str, key: str) -> TenantDocument | None:
        """The tenant document; None when it is the one answered last. Says in passing which commitment is bound with which key,
        and so that this agent lives."""
        query = f"?bound={quote(bound)}&key={quote(key)}" if bound else ""
        headers = {"If-None-Match": self._etag} if self._etag else {}
        response = await self._peer.ask("GET", f"/v1/document{query}", headers=headers)
        if response.status_code == httpx2.codes.NOT_MODIFIED:
            return None
        found = _parsed(TenantDocument, response.content, "tenant document")
        self._etag = response.headers.get("ETag", "")
        return found

    @property
    def digest(self) -> str:
        """Digest of the document answered last, as the conductor says it: an agent is shown it without the others' prompts."""
        return self._etag.strip('"')

    def forget(self) -> None:
        """Have the next document answered whole."""
        self._etag = ""

    async def artifact(self, digest: str) -> bytes:
        """Content by digest, checked; raises `Missing`."""
        content = (await self._peer.ask("GET", f"/v1/artifacts/{quote(digest)}")).content
        if digest_of(content) != digest:
            raise PeerFailed(f"artefact {digest}: the content has another digest", reason="DigestMismatch")
        return content

    async def put_artifact(self, session: str, content: bytes) -> str:
        """Store content of a session; its digest."""
        path = f"/v1/artifacts?session={quote(session)}"
        await self._peer.ask("PUT", path, content, {"Content-Type": "application/octet-stream"})
        return digest_of(content)

    async def steps(self, task: str) -> dict[int, StepRecord]:
        """The journal of a task's tool calls, by place."""
        content = (await self._peer.ask("GET", f"/v1/tasks/{quote(task, safe='')}/steps")).content
        try:
            return {record.step: record for record in _STEPS.validate_json(content)}
        except ValidationError:
            raise PeerFailed(f"journal of task {task}: the conductor's answer does not fit", reason="BadAnswer") from None

    async def put_step(self, task: str, record: StepRecord) -> None:
        """Write one place of the journal."""
        path = f"/v1/tasks/{quote(task, safe='')}/steps/{record.step}"
        await self._peer.ask("PUT", path, record.model_dump_json().encode())

    async def lease(self, session: str) -> Lease:
        """A lease on the own sandbox, with a higher fence than any before."""
        response = await self._peer.ask("POST", "/v1/leases", LeaseRequest(session=session).model_dump_json().encode())
        return _parsed(Lease, response.content, "lease")


class Broker:
    """The broker's door."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def call(self, envelope: CallEnvelope) -> CallAnswer:
        """One model call. Asking again after a lost answer finds the same call by its key."""
        content = envelope.model_dump_json().encode()
        response = await self._peer.ask("POST", "/v1/calls", content, timeout=CALL_TIMEOUT)
        return _parsed(CallAnswer, response.content, "model call")


class Sandbox:
    """The agent's sandbox under one lease. Any `Unavailable` or `Conflict` here means that the lease is gone."""

    def __init__(self, peer: Peer, lease: Lease) -> None:
        self._peer = peer
        self._lease = lease
        self._headers = {"Folkmoot-Lease": lease.nonce}

    async def open(self) -> None:
        """Take the lease, which wipes the workspace."""
        await self._peer.ask("POST", "/v1/lease", self._lease.model_dump_json().encode())

    async def put_file(self, file: WorkspaceFile, content: bytes) -> None:
        """Put one file into the workspace."""
        query = "?executable=1" if file.executable else ""
        headers = {**self._headers, "Content-Type": "application/octet-stream"}
        await self._peer.ask("PUT", f"/v1/files/{quote(file.path)}{query}", content, headers)

    async def blob(self, digest: str) -> bytes:
        """Content of a workspace file by digest, checked: what a sandbox says is not believed."""
        content = (await self._peer.ask("GET", f"/v1/blobs/{quote(digest)}", headers=self._headers)).content
        if digest_of(content) != digest:
            raise errors.Conflict(f"the sandbox gave other content than {digest}", reason="DigestMismatch")
        return content

    async def run(self, call: ToolCall) -> ToolAnswer:
        """Run a tool."""
        content = call.model_dump_json().encode()
        response = await self._peer.ask("POST", "/v1/tools", content, self._headers, timeout=call.timeout_seconds + TOOL_GRACE)
        return _parsed(ToolAnswer, response.content, "tool call")

    async def release(self) -> None:
        """Kill what runs and wipe."""
        await self._peer.ask("DELETE", "/v1/lease", headers=self._headers)


_Model = TypeVar("_Model", TenantDocument, Lease, CallAnswer, ToolAnswer)


def _parsed(model: type[_Model], content: bytes, what: str) -> _Model:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_input=False, include_url=False)[0]["loc"])
        raise PeerFailed(f"{what}: field {where or '(body)'} of the answer does not fit", reason="BadAnswer") from None
