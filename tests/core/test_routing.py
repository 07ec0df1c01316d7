"""The router's decisions: each check refuses what it is for, in its order, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core import routing
from folkmoot_core.messages import MAX_BODY, Envelope, Task, TaskResult
from folkmoot_core.routing import Context, Dead, Deliver, Duplicate, Refuse, Resend, Waiting
from folkmoot_core.signing import SigningKey

KEYS = {
    name: SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)) for number, name in enumerate(("core", "athena"))
}
TASK = Task(task="s1/work", session="s1", kind="work", prompt="Do it.", deadline_ms=1).model_dump_json()
RESULT = TaskResult(task="s1/work", session="s1", status="done", output="ok").model_dump_json()


def context(owner: str, **fields: Any) -> Context:
    given = Context(
        tenant="acme",
        owner=owner,
        participants=frozenset({"core", "athena", "hermes"}),
        keys=(KEYS[owner].public,),
        now_ms=1_000_000,
    )
    return replace(given, **fields)


def task(**fields: Any) -> Envelope:
    given = {
        "request_id": "task-0001",
        "tenant": "acme",
        "sender": "core",
        "to": "athena",
        "kind": "task",
        "created_ms": 5,
        "body": TASK,
    }
    return Envelope.model_validate({**given, **fields})


def result(**fields: Any) -> Envelope:
    given = {
        "request_id": "result-01", "tenant": "acme", "sender": "athena", "to": "core", "kind": "result", "ack_for": "task-0001",
        "created_ms": 5, "body": RESULT,
    }  # fmt: skip
    return Envelope.model_validate({**given, **fields})


def signed(envelope: Envelope, by: str = "") -> dict[str, str]:
    return KEYS[by or envelope.sender].sign(envelope).to_fields()


def test_a_task_is_delivered_and_waits_for_its_ack() -> None:
    decision = routing.decide(signed(task(attempt=7)), context("core"))
    assert isinstance(decision, Deliver)
    assert (decision.interval_ms, decision.envelope.deadline_ms, decision.envelope.attempt) == (60_000, 1_060_000, 1)
    assert decision.settles is None


@pytest.mark.parametrize(
    ("fields", "interval"),
    [
        ({}, 60_000),
        ({"priority": "critical"}, 30_000),
        ({"created_ms": 1000, "deadline_ms": 16_000}, 15_000),
        ({"created_ms": 1000, "deadline_ms": 1001}, routing.MIN_ACK_MS),
        ({"created_ms": 1000, "deadline_ms": 10**9}, routing.MAX_ACK_MS),
        ({"created_ms": 9000, "deadline_ms": 10}, routing.MIN_ACK_MS),
    ],
)
def test_the_ack_deadline(fields: dict[str, Any], interval: int) -> None:
    assert routing.ack_interval(task(**fields)) == interval


def test_a_result_settles_what_it_answers() -> None:
    decision = routing.decide(signed(result()), context("athena", waiting_for="athena"))
    assert isinstance(decision, Deliver)
    assert (decision.settles, decision.interval_ms) == ("core/task-0001", 0)


def test_a_result_after_the_deadline_is_delivered_all_the_same() -> None:
    decision = routing.decide(signed(result()), context("athena"))
    assert isinstance(decision, Deliver)
    assert decision.settles is None


def test_what_was_routed_before_is_dropped() -> None:
    assert routing.decide(signed(task()), context("core", seen=True)) == Duplicate("task-0001")


REFUSED: list[tuple[str, dict[str, str], Context]] = [
    ("Malformed", {"v": "1"}, context("core")),
    ("Malformed", {**signed(task()), "extra": "x"}, context("core")),
    ("Malformed", {**signed(task()), "v": "x"}, context("core")),
    ("ForeignTenant", signed(task(tenant="other")), context("core")),
    ("ForeignSender", signed(task()), context("athena")),
    ("UnknownRecipient", signed(task(to="nobody")), context("core")),
    ("NotAllowed", signed(result(to="hermes")), context("athena")),
    ("NotAllowed", signed(task(to="core")), context("core")),
    ("NotAllowed", signed(result(kind="task", body=TASK)), context("athena")),
    ("NotAllowed", signed(task(kind="result", body=RESULT)), context("core")),
    ("UnknownKey", signed(task()), context("core", keys=())),
    ("BadSignature", task().to_fields(), context("core")),
    ("BadSignature", signed(task(), by="athena"), context("core")),
    ("BadSignature", {**signed(task()), "created_ms": "6"}, context("core")),
    ("BadSignature", {**signed(task()), "signature": "no base64 é"}, context("core")),
    ("Malformed", signed(task(body="{}")), context("core")),
    ("Malformed", signed(result(body="[]")), context("athena")),
    ("Malformed", signed(result(kind="ack", body="[]")), context("athena")),
    ("Malformed", signed(result(kind="ack", body="[" * 100_000)), context("athena")),
    ("TooLarge", signed(result(kind="heartbeat", body=json.dumps("é" * (MAX_BODY // 2), ensure_ascii=False))), context("athena")),
    ("Malformed", signed(result(ack_for="")), context("athena")),
    ("ForeignAck", signed(result()), context("athena", waiting_for="hermes")),
    ("InboxFull", signed(task()), context("core", inbox=routing.MAX_INBOX)),
]


@pytest.mark.parametrize(("reason", "fields", "given"), REFUSED, ids=lambda each: each if isinstance(each, str) else "")
def test_refusals(reason: str, fields: dict[str, str], given: Context) -> None:
    decision = routing.decide(fields, given)
    assert isinstance(decision, Refuse)
    assert decision.reason == reason


def test_the_core_is_told_of_its_refused_task_and_an_agent_of_nothing() -> None:
    decision = routing.decide(signed(task(to="nobody")), context("core"))
    assert isinstance(decision, Refuse)
    assert decision.tell is not None
    body = TaskResult.model_validate_json(decision.tell.body)
    assert (decision.tell.to, decision.tell.sender, decision.tell.ack_for) == ("core", routing.ROUTER, "task-0001")
    assert (body.status, body.reason, body.task) == ("failed", "UnknownRecipient", "s1/work")
    for fields, owner in ((signed(result(to="hermes")), "athena"), (signed(task(body="{}")), "core"), (signed(task()), "athena")):
        refused = routing.decide(fields, context(owner))
        assert isinstance(refused, Refuse)
        assert refused.tell is None


def test_missed_acks_are_resent_twice_and_then_dead() -> None:
    waiting = Waiting(envelope=task(deadline_ms=100), interval_ms=30_000)
    for attempt in (2, 3):
        outcome = routing.overdue(waiting, 1000 * attempt)
        assert isinstance(outcome, Resend)
        assert (outcome.envelope.attempt, outcome.envelope.deadline_ms) == (attempt, 1000 * attempt + 30_000)
        assert outcome.envelope.request_id == "task-0001"
        waiting = waiting.model_copy(update={"envelope": outcome.envelope})
    outcome = routing.overdue(waiting, 9)
    assert isinstance(outcome, Dead)
    assert outcome.tell is not None
    assert TaskResult.model_validate_json(outcome.tell.body).reason == "Unresponsive"
    assert outcome.tell == routing.failure(
        outcome.envelope, "Unresponsive", "agent athena did not acknowledge the task in 3 attempts", 9
    )


def test_a_poisonous_message_is_dead_and_told() -> None:
    dead = routing.poisonous(task(), 9)
    assert (dead.reason, dead.tell is not None) == ("Poison", True)
    assert routing.poisonous(result(), 9).tell is None


def test_a_record_holds_no_content() -> None:
    record = routing.record_of(task(body=TASK), "Unresponsive")
    assert "Do it" not in json.dumps(record)
    assert (record["request_id"], record["from"], record["reason"]) == ("task-0001", "core", "Unresponsive")
    assert "reason" not in routing.record_of(task())


@given(st.dictionaries(st.sampled_from([*Envelope.model_fields, "x"]), st.text(max_size=40)))
def test_whatever_lies_in_an_outbox_gets_a_decision(fields: dict[str, str]) -> None:
    assert isinstance(routing.decide(fields, context("athena")), Refuse)


def test_a_heartbeat_is_delivered_and_waits_for_nothing() -> None:
    decision = routing.decide(signed(result(kind="heartbeat", body="{}", ack_for="")), context("athena"))
    assert isinstance(decision, Deliver)
    assert (decision.interval_ms, decision.settles) == (0, None)
