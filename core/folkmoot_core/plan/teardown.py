"""How a Tenant ends, one step at a time: stop sessions → seal → export → remove the namespace, or keep it scaled to zero.

Called by the operator at every reconcile of a Tenant with a deletionTimestamp; it acts on the step, observes again and
asks again. Nothing is created in a dying namespace, and every wait is bounded: then the Tenant says `Stalled`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from folkmoot_core.conditions import Condition, false, true

Action = Literal["Seal", "Export", "ScaleToZero", "DeleteNamespace", "WaitForNamespace", "RemoveFinalizer", "Wait"]
SEAL_SECONDS = 15 * 60.0  # a core that does not answer for this long is reported, never skipped
RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class TeardownState:
    """What the operator observed. `seconds` is the time since the deletionTimestamp."""

    policy: Literal["Retain", "Delete"]
    namespace: Literal["Absent", "Active", "Terminating"]
    core_exists: bool
    """A core volume claim exists, i.e. there may be a log to seal."""
    sealed: bool
    """The conductor answered the seal request and the log is closed (kept by the operator in the Tenant's status)."""
    export_configured: bool
    exported: bool
    retained: bool
    """The namespace carries the retained label and every workload in it is scaled to zero."""
    seconds: float
    last_error: str = ""


@dataclass(frozen=True)
class Step:
    """What to do next, what to say, and when to look again (None: at the next event)."""

    action: Action
    conditions: tuple[Condition, ...] = ()
    requeue_after: float | None = None


def next(state: TeardownState) -> Step:
    """The next step. Ends with RemoveFinalizer, which is the only way the Tenant goes."""
    if state.namespace == "Absent":
        return Step("RemoveFinalizer")
    if state.namespace == "Terminating":
        return _bounded(state, "WaitForNamespace", "the namespace is being removed")
    if state.core_exists:
        if state.policy == "Delete" and not state.export_configured:
            return Step("Wait", _stalled("NoExportTarget", _NO_TARGET))
        if not state.sealed:
            return _bounded(state, "Seal", "sessions are stopped and the log is sealed")
        if state.export_configured and not state.exported:
            return _bounded(state, "Export", "the sealed log is exported")
    if state.policy == "Delete":
        return Step("DeleteNamespace", _progress("the namespace is being removed"), RETRY_SECONDS)
    return (
        Step("RemoveFinalizer")
        if state.retained
        else Step("ScaleToZero", _progress("workloads are scaled to zero"), RETRY_SECONDS)
    )


_NO_TARGET = (
    "deletionPolicy Delete removes the log, and this installation has no export volume to keep it: set the chart's "
    "export.existingClaim or export.size, or change the Tenant's spec.deletionPolicy to Retain"
)


def _bounded(state: TeardownState, action: Action, doing: str) -> Step:
    error = f"; last error: {state.last_error}" if state.last_error else ""
    if state.seconds > SEAL_SECONDS:
        message = f"{doing}, not finished within {int(SEAL_SECONDS // 60)} minutes{error}; it is tried again every {int(RETRY_SECONDS)} s"
        return Step(action, _stalled("TeardownTimeout", message), RETRY_SECONDS)
    return Step(action, _progress(doing + error), RETRY_SECONDS)


def _progress(doing: str) -> tuple[Condition, ...]:
    return (
        false("Ready", "Terminating", f"being deleted: {doing}"),
        true("Reconciling", "Terminating", doing),
        false("Stalled", "Terminating", ""),
    )


def _stalled(reason: str, message: str) -> tuple[Condition, ...]:
    return (false("Ready", reason, message), false("Reconciling", reason, ""), true("Stalled", reason, message))
