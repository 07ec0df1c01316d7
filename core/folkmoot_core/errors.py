"""Errors, named by the reaction they call for.

    FolkmootError
    ├── Invalid        give up: the input is wrong and stays wrong; the message says which, what was expected, what to do
    ├── Unauthorized   give up: the caller is not who it must be
    │   └── Forbidden  give up: the caller is known, and may not do this
    ├── Missing        wait: something referred to does not exist yet
    ├── Conflict       give up: another owner, another content, an older epoch
    ├── LimitReached   give up within this session or tenant: a declared limit is used up
    └── Unavailable    retry: a peer or a resource did not answer; `retry_after` seconds where it is known
        └── Overloaded retry: it answered that too much is waiting

Foreign errors are wrapped at the boundary with `raise … from`, so that no raw ValueError leaves a verifier.
"""

from __future__ import annotations


class FolkmootError(Exception):
    """The root. `reason` is the CamelCase word used in conditions, problem documents and logs."""

    reason = "InternalError"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason


class Invalid(FolkmootError):
    """The input breaks a rule and will break it again."""

    reason = "Invalid"


class Unauthorized(FolkmootError):
    """The caller's credential is absent, wrong, expired or not meant for this service."""

    reason = "Unauthorized"


class Forbidden(Unauthorized):
    """The caller is who it says, and this is not its to do."""

    reason = "Forbidden"


class Missing(FolkmootError):
    """Something that was referred to does not exist (yet)."""

    reason = "NotFound"


class Conflict(FolkmootError):
    """Somebody else owns it, or the same key came with other content."""

    reason = "Conflict"


class LimitReached(FolkmootError):
    """A declared limit (tokens, time, size, submissions) is used up."""

    reason = "LimitReached"


class Unavailable(FolkmootError):
    """A peer or resource did not answer; trying again later may help."""

    reason = "Unavailable"

    def __init__(self, message: str, *, reason: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after = retry_after


class Overloaded(Unavailable):
    """More is waiting than is taken; the same request may be sent again after `retry_after` seconds."""

    reason = "Overloaded"
