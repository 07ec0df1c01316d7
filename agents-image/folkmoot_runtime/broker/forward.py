"""The log's way out: `POST /v1/witnesses/{name}/add-checkpoint` and `POST /v1/timestamps/{name}`, passed on and back unread.

The core has no way out of the tenant's network; it asks here by name, and the tenant document says which host the name is.
Obligations at each request, numbered here and at the steps: 1. the token is the core's own; 2. the name is in the document, and
its host alone is asked: no redirect, no proxy; 3. what goes out and what comes back is bounded in size, and both together in time;
4. the installation's own witness is known by the installation's CA alone, every other host by the system's roots; 5. nothing of
ours goes along: no token, no cookie. What an answer is worth is the log's to judge: cosignatures and timestamps are signed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from folkmoot_core import names
from folkmoot_core.document import AuditEntry, TenantDocument
from folkmoot_core.errors import Forbidden, Missing, Unavailable
from folkmoot_core.ledger import witness
from folkmoot_core.ledger.terms import CLUSTER
from folkmoot_runtime import web
from folkmoot_runtime.broker.providers import transport
from folkmoot_runtime.trust import Trust

DEADLINE: Final = 10.0  # seconds for one request, connecting included
MAX_TIMESTAMP: Final = 64 * 1024  # bytes of a query and of a reply; honest ones have a few KiB
QUERY_TYPE: Final = "application/timestamp-query"  # RFC 3161, section 3.4
BODILESS: Final = (204, 205, 304)


@dataclass(frozen=True)
class Way:
    """To whom, what kind of body, and how much of it."""

    what: str  # how an error names it
    url: str
    content_type: str
    max_request: int
    max_answer: int
    own: bool = False  # the installation's


class Failed(Exception):
    """No answer to pass on. `status` is 502, or 504 when the time was up; never leaves this module."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Forwarder:
    """Both routes. `document` gives the tenant document in force."""

    def __init__(self, document: Callable[[], TenantDocument | None], trust: Trust, *, deadline: float = DEADLINE) -> None:
        self._document = document
        self._trust = trust
        self._deadline = deadline
        self._clients: dict[str, httpx2.AsyncClient] = {}  # by CA bundle; "" for the system's roots

    def routes(self) -> list[Route]:
        """For the broker's door."""
        return [
            Route("/v1/witnesses/{name}/add-checkpoint", self._add_checkpoint, methods=["POST"]),
            Route("/v1/timestamps/{name}", self._timestamp, methods=["POST"]),
        ]

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    async def _add_checkpoint(self, request: Request) -> Response:
        self._admit(request)
        return await self._pass(request, to_witness(self._audit(), request.path_params["name"]))

    async def _timestamp(self, request: Request) -> Response:
        self._admit(request)
        return await self._pass(request, to_authority(self._audit(), request.path_params["name"]))

    def _admit(self, request: Request) -> None:
        caller = self._trust.caller(request.headers.get("Authorization"), names.AUDIENCE_BROKER)
        if caller.service_account != names.SA_CORE:  # 1
            raise Forbidden(f"ServiceAccount {caller.service_account} may not ask witnesses; only {names.SA_CORE} may")

    def _audit(self) -> AuditEntry:
        document = self._document()
        if document is None:
            raise Unavailable("the broker has no tenant document yet", reason="NoDocument", retry_after=1)
        return document.audit

    async def _pass(self, request: Request, way: Way) -> Response:
        body = await web.body(request, way.max_request)  # 3
        try:
            return await self._ask(way, body)
        except Failed as error:
            title = "GatewayTimeout" if error.status == 504 else "BadGateway"
            content = {"type": title, "title": title, "status": error.status, "detail": error.why}
            return JSONResponse(content, status_code=error.status, media_type="application/problem+json")

    async def _ask(self, way: Way, body: bytes) -> Response:
        host = _host(way)
        headers = {"Content-Type": way.content_type, "Accept-Encoding": "identity", "User-Agent": names.MANAGER}
        try:
            client = await self._client(own=way.own)
            async with asyncio.timeout(self._deadline):  # 3
                async with client.stream("POST", way.url, content=body, headers=headers) as answer:
                    content = await _bounded(answer, way)
        except TimeoutError:
            raise Failed(504, f"{way.what} at {host} did not answer within {self._deadline:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError, OSError, ValueError) as error:
            raise Failed(502, f"{way.what} at {host} is not reached: {type(error).__name__}: {str(error)[:200]}") from error
        finally:
            for known in self._clients.values():
                known.cookies.clear()  # 5
        if not 200 <= answer.status_code <= 599:
            raise Failed(502, f"{way.what} at {host} answered with status {answer.status_code}, which is none")
        kind = answer.headers.get("Content-Type", "")[:256].encode("ascii", "replace").decode()
        return Response(b"" if answer.status_code in BODILESS else content, answer.status_code, {"Content-Type": kind})

    async def _client(self, *, own: bool) -> httpx2.AsyncClient:
        bundle = self._trust.read("ca.crt") if own else ""  # 4
        if bundle not in self._clients:
            for old in [known for known in self._clients if known and bundle]:  # the installation's CA has changed
                await self._clients.pop(old).aclose()
            self._clients[bundle] = transport.client(ca=bundle, timeout=self._deadline)
        return self._clients[bundle]


def to_witness(audit: AuditEntry, name: str) -> Way:
    """The way to a witness; raises `Missing` for one that the document does not name."""
    for one in audit.witnesses:  # 2
        if one.name == name:
            url = f"{one.url.rstrip('/')}/add-checkpoint"
            return Way(f"witness {name}", url, witness.TEXT_TYPE, witness.MAX_REQUEST, witness.MAX_ANSWER, own=name == CLUSTER)
    raise _unknown("witness", name, (one.name for one in audit.witnesses))


def to_authority(audit: AuditEntry, name: str) -> Way:
    """The way to a timestamp authority; raises `Missing` for one that the document does not name."""
    for one in audit.authorities:  # 2
        if one.name == name:
            return Way(f"timestamp authority {name}", one.url, QUERY_TYPE, MAX_TIMESTAMP, MAX_TIMESTAMP, own=name == CLUSTER)
    raise _unknown("timestamp authority", name, (one.name for one in audit.authorities))


def _unknown(what: str, name: str, known: Iterable[str]) -> Missing:
    listed = ", ".join(sorted(known)) or "none"
    return Missing(f"the tenant document names no {what} {name[:80]!r}; it names {listed}")


def _host(way: Way) -> str:
    """Host and port of its URL, for sentences; raises `Failed` for a URL that could lead elsewhere than it seems to."""
    try:
        parts = urlsplit(way.url)
        usable = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    except ValueError:
        usable = False
    if not usable:
        raise Failed(502, f"{way.what}: the tenant document's URL is none; expected http or https, a host, and no credentials")
    return parts.netloc


async def _bounded(answer: httpx2.Response, way: Way) -> bytes:
    content = b""
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) > way.max_answer:
            raise httpx2.RemoteProtocolError(f"its answer is larger than {way.max_answer} bytes")
    return content
