"""The operator's side of a conductor's operator door (docs/architecture.md): document, sessions, seal, evidence.

mTLS with the operator's client certificate; one bounded pool; every call has a time limit; nobody is followed elsewhere, because a
core that was taken over would choose where. Errors are `folkmoot_core.errors`.
`fake_conductor.FakeConductor` is the in-memory twin.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
from pydantic import ValidationError

from folkmoot_core import names
from folkmoot_core.document import SessionOrder, SessionReport, TenantDocument
from folkmoot_core.errors import Conflict, FolkmootError, Invalid, LimitReached, Missing, Unauthorized, Unavailable

TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=5)
EXPORT_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=5, sock_read=60)
MAX_ANSWER: Final = 4 * 1024 * 1024
_CHUNK: Final = 1024 * 1024


class Conductor(Protocol):
    """What the operator asks of a tenant's conductor."""

    async def put_document(self, document: TenantDocument) -> str:
        """Hand over the whole document; returns the digest that was accepted."""
        ...

    async def put_session(self, tenant: str, order: SessionOrder) -> SessionReport:
        """Hand over one session; idempotent by uid and generation."""
        ...

    async def cancel(self, tenant: str, uid: str) -> None:
        """Cancel a session; one that is unknown or has ended is no error."""
        ...

    async def sessions(self, tenant: str) -> list[SessionReport]:
        """Sessions that have not ended."""
        ...

    async def seal(self, tenant: str) -> int:
        """Stop sessions and close the log; its size once it is closed."""
        ...

    async def evidence(self, tenant: str, target: Path) -> None:
        """Write the evidence as a tar to `target`, fsynced and whole, or raise."""
        ...


@dataclass
class HttpConductor:
    """The real one. `address` replaces `host:port` for an operator outside the cluster; `{namespace}` in it is filled in."""

    session: aiohttp.ClientSession
    address: str = ""

    async def put_document(self, document: TenantDocument) -> str:
        """See `Conductor`."""
        answer = await self._call("PUT", document.tenant, "/operator/v1/document", document.model_dump_json())
        return str(_json(answer).get("digest", ""))

    async def put_session(self, tenant: str, order: SessionOrder) -> SessionReport:
        """See `Conductor`."""
        answer = await self._call("PUT", tenant, f"/operator/v1/sessions/{order.uid}", order.model_dump_json())
        return _report(_json(answer))

    async def cancel(self, tenant: str, uid: str) -> None:
        """See `Conductor`."""
        try:
            await self._call("DELETE", tenant, f"/operator/v1/sessions/{uid}")
        except (Missing, Conflict):
            return

    async def sessions(self, tenant: str) -> list[SessionReport]:
        """See `Conductor`."""
        items = _json(await self._call("GET", tenant, "/operator/v1/sessions")).get("sessions")
        if not isinstance(items, list):
            raise Invalid(f"conductor of tenant {tenant}: expected a list of sessions")
        return [_report(item) for item in items]

    async def seal(self, tenant: str) -> int:
        """See `Conductor`."""
        answer = _json(await self._call("POST", tenant, "/operator/v1/seal"))
        size = answer.get("size")
        if not isinstance(size, int):
            raise Invalid(f"conductor of tenant {tenant}: the seal's answer has no size")
        return size

    async def evidence(self, tenant: str, target: Path) -> None:
        """See `Conductor`."""
        url, host = self._url(tenant, "/operator/v1/evidence")
        partial = target.with_name(target.name + ".part")
        try:
            async with self.session.get(url, server_hostname=host, timeout=EXPORT_TIMEOUT, allow_redirects=False) as response:
                if response.status >= 300:
                    raise _error(tenant, "GET /operator/v1/evidence", response.status, await response.content.read(65536), None)
                with await asyncio.to_thread(partial.open, "wb") as file:
                    async for chunk in response.content.iter_chunked(_CHUNK):
                        await asyncio.to_thread(file.write, chunk)
                    await asyncio.to_thread(_sync, file)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"conductor of tenant {tenant}: evidence broke off ({type(error).__name__})") from error
        except OSError as error:
            raise Unavailable(f"export volume: {partial.name} could not be written ({error.strerror})") from error
        await asyncio.to_thread(finish_export, partial, target)

    async def _call(self, method: str, tenant: str, path: str, body: str | None = None) -> bytes:
        url, host = self._url(tenant, path)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        what = f"{method} {path}"
        data = io.BytesIO(body.encode()) if body is not None else None  # a session's inputs may be megabytes: sent in pieces
        try:
            async with self.session.request(
                method, url, data=data, headers=headers, server_hostname=host, timeout=TIMEOUT, allow_redirects=False
            ) as response:
                content = await response.content.read(MAX_ANSWER + 1)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"conductor of tenant {tenant}: {what}: {type(error).__name__}") from error
        if len(content) > MAX_ANSWER:
            raise Invalid(f"conductor of tenant {tenant}: {what}: the answer is larger than {MAX_ANSWER} bytes")
        if response.status >= 300:
            raise _error(tenant, what, response.status, content, response.headers.get("Retry-After"))
        return content

    def _url(self, tenant: str, path: str) -> tuple[str, str]:
        namespace = names.tenant_namespace(tenant)
        host = f"{names.CORE}.{namespace}.svc"
        address = self.address.format(namespace=namespace) if self.address else f"{host}:{names.PORT_CONDUCTOR_OPERATOR}"
        return f"https://{address}{path}", host


def finish_export(partial: Path, target: Path) -> None:
    """Give a complete tar its name; raises `Unavailable` if it is not one or holds no log. Survives a crash at any point."""
    try:
        with tarfile.open(partial) as archive:
            members = archive.getnames()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise Unavailable(f"evidence {partial.name} is not a whole tar ({type(error).__name__})") from error
    if not any(Path(name).name == "checkpoint" for name in members):
        raise Unavailable(f"evidence {partial.name} holds no checkpoint")
    os.replace(partial, target)
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise Invalid("conductor: the answer is not JSON") from error
    if not isinstance(value, dict):
        raise Invalid("conductor: expected a JSON map")
    return value


def _report(value: object) -> SessionReport:
    try:
        return SessionReport.model_validate(value, strict=False)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise Invalid(f"conductor: SessionReport: field {first['loc']}: {first['msg']}") from None


_ERRORS: Final[dict[int, type[FolkmootError]]] = {
    400: Invalid, 401: Unauthorized, 403: Unauthorized, 404: Missing, 409: Conflict, 413: LimitReached, 422: Invalid,
}  # fmt: skip


def _error(tenant: str, what: str, status: int, content: bytes, retry_after: str | None) -> FolkmootError:
    try:
        problem = json.loads(content)
        detail, reason = str(problem.get("detail", ""))[:500], str(problem.get("type", ""))
    except (ValueError, AttributeError):
        detail, reason = "", ""
    sentence = f"conductor of tenant {tenant}: {what}: {status} {detail}".rstrip()
    kind = _ERRORS.get(status)
    if kind is not None:
        return kind(sentence, reason=reason if reason.isalnum() and reason[:1].isupper() else None)
    return Unavailable(sentence, retry_after=float(retry_after) if retry_after and retry_after.isdigit() else None)
