"""What the broker needs of a vendor, and how a vendor's failures are told apart.

A provider file translates a `ModelRequest` to its vendor's wire and the answer back, and nothing else: it never retries,
logs or reads a key file. Everything it raises is a `ProviderError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import httpx2

from folkmoot_core.calls import ModelRequest, ModelResult, OpaquePart, ToolResultPart

Fault = Literal["status", "connect", "timeout", "lost", "garbage"]
MAX_VENDOR_TEXT = 200  # characters of a vendor's error that may be shown or logged
_KEYLIKE = re.compile(r"(?i)\b(?:sk|pk|rk|key|bearer|token|aiza)[-_ :=]*[a-z0-9_\-.*]*[0-9*][a-z0-9_\-.*]{3,}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape that may be half of a pair
MAX_COUNT = 10**12  # tokens of one call: more is not a count but a fault


class ProviderError(Exception):
    """One attempt failed.

    `fault`: `status` (the vendor refused with an HTTP status), `connect` (nothing was sent), `timeout` and `lost` (sent, and
    no whole answer came), `garbage` (an answer that is not the vendor's format). `sent` says whether it may have been billed.
    """

    def __init__(self, fault: Fault, message: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message[:MAX_VENDOR_TEXT]
        self.status = status
        self.retry_after = retry_after

    @property
    def sent(self) -> bool:
        """Whether the request left; only a connection that was never made proves that it did not."""
        return self.fault != "connect"


class Provider(Protocol):
    """One vendor, gateway or server."""

    async def complete(self, model: str, request: ModelRequest, timeout: float) -> ModelResult:
        """One attempt, at most `timeout` seconds; raises `ProviderError`."""


@dataclass(frozen=True)
class Target:
    """Where a provider file sends to, and with what. `api_key` never appears in a repr."""

    name: str
    type: str
    base_url: str  # '' means the vendor's own
    api_key: Secret
    http: httpx2.AsyncClient
    script: str = ""  # YAML text, for Scripted


class Secret:
    """A key that cannot be printed by accident."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself, for the vendor's client alone."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"


Build = Callable[[Target], Provider]


def from_transport(error: BaseException) -> ProviderError:
    """Tell a failed connection from a lost answer, by the httpx2 error at the bottom of the cause chain.

    SDKs wrap the transport's errors in classes that differ by vendor and version; the cause underneath does not.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.UnsupportedProtocol):
            return ProviderError("connect", f"no connection: {type(current).__name__}")
        if isinstance(current, httpx2.TimeoutException):
            return ProviderError("timeout", f"no answer in time: {type(current).__name__}")
        if isinstance(current, httpx2.TransportError):
            return ProviderError("lost", f"connection lost: {type(current).__name__}")
        current = current.__cause__ or current.__context__
    return ProviderError("lost", f"connection lost: {type(error).__name__}")


def from_response(response: httpx2.Response) -> ProviderError:
    """A refusal by HTTP status, never by class: classes differ by vendor and version. Nothing of the request is in the text."""
    return ProviderError(
        "status",
        vendor_text(response),
        status=response.status_code,
        retry_after=retry_after(response.headers.get("retry-after")),
    )


def vendor_text(response: httpx2.Response) -> str:
    """The vendor's own sentence, bounded; every vendor we speak to puts it at error.message."""
    try:
        value = response.json()
    except ValueError:
        return f"HTTP {response.status_code}"
    error = value.get("error") if isinstance(value, dict) else None
    text = error.get("message") if isinstance(error, dict) else None
    return printable(text) if isinstance(text, str) and text else f"HTTP {response.status_code}"


def printable(text: str) -> str:
    """One bounded line, without what looks like a key: vendors quote the one that they refuse."""
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_VENDOR_TEXT])
    return _KEYLIKE.sub("[key]", line)[:MAX_VENDOR_TEXT]


def retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header; the date form is not used by any vendor and counts as absent."""
    try:
        seconds = float(header) if header is not None else -1.0
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def garbage(what: str) -> ProviderError:
    """An answer that is not the vendor's format; `what` names the place, never the content."""
    return ProviderError("garbage", f"answer is not in the vendor's format: {what}")


# -- reading a vendor's JSON: each either returns the type or raises `garbage` with the place ------------------------------
def parse_object(content: bytes) -> dict[str, Any]:
    """The body as an object."""
    try:
        value = json.loads(content)
        if _SURROGATE.search(content):
            value = _whole(value)
    except (ValueError, RecursionError):
        raise garbage("body is not JSON") from None
    return as_object(value, "body")


def _whole(value: Any) -> Any:
    """The value with lone surrogates replaced: they cannot be stored, and the answer has been paid for."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def as_object(value: Any, where: str) -> dict[str, Any]:
    """`value`, which must be an object."""
    if not isinstance(value, dict):
        raise garbage(f"{where} is not an object")
    return value


def as_objects(value: Any, where: str) -> list[dict[str, Any]]:
    """`value`, which must be a list of objects; absent counts as empty."""
    if not isinstance(value, list | None):
        raise garbage(f"{where} is not a list")
    return [as_object(item, where) for item in value or ()]


def as_text(value: Any, where: str) -> str:
    """`value`, which must be text."""
    if not isinstance(value, str):
        raise garbage(f"{where} is not text")
    return value


def count(value: Any, where: str) -> int:
    """A token count; absent counts as 0."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise garbage(f"{where} is not a token count")
    return value


def arguments(text: Any) -> dict[str, Any] | None:
    """Tool arguments that come as JSON text; None when they break off or are no object."""
    try:
        value = json.loads(text) if isinstance(text, str) and text.strip() else {}
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


# -- writing a vendor's request ------------------------------------------------------------------------------------------
def compact(value: Any) -> str:
    """JSON text without spaces, in the order given."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def result_text(part: ToolResultPart) -> str:
    """A tool's result for vendors that have no flag for errors."""
    return f"Error: {part.text}" if part.error else part.text


def echo(part: OpaquePart, provider_type: str) -> dict[str, Any]:
    """The vendor's own part, unchanged; one of another vendor is a mistake of the caller and is never dropped silently."""
    if part.provider_type != provider_type:
        raise misplaced(f"opaque part of {printable(part.provider_type)[:40]}", provider_type)
    return part.value


def misplaced(what: str, where: str) -> ProviderError:
    """A part that this vendor has no place for: refused here, before anything is sent."""
    return ProviderError("status", f"{what} has no place in a message of {where}", status=422)
