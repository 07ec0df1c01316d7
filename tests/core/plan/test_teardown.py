"""How a Tenant ends: from every state the steps lead to the end, nothing is skipped, and no log is lost."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from folkmoot_core.conditions import STALLED_REASONS
from folkmoot_core.plan import teardown
from folkmoot_core.plan.teardown import SEAL_SECONDS, Step, TeardownState

EVERY = [
    TeardownState(
        policy=policy, namespace=namespace, core_exists=core, sealed=sealed, export_configured=export, exported=exported,  # type: ignore[arg-type]
        retained=bool(retained), seconds=0.0,
    )
    for policy, namespace, core, sealed, export, exported, retained in itertools.product(
        ("Retain", "Delete"), ("Absent", "Active", "Terminating"), *([(False, True)] * 5)
    )
]  # fmt: skip


def done(state: TeardownState, step: Step) -> TeardownState:
    """The state after a step that worked."""
    changes: dict[str, dict[str, object]] = {
        "Seal": {"sealed": True}, "Export": {"exported": True}, "ScaleToZero": {"retained": True},
        "DeleteNamespace": {"namespace": "Terminating"}, "WaitForNamespace": {"namespace": "Absent"},
    }  # fmt: skip
    return replace(state, **changes[step.action])  # type: ignore[arg-type]


@pytest.mark.parametrize("start", EVERY)
def test_every_state_leads_to_the_end_and_no_log_is_lost(start: TeardownState) -> None:
    state, taken = start, []
    for _ in range(10):
        step = teardown.next(state)
        if step.action in ("RemoveFinalizer", "Wait"):
            break
        taken.append(step.action)
        state = done(state, step)
    if step.action == "Wait":
        assert (state.policy, state.export_configured, state.core_exists) == ("Delete", False, True)
        assert "DeleteNamespace" not in taken
        return
    if "DeleteNamespace" in taken and start.core_exists:
        assert state.sealed
        assert state.exported
    if start.policy == "Retain" and start.namespace == "Active":
        assert state.namespace == "Active"
        assert state.retained
        assert state.sealed or not start.core_exists
    assert taken == sorted(taken, key=["Seal", "Export", "ScaleToZero", "DeleteNamespace", "WaitForNamespace"].index)


def start(**other: object) -> TeardownState:
    base = TeardownState("Delete", "Active", True, False, True, False, False, 0.0)
    return replace(base, **other)  # type: ignore[arg-type]


def test_without_an_export_volume_nothing_is_deleted() -> None:
    step = teardown.next(start(export_configured=False))
    assert step.action == "Wait"
    ready, _, stalled = step.conditions
    assert (stalled.status, stalled.reason) == ("True", "NoExportTarget")
    assert "export.existingClaim" in stalled.message
    assert ready.status == "False"
    assert stalled.reason in STALLED_REASONS


def test_a_wait_is_bounded_and_then_said() -> None:
    early, late = (
        teardown.next(start(seconds=SEAL_SECONDS)),
        teardown.next(start(seconds=SEAL_SECONDS + 1, last_error="no route")),
    )
    assert early.action == late.action == "Seal"  # never skipped
    assert [c.status for c in early.conditions if c.type == "Stalled"] == ["False"]
    stalled = next(c for c in late.conditions if c.type == "Stalled")
    assert (stalled.status, stalled.reason) == ("True", "TeardownTimeout")
    assert "no route" in stalled.message
    assert late.requeue_after


def test_a_tenant_that_never_ran_has_nothing_to_seal() -> None:
    assert teardown.next(start(core_exists=False)).action == "DeleteNamespace"
    assert teardown.next(start(core_exists=False, policy="Retain", export_configured=False)).action == "ScaleToZero"
