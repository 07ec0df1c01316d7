"""Conditions of status: made by plans and by the operator's reporter, merged here so that nothing moves by itself.

Follows metav1.Condition and kstatus: `lastTransitionTime` moves only when `status` does, every condition carries the
generation it was computed from, `Reconciling` and `Stalled` are abnormal-true (absent means fine). No clock here: `now`
comes in. The types are in conventions.md, the reasons in docs/kinds/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from folkmoot_core.errors import Invalid

Status = Literal["True", "False", "Unknown"]
MAX_MESSAGE = 1024  # bytes of a message we write; metav1.Condition allows 32 KiB, nobody reads that
ABNORMAL_TRUE = ("Reconciling", "Stalled", "Conflict", "IdentityConflict", "BudgetBlocked", "AwaitingApproval")

# -- reasons used by more than one module; each is explained in docs/kinds/ ------------------------------------------
REASON_OK = "Reconciled"
REASON_INVALID = "InvalidSpec"
REASON_PROGRESSING = "Progressing"
REASON_REF_NOT_FOUND = "RefNotFound"
REASON_RESOLVED = "ResolvedRefs"
REASON_ACCEPTED = "Accepted"
REASON_SUSPENDED = "Suspended"
REASON_TERMINATING = "Terminating"


@dataclass(frozen=True)
class Condition:
    """One condition as computed now; `merge` adds the generation and the time of its last transition."""

    type: str
    status: Status
    reason: str
    message: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Z][A-Za-z0-9]{0,255}", self.reason):
            raise Invalid(f"condition {self.type}: reason {self.reason!r} is not one CamelCase word")


def true(type_: str, reason: str, message: str = "") -> Condition:
    """A condition that holds."""
    return Condition(type_, "True", reason, message)


def false(type_: str, reason: str, message: str) -> Condition:
    """A condition that does not hold; `message` says what was expected, what was found and what to do."""
    return Condition(type_, "False", reason, message)


def unknown(type_: str, reason: str, message: str) -> Condition:
    """A condition nobody can tell yet."""
    return Condition(type_, "Unknown", reason, message)


def get(conditions: Iterable[Mapping[str, Any]] | None, type_: str) -> Mapping[str, Any] | None:
    """The condition of a type in a status as stored, or None."""
    return next((c for c in conditions or () if c.get("type") == type_), None)


def is_true(conditions: Iterable[Mapping[str, Any]] | None, type_: str) -> bool:
    """Whether the stored condition of a type has status True."""
    found = get(conditions, type_)
    return found is not None and found.get("status") == "True"


def merge(
    stored: Iterable[Mapping[str, Any]] | None,
    computed: Iterable[Condition],
    *,
    generation: int,
    now: str,
    drop: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The list to write: computed conditions over stored ones, sorted by type, `drop` removed. A later computed one of the
    same type replaces an earlier one. `now` (RFC 3339, seconds, Z) is used only where `status` changed; equal input gives
    equal output, so a caller that compares before writing writes nothing."""
    result = {str(c["type"]): dict(c) for c in stored or () if c.get("type") and c["type"] not in drop}
    # The last of a type first: judged one after the other, True then False would look like a transition at every merge.
    for condition in {c.type: c for c in computed}.values():
        before = result.get(condition.type)
        changed = before is None or before.get("status") != condition.status
        result[condition.type] = {
            "type": condition.type,
            "status": condition.status,
            "reason": condition.reason,
            "message": _bounded(condition.message),
            "observedGeneration": generation,
            "lastTransitionTime": now if changed or before is None else before.get("lastTransitionTime", now),
        }
    return [result[key] for key in sorted(result)]


def summarize(computed: Iterable[Condition], needed: Sequence[str], *, ready: str = "Ready") -> tuple[Condition, ...]:
    """`Ready` from the conditions it stands on, with kstatus' helpers: the first of `needed` that is not True gives reason
    and message; `Reconciling` says that it may still come, `Stalled` that somebody must change something."""
    by_type = {c.type: c for c in computed}
    for type_ in needed:
        found = by_type.get(type_)
        if found is None:
            return _not_ready(ready, REASON_PROGRESSING, f"{type_} is not known yet", stalled=False)
        if found.status != "True":
            return _not_ready(
                ready, found.reason, found.message or f"{type_} is {found.status}", stalled=found.reason in STALLED_REASONS
            )
    return (
        true(ready, REASON_OK, "everything it needs is in place"),
        false("Reconciling", REASON_OK, ""),
        false("Stalled", REASON_OK, ""),
    )


# Reasons that no waiting will change: a person must edit something.
STALLED_REASONS = frozenset({
    REASON_INVALID, "GrantExceedsParent", "ResidencyRefused", "NamespaceConflict", "IdentityConflict", "NoExportTarget", "Conflict",
    "QuorumUnreachable", "ProviderNotAllowed", "NoProviders",
})  # fmt: skip


def _not_ready(ready: str, reason: str, message: str, *, stalled: bool) -> tuple[Condition, ...]:
    return (
        false(ready, reason, message),
        Condition("Reconciling", "False" if stalled else "True", reason, "" if stalled else message),
        Condition("Stalled", "True" if stalled else "False", reason, message if stalled else ""),
    )


def _bounded(message: str) -> str:
    data = message.encode()
    return message if len(data) <= MAX_MESSAGE else data[: MAX_MESSAGE - 3].decode(errors="ignore") + "…"
