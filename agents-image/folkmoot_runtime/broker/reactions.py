"""What a failed attempt calls for: try again, fail, or doubt. Pure; `attempts` acts on it. runtime.md §0 "Retries".

Retries are ours because no vendor takes an idempotency key and one SDK does not retry at all. An attempt that may have been
billed is never repeated here: that is for the journal's policy to say (`asks`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from folkmoot_runtime.broker.providers.interface import ProviderError

MAX_ATTEMPTS: Final = 4
FIRST_WAIT: Final = 0.5  # seconds; doubles with each attempt
LONGEST_WAIT: Final = 8.0
LONGEST_RETRY_AFTER: Final = 30.0  # a vendor that asks for more is obeyed up to here
RETRIED: Final = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
_REASONS: Final[dict[int, str]] = {
    400: "ProviderRejected", 401: "ProviderUnauthorized", 402: "ProviderPaymentRequired", 403: "ProviderForbidden",
    404: "ProviderNotFound", 408: "ProviderFailed", 409: "ProviderFailed", 413: "ProviderRequestTooLarge",
    422: "ProviderRejected", 429: "ProviderRateLimited", 529: "ProviderOverloaded",
}  # fmt: skip


@dataclass(frozen=True)
class Again:
    """Nothing was billed and it may pass: wait so many seconds."""

    wait: float


@dataclass(frozen=True)
class Failed:
    """Nothing was billed, and more attempts will not help now."""

    reason: str
    message: str


@dataclass(frozen=True)
class Doubtful:
    """It left and no usable answer came. `repeat`: worth one more attempt at once; a timeout has had its time already."""

    reason: str
    message: str
    repeat: bool


def react(error: ProviderError, attempt: int, left: float, jitter: float) -> Again | Failed | Doubtful:
    """`attempt` counts from 1, `left` are the seconds until the call's deadline, `jitter` is in [0, 1)."""
    if error.fault == "timeout":
        return Doubtful("ProviderTimeout", error.message, repeat=False)
    if error.fault == "lost":
        return Doubtful("ProviderReplyLost", error.message, repeat=True)
    if error.fault == "garbage":
        return Doubtful("ProviderReplyInvalid", error.message, repeat=True)
    if error.fault == "status" and error.status not in RETRIED:
        return Failed(reason_of(error), error.message)
    wait = backoff(attempt, error.retry_after, jitter)
    if attempt >= MAX_ATTEMPTS:
        return Failed(reason_of(error), f"{error.message} (after {attempt} attempts)")
    if wait >= left:
        return Failed(reason_of(error), f"{error.message} (no time left after {attempt} attempts)")
    return Again(wait)


def backoff(attempt: int, retry_after: float | None, jitter: float) -> float:
    """Seconds to wait: half of the doubling wait is fixed, half is spread, and never less than the vendor asked for."""
    wait = min(FIRST_WAIT * float(2 ** (attempt - 1)), LONGEST_WAIT) * (0.5 + 0.5 * jitter)
    return max(wait, min(retry_after or 0.0, LONGEST_RETRY_AFTER))


def reason_of(error: ProviderError) -> str:
    """The CamelCase reason of a failure before or at the vendor."""
    if error.fault == "connect":
        return "ProviderUnreachable"
    return _REASONS.get(error.status, "ProviderFailed" if error.status >= 500 else "ProviderRejected")
