"""Faults a rule can call for: a vendor's error status, a cut or hanging connection, a reply that is subtly broken.

Parsed by `scenario`, applied by `decide` (what the reply becomes) and `server` (what the connection does).
Vendors' error bodies are the wires' business.
"""

from __future__ import annotations

from dataclasses import dataclass

STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 429, 500, 502, 503, 504, 529)
"""Statuses the four vendors are known to answer with."""

DEFAULT_MESSAGES = {
    400: "The request was invalid.",
    401: "The API key is invalid.",
    402: "There is a problem with your billing.",
    403: "The API key has no permission for this resource.",
    404: "The requested resource was not found.",
    408: "The request timed out.",
    409: "The request conflicts with another one.",
    413: "The request exceeds the maximum size.",
    429: "The request would exceed the rate limit.",
    500: "Internal server error.",
    502: "Bad gateway.",
    503: "The service is temporarily unavailable.",
    504: "The request timed out upstream.",
    529: "Overloaded.",
}

VIOLATION = '{"unexpected": "schema_violation"}'
"""Valid JSON that no schema with a required property, or without additional ones, accepts."""


@dataclass(frozen=True)
class Fault:
    """Exactly one of `status`, `hang`, `cut`, `garbage`, `schema_violation`, `truncated_args` is set."""

    status: int | None = None
    retry_after: float | None = None
    """Seconds, sent as the Retry-After header; only with `status`. Without it no such header is sent."""
    message: str | None = None
    """The error's text; only with `status`."""
    hang: float | None = None
    """Seconds of silence, then the connection is closed without a byte. Never billed."""
    cut: bool = False
    """The head and half of the body are sent, then the connection is closed. Billed: the model did its work."""
    garbage: bool = False
    """200 with a body that is not JSON. Billed."""
    schema_violation: bool = False
    """200 whose text is JSON that violates the schema asked for. Billed."""
    truncated_args: bool = False
    """200 whose tool arguments break off, with the finish reason for it. Billed."""

    @property
    def error_message(self) -> str:
        return self.message or DEFAULT_MESSAGES[self.status or 500]


KINDS = ("status", "hang", "cut", "garbage", "schema_violation", "truncated_args")
