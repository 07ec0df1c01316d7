"""Requests, ranges, and what an erased session keeps."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from folkmoot_core import privacy
from folkmoot_core.deliberation import Outcome
from folkmoot_core.document import SessionOrder
from folkmoot_core.privacy import ErasureRequest, HoldRequest
from folkmoot_core.resources import SessionSpec
from folkmoot_core.sessions import ClosingNote, Ending, SessionEvent

SAID = "what somebody said"


@given(st.sets(st.integers(0, 3000)), st.integers(1, 20))
def test_ranges_cover_every_position_within_their_number(positions: set[int], most: int) -> None:
    found = privacy.ranges(positions, most)
    assert len(found) <= most
    assert found == sorted(found)
    assert all(first <= last for first, last in found)
    assert all(any(first <= p <= last for first, last in found) for p in positions)
    if len(privacy.ranges(positions, 10_000)) <= most:
        assert sum(last - first + 1 for first, last in found) == len(positions)


def test_the_digest_of_a_list_does_not_depend_on_its_order() -> None:
    assert privacy.list_digest(["b", "a"]) == privacy.list_digest(["a", "b"]) != privacy.list_digest(["ab"])


@pytest.mark.parametrize(
    ("kind", "data", "kept"),
    [
        ("session.phase", {"phase": "Failed", "message": SAID, "result_preview": SAID, "result_digest": "sha256:0", "ledger": 4},
         {"phase": "Failed", "message": "(erased)", "ledger": 4}),
        ("task.result", {"need": "a", "agent": "ana", "preview": SAID, "error": SAID, "workspace": "sha256:0", "calls": 2},
         {"need": "a", "agent": "ana", "calls": 2}),
        ("council.vote", {"need": "v", "actor": "ben", "reason": SAID, "vote": SAID, "ledger": 9}, {"need": "v", "actor": "ben", "ledger": 9}),
        ("gate.verdict", {"verdict": "Approved", "message": SAID, "findings": [SAID], "shapes": ["x"]}, {"verdict": "Approved", "shapes": ["x"]}),
        ("what.nobody.knows", {"anything": SAID, "name": SAID, "findings": 3}, {"findings": 3}),
    ],
)  # fmt: skip
def test_an_event_keeps_what_was_not_said(kind: str, data: dict[str, object], kept: dict[str, object]) -> None:
    assert privacy.scrubbed_event(SessionEvent(n=1, time_ms=2, type=kind, data=data)).data == kept


def test_order_ending_and_note_lose_their_words() -> None:
    spec = SessionSpec.model_validate(
        {"target": {"kind": "Agent", "name": "ana"}, "task": SAID, "subject": "case-1", "continues": {"name": "before"}}
    )
    order = SessionOrder(uid="u" * 8, name="n", generation=1, spec=spec, inputs={"a": {"b": "Yw=="}})
    ending = Ending(
        phase="Failed", reason="X", message=SAID, outcome=Outcome(phase="Failed", reason="X", message=SAID, result=SAID)
    )
    note = ClosingNote(session="u", name="n", phase="Failed", reason="X", summary=SAID, unfinished=(SAID,))
    scrubbed = [privacy.scrubbed_order(order), privacy.scrubbed_ending(ending), privacy.scrubbed_note(note)]
    text = json.dumps([one.model_dump(mode="json") for one in scrubbed])
    assert SAID not in text
    assert "case-1" not in text
    assert privacy.scrubbed_order(order).spec.target.name == "ana"


@pytest.mark.parametrize(
    ("scope", "subject", "session", "fits"),
    [("tenant", None, None, True), ("subject", "s", None, True), ("session", None, "s", True), ("tenant", "s", None, False),
     ("subject", None, "s", False), ("session", "s", "s", False), ("session", None, None, False)],
)  # fmt: skip
def test_a_hold_names_what_its_scope_is(scope: str, subject: str | None, session: str | None, fits: bool) -> None:
    asked = {"scope": scope, "subject": subject, "session": session, "reason": "r"}
    if fits:
        assert HoldRequest.model_validate(asked).scope == scope
    else:
        with pytest.raises(ValidationError, match="names"):
            HoldRequest.model_validate(asked)


def test_an_erasure_names_one_of_both() -> None:
    for fields in ({}, {"subject": "a", "session": "b"}):
        with pytest.raises(ValidationError, match="one of them"):
            ErasureRequest.model_validate({**fields, "basis": "b"})
