"""How other processes append: over the core pod's Unix socket or the TLS door, waiting until the entry is durable.

*No receipt, no effect*: a caller does what it announced only after `append` returned. What may pass is retried here with
the same id, which the ledger makes safe; whatever is raised is one of our errors. `InMemoryLedger` is the twin for tests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import httpx2

from folkmoot_core import errors
from folkmoot_core.document import LogReport
from folkmoot_core.entries import EntryRequest, Receipt, new_entry
from folkmoot_runtime.trust import Trust

__all__ = ["Appender", "InMemoryLedger", "LedgerClient", "new_entry"]

MAX_BATCH = 200  # entries of one request: the door's own limit (docs/architecture.md)
FIRST_WAIT = 0.05  # seconds before the first retry; doubles up to LONGEST_WAIT
LONGEST_WAIT = 2.0


class Appender(Protocol):
    """What producers need of a ledger: the client, or the twin."""

    async def append(self, request: EntryRequest) -> Receipt: ...

    async def aclose(self) -> None: ...


class LedgerClient:
    """One connection pool to one ledger. `timeout` bounds each `append` with all its retries, in seconds."""

    def __init__(self, url: str, token_file: Path | None, trust: Trust | None, timeout: float) -> None:
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._trust = trust
        self._timeout = timeout
        self._bundle: str | None = None
        self._client: httpx2.AsyncClient | None = None

    async def append(self, request: EntryRequest) -> Receipt:
        """Durable when this returns. `Conflict`: the id was used for something else; `Unavailable`: not within `timeout`."""
        answer = await self._post("/v1/entries", request.model_dump_json().encode())
        return _receipts(answer, single=True)[0]

    async def append_many(self, requests: Sequence[EntryRequest]) -> list[Receipt]:
        """At most 200 entries, all or none, in this order."""
        if not 1 <= len(requests) <= MAX_BATCH:
            raise errors.Invalid(f"a batch has 1 to {MAX_BATCH} entries, not {len(requests)}")
        body = b'{"entries":[' + b",".join(r.model_dump_json().encode() for r in requests) + b"]}"
        return _receipts(await self._post("/v1/entries", body), single=False)

    async def close_log(self) -> int:
        """Append `log.closed` (the conductor's right alone) and return the final size once a checkpoint covers it."""
        try:
            return int(json.loads(await self._post("/v1/close", b"{}"))["size"])
        except (ValueError, KeyError, TypeError) as error:
            raise errors.Unavailable("the ledger answered its closing with something else than a size") from error

    async def read(self, path: str) -> bytes | None:
        """A file of the log by its tlog-tiles path (`checkpoint`, `tile/…`, `log.vkey`), or None where it has none."""
        try:
            return await self._attempts("GET", f"/{path}", None)
        except errors.Missing:
            return None

    async def status(self) -> LogReport:
        """How the log stands. This and what follows is the conductor's right alone."""
        return _log_report(await self._attempts("GET", "/v1/status", None))

    async def rotate(self) -> str:
        """Exchange the log's keys; the new vkey. Asked once: what is not answered may have been done (`status` says)."""
        try:
            return str(json.loads(await self._once_in_time("/v1/rotate"))["vkey"])
        except (ValueError, KeyError, TypeError) as error:
            raise errors.Unavailable("the ledger answered a change of its keys with something else than a key") from error

    async def anchor(self) -> LogReport:
        """Have the log timestamped now; how it stands then."""
        return _log_report(await self._once_in_time("/v1/anchor"))

    async def freeze(self, reason: str, message: str) -> LogReport:
        """Have the log take and show nothing new until a person has decided; how it stands then."""
        return _log_report(await self._post("/v1/freeze", json.dumps({"reason": reason, "message": message}).encode()))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _post(self, path: str, body: bytes) -> bytes:
        return await self._attempts("POST", path, body)

    async def _attempts(self, method: str, path: str, body: bytes | None) -> bytes:
        wait = FIRST_WAIT
        last: errors.Unavailable | None = None
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    try:
                        return await self._once(method, path, body)
                    except errors.Unavailable as error:
                        last = error
                    await asyncio.sleep(min(max(wait, last.retry_after or 0.0), LONGEST_WAIT))
                    wait *= 2
        except TimeoutError:
            detail = f"; last: {last.message}" if last else ""
            raise errors.Unavailable(f"ledger {self._url} gave no receipt within {self._timeout:g} s{detail}") from last

    async def _once_in_time(self, path: str) -> bytes:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._once("POST", path, b"{}")
        except TimeoutError as error:
            raise errors.Unavailable(f"ledger {self._url} did not answer within {self._timeout:g} s") from error

    async def _once(self, method: str, path: str, body: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            if self._token_file is not None:
                headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
            client = await self._connected()
            response = await client.request(method, path, content=body, headers=headers)
        except (httpx2.HTTPError, OSError) as error:
            raise errors.Unavailable(f"ledger {self._url} did not answer: {type(error).__name__}") from error
        if response.status_code != httpx2.codes.OK:
            raise _refusal(response)
        return response.content

    async def _connected(self) -> httpx2.AsyncClient:
        """The pool; made anew when the CA bundle changed."""
        bundle = self._trust.read("ca.crt") if self._trust is not None else ""
        if self._client is None or bundle != self._bundle:
            await self.aclose()
            self._bundle = bundle
            if self._url.startswith("unix://"):
                transport = httpx2.AsyncHTTPTransport(uds=self._url.removeprefix("unix://"))
                self._client = httpx2.AsyncClient(
                    transport=transport, base_url="http://ledger", timeout=self._timeout, trust_env=False
                )
            elif self._trust is not None:
                context = self._trust.client_context()
                self._client = httpx2.AsyncClient(verify=context, base_url=self._url, timeout=self._timeout, trust_env=False)
            else:
                raise errors.Invalid(f"ledger {self._url}: expected unix:///path, or https:// with trust material")
        return self._client


def _receipts(answer: bytes, *, single: bool) -> list[Receipt]:
    try:
        value = json.loads(answer)
        return [Receipt.model_validate(item) for item in ([value] if single else value["receipts"])]
    except (ValueError, KeyError, TypeError) as error:  # pydantic's ValidationError is a ValueError
        raise errors.Unavailable("the ledger answered with something else than a receipt") from error


def _log_report(answer: bytes) -> LogReport:
    try:
        return LogReport.model_validate_json(answer)
    except ValueError as error:
        raise errors.Unavailable("the ledger said of its log what this process does not understand") from error


_BY_STATUS: dict[int, type[errors.FolkmootError]] = {
    400: errors.Invalid, 401: errors.Unauthorized, 403: errors.Unauthorized, 404: errors.Missing, 409: errors.Conflict,
}  # fmt: skip


def _refusal(response: httpx2.Response) -> errors.FolkmootError:
    """Our error behind a problem document."""
    try:
        problem = response.json()
        reason, detail = str(problem["type"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        reason, detail = "Unavailable", f"ledger answered {response.status_code}"
    retry_after = response.headers.get("Retry-After", "")
    if response.status_code == httpx2.codes.TOO_MANY_REQUESTS and not retry_after:
        return errors.LimitReached(detail, reason=reason)
    if kind := _BY_STATUS.get(response.status_code):
        return kind(detail, reason=reason)
    return errors.Unavailable(detail, reason=reason, retry_after=float(retry_after) if retry_after.isdigit() else None)


class InMemoryLedger:
    """Twin of `LedgerClient` for tests of producers: the same answers, nothing stored. `entries` holds what was appended.

    Set `failing` to an error to have every append refused with it.
    """

    def __init__(self) -> None:
        self.entries: list[EntryRequest] = []
        self.failing: errors.FolkmootError | None = None
        self._index: dict[str, int] = {}

    async def append(self, request: EntryRequest) -> Receipt:
        """As the client's: idempotent by id, `Conflict` when the same id comes with other content."""
        if self.failing is not None:
            raise self.failing
        known = self._index.get(request.id)
        if known is not None:
            if not request.same_fact(self.entries[known]):
                raise errors.Conflict(f"entry {request.id}: the id was used for other content", reason="IdReused")
            return Receipt(index=known, leaf=self._leaf(known), duplicate=True)
        self._index[request.id] = len(self.entries)
        self.entries.append(request)
        return Receipt(index=len(self.entries) - 1, leaf=self._leaf(len(self.entries) - 1))

    async def append_many(self, requests: Sequence[EntryRequest]) -> list[Receipt]:
        """Each in turn."""
        if not 1 <= len(requests) <= MAX_BATCH:
            raise errors.Invalid(f"a batch has 1 to {MAX_BATCH} entries, not {len(requests)}")
        return [await self.append(request) for request in requests]

    async def aclose(self) -> None:
        """Nothing to close."""

    def _leaf(self, index: int) -> str:
        return f"{index:064x}"
