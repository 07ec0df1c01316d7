"""The API server: what we ask of it (`Kube`) and the one HTTP client that does (`HttpKube`). Nothing else here speaks HTTP to it.

One capped session, pages of 500, server-side apply, deletes with a uid precondition. A 429 or 5xx is retried a few times with
`Retry-After` obeyed, then surfaces as `Unavailable`; writes pass a token bucket. `fake_kube.FakeKube` passes the same tests.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import aiohttp

from folkmoot_core import names
from folkmoot_core.errors import Conflict, FolkmootError, Invalid, Missing, Unauthorized, Unavailable
from folkmoot_operator.kinds import Key, Kind, Obj, key_of
from folkmoot_operator.kube_config import Connection

PAGE: Final = 500
ATTEMPTS: Final = 4
TIMEOUT: Final = 30.0
_MAX_WAIT: Final = 10.0  # a longer Retry-After is the queue's business, not this call's
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"


class Kube(Protocol):
    """What the operator asks of the API server. Errors are those of `folkmoot_core.errors`."""

    def pages(self, kind: Kind, *, namespace: str = "", labels: str = "") -> AsyncIterator[list[Obj]]:
        """Objects of a kind in pages; items carry apiVersion and kind."""
        ...

    async def get(self, kind: Kind, key: Key) -> Obj:
        """One object; raises `Missing`."""
        ...

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        """Create; raises `Conflict` (reason AlreadyExists)."""
        ...

    async def update(self, kind: Kind, obj: Obj) -> Obj:
        """Replace under the object's resourceVersion; raises `Conflict`."""
        ...

    async def apply(self, kind: Kind, obj: Obj, *, manager: str = names.FIELD_MANAGER, status: bool = False) -> Obj:
        """Server-side apply with force; a resourceVersion in metadata is a precondition (`Conflict`)."""
        ...

    async def patch(self, kind: Kind, key: Key, patch: Obj) -> Obj:
        """JSON merge patch; a resourceVersion in its metadata is a precondition (`Conflict`)."""
        ...

    async def delete(self, kind: Kind, key: Key, *, uid: str = "") -> bool:
        """Delete in the background; with `uid` only that very object. False if it is not there (any more)."""
        ...

    async def raw(self, path: str) -> bytes:
        """GET of another path (JWKS, version)."""
        ...


class Meter(Protocol):
    """What the metrics want to know."""

    def request(self, method: str, code: str) -> None: ...


class NoMeter:
    """Counts nothing."""

    def request(self, method: str, code: str) -> None: ...


@dataclass
class TokenBucket:
    """At most `rate` per second after a burst; the event loop's time."""

    rate: float
    burst: float
    _tokens: float = -1.0
    _stamp: float = 0.0

    async def take(self) -> None:
        """Wait until one more is allowed; waiters are let through in the order in which they came."""
        now = asyncio.get_running_loop().time()
        if self._tokens < 0 and self._stamp == 0:
            self._tokens = self.burst
        else:
            self._tokens = min(self.burst, self._tokens + (now - self._stamp) * self.rate)
        self._stamp = now
        self._tokens -= 1  # may go below zero: a debt that this caller waits off
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self.rate)


