"""Session state as a fold of events, what keeps sessions waiting, the closing note."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.calls import Usage
from folkmoot_core.deliberation import Outcome
from folkmoot_core.document import AgentEntry, CouncilEntry, Identity, SessionOrder, TenantDocument
from folkmoot_core.identity import GrantsV1
from folkmoot_core.resources import AgentSpec, CouncilSpec
from folkmoot_core.sessions import (
    Ending,
    SessionEvent,
    SessionState,
    add_cost,
    apply,
    closing_note,
    fold,
    holds_back,
    preview,
    report,
    waits_for,
)

AGENT = AgentSpec.model_validate({"cause": "I work.", "model": {"provider": "p", "name": "m"}})
COUNCIL = CouncilSpec.model_validate(
    {
        "cause": "We decide.",
        "coordinator": {"agentRef": {"name": "ana"}},
        "members": [{"agentRef": {"name": "ana"}, "role": "voice"}],
    }
)
WHO = Identity(name="n", scope="f/o/t", cause="c", seed="0" * 64, commitment="1" * 64, grants=GrantsV1())


def document(**fields: Any) -> TenantDocument:
    agents = fields.pop("agents", (AgentEntry(name="ana", spec=AGENT, identity=WHO),))
    councils = fields.pop("councils", (CouncilEntry(name="moot", spec=COUNCIL),))
    return TenantDocument(
        tenant="t", tenant_uid="u", namespace="folkmoot-t", generation=1, identity=WHO, agents=agents, councils=councils, **fields
    )


def order(kind: str = "Agent", target: str = "ana", **spec: Any) -> SessionOrder:
    return SessionOrder.model_validate(
        {"uid": "u-1", "name": "s", "generation": 1, "spec": {"target": {"kind": kind, "name": target}, "task": "T", **spec}}
    )


def event(n: int, kind: str, **data: Any) -> SessionEvent:
    return SessionEvent(n=n, time_ms=1_000_000 + n, type=kind, data=data)


STORY = (
    event(1, "session.accepted", generation=4),
    event(2, "session.phase", phase="Pending", reason="Accepted"),
    event(3, "session.phase", phase="Running", reason="Running", ledger=17),
    event(4, "task.sent", need="plan"),
    event(5, "task.result", usage={"input_tokens": 5, "output_tokens": 2}, cost="0.10", currency="EUR"),
    event(6, "council.decision", **{"for": 2, "against": 1, "dissent": ["ben"], "ledger": 19}),
    event(7, "something.new", ledger=20),
    event(8, "task.result", usage={"input_tokens": 1, "cached_input_tokens": 1}, cost=None, currency=None),
    event(9, "gate.verdict", verdict="Revise", submission=1, shapes=["test-deleted"]),
    event(10, "session.phase", phase="Succeeded", reason="Decided", message="m", ledger=23, result_digest="sha256:x",
          result_preview="p", gate_verdict="Approved", gate_submission=2, gate_shapes=[], votes_for=3, votes_against=0, dissent=[]),
)  # fmt: skip


def test_the_fold_of_a_whole_story() -> None:
    state = fold(STORY)
    assert state.ended
    assert (state.phase, state.reason, state.generation, state.last) == ("Succeeded", "Decided", 4, 10)
    assert (state.usage, state.tokens, state.cost, state.currency) == (
        Usage(input_tokens=6, output_tokens=2, cached_input_tokens=1), 8, "0.10", "EUR",
    )  # fmt: skip
    assert (state.ledger_first, state.ledger_last) == (17, 23)
    assert (state.gate_verdict, state.gate_submission, state.gate_shapes, state.votes_for, state.dissent) == (
        "Approved",
        2,
        (),
        3,
        (),
    )
    before = fold(STORY[:-1])
    assert (before.gate_verdict, before.gate_shapes, before.votes_against, before.dissent) == (
        "Revise",
        ("test-deleted",),
        1,
        ("ben",),
    )
    assert not before.ended


@given(st.integers(0, len(STORY)))
def test_folding_on_from_a_stored_state_is_the_same(cut: int) -> None:
    state = fold(STORY[:cut])
    for each in STORY[cut:]:
        state = apply(state, each)
    assert state == fold(STORY)


def test_the_sequence_rises_with_every_event() -> None:
    assert [report(fold(STORY[:n]), order()).sequence for n in range(1, 11)] == list(range(1, 11))


def test_the_report_says_what_the_state_says() -> None:
    told = report(fold(STORY), order())
    assert (told.started, told.finished) == ("1970-01-01T00:16:40.003000Z", "1970-01-01T00:16:40.010000Z")
    assert (told.result_ref, told.votes_dissent, told.cached_input_tokens) == ("/v1/artifacts/sha256:x", 0, 1)
    fresh = report(SessionState(), order())
    assert (fresh.phase, fresh.started, fresh.result_ref) == ("Pending", "", "")


def test_a_pause_does_not_move_the_start() -> None:
    state = fold((*STORY[:3], event(4, "session.phase", phase="Running", reason="Suspended")))
    assert (state.started_ms, state.reason) == (1_000_003, "Suspended")


def test_public_events_cannot_be_renamed_by_their_data() -> None:
    shown = SessionEvent(n=3, time_ms=0, type="gate.verdict", data={"type": "session.phase", "n": 99, "verdict": "x"}).public()
    assert (shown["n"], shown["type"], shown["verdict"]) == (3, "gate.verdict", "x")


@pytest.mark.parametrize(
    ("ordered", "given_document", "previous", "reason"),
    [
        (order(), None, None, "NoConfiguration"),
        (order(), document(suspended=True), None, "Suspended"),
        (order(target="ben"), document(), None, "TargetNotFound"),
        (order("Council", "ana"), document(), None, "TargetNotFound"),
        (order(), document(agents=(AgentEntry(name="ana", spec=AGENT, identity=WHO, suspended=True),)), None, "Suspended"),
        (order("Council", "moot"),
         document(councils=(CouncilEntry(name="moot", spec=COUNCIL.model_copy(update={"suspend": True})),)), None, "Suspended"),
        (order(continues={"name": "old"}), document(), None, "PreviousNotFound"),
        (order(continues={"name": "old"}), document(), SessionState(phase="Running"), "PreviousNotFinished"),
        (order(continues={"name": "old"}), document(), SessionState(phase="Cancelled"), None),
        (order(), document(), None, None),
        (order("Council", "moot"), document(), None, None),
    ],
)  # fmt: skip
def test_what_a_session_waits_for(ordered: SessionOrder, given_document: Any, previous: Any, reason: str | None) -> None:
    waiting = waits_for(ordered, given_document, previous)
    assert (waiting.reason if waiting else None) == reason
    assert waiting is None or len(waiting.message) > 20


def test_what_holds_a_running_session_back() -> None:
    asleep = (AgentEntry(name="ana", spec=AGENT, identity=WHO, suspended=True),)
    council = order("Council", "moot")
    assert holds_back(document(), council, "ana") is None
    assert holds_back(document(), order(), "gone") is None
    for held in (document(suspended=True), document(agents=asleep)):
        why = holds_back(held, council, "ana")
        assert why is not None
        assert why.reason == "Suspended"
    resting = document(councils=(CouncilEntry(name="moot", spec=COUNCIL.model_copy(update={"suspend": True})),))
    assert holds_back(resting, council, "ana") is not None
    assert holds_back(document(councils=()), council, "ana") is None


def test_the_closing_note() -> None:
    outcome = Outcome(phase="Succeeded", result="R" * 5000, unfinished=("u1", "u2"))
    note = closing_note(order(), fold(STORY[:9]), Ending(phase="Succeeded", reason="Decided", message="m", outcome=outcome))
    assert (len(note.summary), note.unfinished, note.ledger) == (1024, ("u1", "u2"), 20)
    assert "Unfinished: u2" in note.text()
    assert note.text().endswith("Final ledger index: 20")
    stopped = closing_note(order(), SessionState(), Ending(phase="Cancelled", reason="Cancelled", message="was cancelled"))
    assert (stopped.summary, stopped.unfinished, stopped.ledger) == ("was cancelled", ("T",), None)
    assert "Final ledger index: none" in stopped.text()


@given(st.text(), st.integers(0, 100))
def test_previews_are_bounded_text(text: str, limit: int) -> None:
    shown = preview(text, limit)
    assert len(shown.encode()) <= limit
    assert all(c in "\n\t" or c.isprintable() or c.isspace() for c in shown)


@given(st.lists(st.decimals(0, 1000, places=6) | st.none(), max_size=20))
def test_costs_add_up_exactly(costs: list[Decimal | None]) -> None:
    total: str | None = None
    for cost in costs:
        total = add_cost(total, format(cost, "f") if cost is not None else None)
    priced = [c for c in costs if c is not None]
    assert total is None if not priced else Decimal(total or "") == sum(priced)


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity", "x", "1e", "", "1E+999998", "1E+50000000", "-1", "9" * 31])
def test_what_is_no_number_adds_nothing(bad: str) -> None:
    assert add_cost("1.5", bad) == "1.5"
    assert add_cost(None, bad) is None
