"""OCSF events: one written by hand per class, the chain, and that every kind of entry has a place in the table."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from logs import CONFIG, NOW, ORIGIN, TestLog

from folkmoot_core.entries import EntryType
from folkmoot_core.ledger import ocsf, scan
from folkmoot_core.ledger.tree import leaf_hash

AGENT = {"kind": "agent", "id": "builder", "seed": "a" * 64, "commitment": "b" * 64}
TIME = (NOW + 2) * 1000  # of entry 1: entry 0 is a second after the beginning
STAMP = "2027-01-15T08:00:02.000000Z"


def made(kind: str, **how: Any) -> dict[str, Any]:
    log = TestLog()
    log.add(kind, **how)
    raw = log.entries[-1]
    return ocsf.event(scan.read_entry(raw)[0], leaf_hash(raw), raw)


def common(event: dict[str, Any]) -> dict[str, Any]:
    """What all events have alike, taken away."""
    return {
        k: v for k, v in event.items() if k not in ("metadata", "attestation_list", "raw_data", "unmapped", "time", "message")
    }


def test_what_all_events_have() -> None:
    event = made("council.vote", session="uid-1", actor=AGENT, data={"vote": "For"}, id="uid-1/vote/1")
    assert event["metadata"] == {
        "version": "1.9.0-dev", "product": {"name": "Folkmoot", "vendor_name": "Folkmoot"}, "profiles": ["record_integrity"],
        "uid": f"{ORIGIN}#1", "original_event_uid": "uid-1/vote/1", "event_code": "dev.folkmoot.audit.council.vote.v1", "log_name": ORIGIN,
        "log_provider": "core/conductor", "sequence": 1, "logged_time": TIME, "correlation_uid": "uid-1", "original_time": STAMP,
    }  # fmt: skip
    assert event["unmapped"] == {"folkmoot": {"data": {"vote": "For"}, "config": CONFIG, "note": ocsf.NOTE}}
    assert (event["time"], event["message"]) == (TIME, "council.vote")
    assert common(event) == {
        "class_uid": 0, "class_name": "Base Event", "category_uid": 0, "category_name": "Uncategorized", "activity_id": 99,
        "activity_name": "council.vote", "type_uid": 99, "severity_id": 1, "actor": {"application": {"name": "builder", "uid": "a" * 64}},
    }  # fmt: skip


def test_the_attestation_is_the_logs_own_chain_and_can_be_checked_from_the_event() -> None:
    event = made("heartbeat", by="core/ledger")
    (attestation,) = event["attestation_list"]
    assert (attestation["chain_uid"], attestation["uid"]) == (ORIGIN, f"{ORIGIN}#1")
    assert attestation["fingerprint"] == {
        "algorithm_id": 99, "algorithm": ocsf.FINGERPRINT, "value": leaf_hash(event["raw_data"].encode()).hex(),
    }  # fmt: skip
    first = TestLog().entries[0]
    assert attestation["prev_event"] == {
        "uid": f"{ORIGIN}#0",
        "fingerprint": {"algorithm_id": 99, "algorithm": ocsf.FINGERPRINT, "value": leaf_hash(first).hex()},
    }
    (genesis,) = ocsf.event(scan.read_entry(first)[0], leaf_hash(first), first)["attestation_list"]
    assert "prev_event" not in genesis


def test_api_activity() -> None:
    data = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic", "gen_ai.request.model": "claude-x",
        "gen_ai.response.model": "claude-x-1", "gen_ai.usage.input_tokens": 90, "gen_ai.usage.output_tokens": 15,
        "folkmoot.outcome": "answered",
    }  # fmt: skip
    event = made("model.call.outcome", by="broker", session="uid-1", actor=AGENT, data=data, commit="1" * 64)
    assert common(event) == {
        "class_uid": 6003, "class_name": "API Activity", "category_uid": 6, "category_name": "Application Activity", "activity_id": 99,
        "activity_name": "model.call.outcome", "type_uid": 600399, "severity_id": 1, "status_id": 1, "status_code": "answered",
        "actor": {"application": {"name": "builder", "uid": "a" * 64}}, "api": {"operation": "chat", "service": {"name": "anthropic"}},
        "src_endpoint": {"name": "broker", "uid": "/x/broker"},
        "ai_agent": {"uid": "a" * 64, "name": "builder", "type_id": 1, "type": "Native", "version": "b" * 64,
                     "ai_model": {"name": "claude-x-1", "ai_provider": "anthropic"}},
        "message_context": {"uid": "uid-1", "service": {"name": "anthropic"}, "prompt_tokens": 90, "completion_tokens": 15,
                            "total_tokens": 105},
    }  # fmt: skip
    assert event["metadata"]["profiles"] == ["record_integrity", "ai_operation"]
    assert event["unmapped"]["folkmoot"]["payload"]["commit"] == "1" * 64


def test_api_activity_of_a_person() -> None:
    reader = {"kind": "human", "id": "folkmoot-auditor", "seed": "", "commitment": ""}
    assert common(made("evidence.read", by="core/ledger", actor=reader, data={"reader": "folkmoot-auditor"})) == {
        "class_uid": 6003, "class_name": "API Activity", "category_uid": 6, "category_name": "Application Activity", "activity_id": 2,
        "activity_name": "Read", "type_uid": 600302, "severity_id": 1,
        "actor": {"user": {"name": "folkmoot-auditor", "type_id": 1, "type": "User"}}, "api": {"operation": "evidence.read"},
        "src_endpoint": {"name": "core/ledger", "uid": "/x/core/ledger"},
    }  # fmt: skip


def test_entity_management() -> None:
    assert common(made("config.changed", data={"document": CONFIG, "generation": 3})) == {
        "class_uid": 3004, "class_name": "Entity Management", "category_uid": 3, "category_name": "Identity & Access Management",
        "activity_id": 3, "activity_name": "Update", "type_uid": 300403, "severity_id": 1,
        "actor": {"application": {"name": "core/conductor"}}, "entity": {"type": "tenant document", "uid": CONFIG},
    }  # fmt: skip
    assert made("erasure", id="erasure/0001")["entity"] == {"type": "sealed content", "uid": "erasure/0001"}


def test_application_lifecycle() -> None:
    assert common(made("log.frozen", by="core/ledger", data={"reason": "ForkDetected"})) == {
        "class_uid": 6002, "class_name": "Application Lifecycle", "category_uid": 6, "category_name": "Application Activity",
        "activity_id": 99, "activity_name": "log.frozen", "type_uid": 600299, "severity_id": 5,
        "actor": {"application": {"name": "core/ledger"}}, "app": {"name": "Folkmoot ledger", "vendor_name": "Folkmoot", "uid": ORIGIN},
    }  # fmt: skip


def test_delegation_activity() -> None:
    data = {"task": "uid-1/work/1", "gen_ai.agent.name": "builder", "status": "failed"}
    assert common(made("task.result", session="uid-1", data=data)) == {
        "class_uid": 9001, "class_name": "Delegation Activity", "category_uid": 9, "category_name": "AI Activity", "activity_id": 4,
        "activity_name": "Complete", "type_uid": 900104, "severity_id": 1, "status_id": 2, "status_code": "failed",
        "actor": {"application": {"name": "core/conductor"}},
        "delegation": {"uid": "uid-1/work/1", "issuer_uid": "core/conductor", "parent_uid": "uid-1"},
        "ai_agent": {"uid": "builder", "name": "builder", "type_id": 1, "type": "Native"},
    }  # fmt: skip
    assert made("session.start", session="uid-1")["delegation"] == {"uid": "uid-1", "issuer_uid": "core/conductor"}


def test_agent_activity() -> None:
    data = {"key": "f" * 64, "gen_ai.agent.name": "builder", "gen_ai.provider.name": "claude", "gen_ai.request.model": "claude-x"}
    assert common(made("identity.bound", by="agents/builder", actor=AGENT, data=data)) == {
        "class_uid": 9002, "class_name": "Agent Activity", "category_uid": 9, "category_name": "AI Activity", "activity_id": 6,
        "activity_name": "Register", "type_uid": 900206, "severity_id": 1, "actor": {"application": {"name": "builder", "uid": "a" * 64}},
        "ai_agent": {"uid": "a" * 64, "name": "builder", "type_id": 1, "type": "Native", "version": "b" * 64,
                     "ai_model": {"name": "claude-x", "ai_provider": "claude"}},
    }  # fmt: skip


@pytest.mark.parametrize("kind", sorted(get_args(EntryType)))
def test_every_kind_has_its_place(kind: str) -> None:
    assert kind in ocsf.KINDS
    event = made(kind)
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["category_uid"] == event["class_uid"] // 1000
    json.dumps(event)


def test_a_foreign_kind_and_a_bad_time_are_still_events() -> None:
    log = TestLog()
    log.add("made.up")
    raw = log.entries[-1].replace(STAMP.encode(), b"yesterday")
    event = ocsf.event(scan.read_entry(raw)[0], leaf_hash(raw), raw)
    assert (event["class_uid"], event["time"]) == (0, 0)