def middleware(
    connection: Connection,
) -> Callable[[aiohttp.ClientRequest, aiohttp.ClientHandlerType], Awaitable[aiohttp.ClientResponse]]:
    """Puts the current bearer token on each request, so that a renewed one needs no new session."""

    async def authorize(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if token := connection.token():
            request.headers["Authorization"] = f"Bearer {token}"
        return await handler(request)

    return authorize


def connector(connection: Connection, limit: int) -> aiohttp.TCPConnector:
    """The capped pool; kopf's session and ours share one."""
    return aiohttp.TCPConnector(limit=limit, ssl=connection.tls)


@dataclass
class HttpKube:
    """The real API server."""

    connection: Connection
    session: aiohttp.ClientSession
    writes: TokenBucket
    meter: Meter = field(default_factory=NoMeter)
    rng: random.Random = field(default_factory=random.Random)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def pages(self, kind: Kind, *, namespace: str = "", labels: str = "") -> AsyncIterator[list[Obj]]:
        """See `Kube`. A list that expired half-way (410) surfaces as `Unavailable`: the caller starts anew."""
        params = {"limit": str(PAGE)} | ({"labelSelector": labels} if labels else {})
        while True:
            answer = await self._json("GET", kind.path(namespace), params=params)
            yield [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in answer.get("items") or ()]
            following = answer["metadata"].get("continue")
            if not following:
                return
            params["continue"] = following

    async def get(self, kind: Kind, key: Key) -> Obj:
        """See `Kube`."""
        return await self._json("GET", kind.path(key.namespace, key.name))

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        """See `Kube`."""
        params = {"fieldManager": names.FIELD_MANAGER}
        return await self._json("POST", kind.path(key_of(obj).namespace), params=params, body=obj)

    async def update(self, kind: Kind, obj: Obj) -> Obj:
        """See `Kube`."""
        key = key_of(obj)
        params = {"fieldManager": names.FIELD_MANAGER}
        return await self._json("PUT", kind.path(key.namespace, key.name), params=params, body=obj)

    async def apply(self, kind: Kind, obj: Obj, *, manager: str = names.FIELD_MANAGER, status: bool = False) -> Obj:
        """See `Kube`."""
        key = key_of(obj)
        params = {"fieldManager": manager, "force": "true"}
        path = kind.path(key.namespace, key.name, "status" if status else "")
        return await self._json("PATCH", path, params=params, body=obj, content_type=_APPLY)

    async def patch(self, kind: Kind, key: Key, patch: Obj) -> Obj:
        """See `Kube`."""
        params = {"fieldManager": names.FIELD_MANAGER}
        return await self._json("PATCH", kind.path(key.namespace, key.name), params=params, body=patch, content_type=_MERGE)

    async def delete(self, kind: Kind, key: Key, *, uid: str = "") -> bool:
        """See `Kube`."""
        body: Obj = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self._json("DELETE", kind.path(key.namespace, key.name), body=body)
        except Missing:
            return False
        except Conflict:
            if uid:  # another object took the name: the one meant is gone
                return False
            raise
        return True

    async def raw(self, path: str) -> bytes:
        """See `Kube`."""
        return await self._request("GET", path, {}, None, "")

    async def _json(self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Obj | None = None,
                    content_type: str = "application/json") -> Obj:  # fmt: skip
        data = json.dumps(body, separators=(",", ":")).encode() if body is not None else None
        answer: Obj = json.loads(await self._request(method, path, dict(params or {}), data, content_type))
        return answer

    async def _request(self, method: str, path: str, params: Mapping[str, str], data: bytes | None, content_type: str) -> bytes:
        attempt = 0
        while True:
            attempt += 1
            if method != "GET":
                await self.writes.take()
            try:
                return await self._once(method, path, params, data, content_type)
            except Unavailable as error:
                # Writes are idempotent here (apply, delete by uid, create answered by AlreadyExists), so repeating is safe.
                wait = error.retry_after if error.retry_after is not None else self.rng.uniform(0.1, 0.5 * 2**attempt)
                if attempt >= ATTEMPTS or wait > _MAX_WAIT:
                    raise
                await self.sleep(wait)

    async def _once(self, method: str, path: str, params: Mapping[str, str], data: bytes | None, content_type: str) -> bytes:
        # Key sets are served as application/jwk-set+json alone.
        headers = {"Accept": "application/json, application/jwk-set+json"} | (
            {"Content-Type": content_type} if data is not None else {}
        )
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        url = self.connection.server + path
        try:
            async with self.session.request(method, url, params=params, data=data, headers=headers, timeout=timeout) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.meter.request(method, "<error>")
            raise Unavailable(f"{method} {path}: {type(error).__name__}") from error
        self.meter.request(method, str(response.status))
        if response.status < 400:
            return content
        raise error_of(method, path, response.status, content, response.headers.get("Retry-After"))


def error_of(method: str, path: str, code: int, content: bytes, retry_after: str | None) -> FolkmootError:
    """The API server's answer as one of our errors, with its own sentence."""
    try:
        status = json.loads(content)
        message, reason = str(status.get("message", ""))[:500], str(status.get("reason", ""))
    except (ValueError, AttributeError):
        message, reason = "", ""
    sentence = f"{method} {path}: {code} {message}".rstrip()
    if code == 404:
        return Missing(sentence)
    if code == 409:
        return Conflict(sentence, reason=reason or "Conflict")
    if code in (401, 403):
        return Unauthorized(sentence, reason="Forbidden" if code == 403 else "Unauthorized")
    if code == 429 or code >= 500 or code == 410:
        seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
        return Unavailable(sentence, retry_after=seconds)
    return Invalid(sentence, reason=reason or "Invalid")


async def listed(kube: Kube, kind: Kind, *, namespace: str = "", labels: str = "") -> list[Obj]:
    """All pages together."""
    return [item async for page in kube.pages(kind, namespace=namespace, labels=labels) for item in page]


def merged(base: Any, patch: Any) -> Any:
    """RFC 7386 JSON merge patch."""
    if not isinstance(patch, dict):
        return patch
    result = dict(base) if isinstance(base, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result
