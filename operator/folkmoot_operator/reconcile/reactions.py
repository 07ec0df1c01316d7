"""What an error asks for, in one table: which condition, whether to wait for a change, or to try again. style.md §2 habit 7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from folkmoot_core.conditions import Condition, false
from folkmoot_core.errors import Conflict, FolkmootError, Invalid, LimitReached, Missing, Unauthorized, Unavailable


@dataclass(frozen=True)
class Reaction:
    """`condition` turns False with the error's reason; `retry` says whether time alone may help."""

    condition: str
    retry: bool


REACTIONS: Final[tuple[tuple[type[FolkmootError], Reaction], ...]] = (
    (Invalid, Reaction("Accepted", retry=False)),  # somebody must edit the object
    (LimitReached, Reaction("Accepted", retry=False)),
    (Conflict, Reaction("Accepted", retry=False)),
    (Missing, Reaction("ResolvedRefs", retry=True)),  # it may be about to appear
    (
        Unauthorized,
        Reaction("Ready", retry=True),
    ),  # our own rights or certificate: an administrator mends it, nothing tells us when
    (Unavailable, Reaction("Ready", retry=True)),
)


def reaction(error: FolkmootError) -> Reaction:
    """The table's row for an error."""
    return (
        next(row for kind, row in REACTIONS if isinstance(error, kind))
        if type(error) is not FolkmootError
        else Reaction("Ready", True)
    )


def condition(error: FolkmootError) -> Condition:
    """The condition by which an object tells of an error."""
    return false(reaction(error).condition, error.reason if error.reason.isalnum() else "Error", error.message)


def retry_after(error: FolkmootError) -> float:
    """The least time to wait, in seconds, where the peer said so."""
    return (error.retry_after or 0.0) if isinstance(error, Unavailable) else 0.0
