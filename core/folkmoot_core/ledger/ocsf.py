"""Entries as OCSF events, for SIEMs: the schema's 1.9.0-dev with its `record_integrity` and `ai_operation` profiles. Pure.

What class and activity a kind of entry becomes is one table. Nothing is invented: where the schema has no class for something (a vote, a
gate's verdict, a timestamp) it is a Base Event; what has no attribute goes to `unmapped` under its own name. `raw_data` is the entry's
exact bytes, so the attestation can be checked from the event alone: **the fingerprint is over those bytes** (RFC 6962 leaf hash),
not over a serialisation of the event, which is why its algorithm is stated as Other. What of 1.9.0-dev may still change: the AI
category (9) and the profile's attribute names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from folkmoot_core.entries import GENESIS_PREV
from folkmoot_core.ledger.scan import Entry, text

VERSION: Final = "1.9.0-dev"
FINGERPRINT: Final = "RFC 6962 leaf hash: SHA-256 over 0x00 and raw_data"
NOTE: Final = "attestation_list[0].fingerprint is over raw_data (the ledger's canonical bytes), not over this event"
OTHER: Final = 99
UNKNOWN, SUCCESS, FAILURE = 0, 1, 2
INFORMATIONAL, MEDIUM, HIGH, CRITICAL = 1, 3, 4, 5
_STATUS: Final = {
    "answered": SUCCESS, "done": SUCCESS, "Succeeded": SUCCESS, "failed": FAILURE, "refused": FAILURE, "Failed": FAILURE,
    "interrupted": UNKNOWN, "undone": FAILURE, "in_doubt": UNKNOWN, "Cancelled": FAILURE,
}  # fmt: skip


@dataclass(frozen=True)
class Class:
    """An OCSF class with its category."""

    uid: int
    name: str
    category: int
    category_name: str


BASE = Class(0, "Base Event", 0, "Uncategorized")
ENTITY = Class(3004, "Entity Management", 3, "Identity & Access Management")
LIFECYCLE = Class(6002, "Application Lifecycle", 6, "Application Activity")
API = Class(6003, "API Activity", 6, "Application Activity")
DELEGATION = Class(9001, "Delegation Activity", 9, "AI Activity")
AGENT = Class(9002, "Agent Activity", 9, "AI Activity")


@dataclass(frozen=True)
class Mapping:
    """What a kind becomes. `entity` is what an Entity Management event manages."""

    class_: Class
    activity: int
    activity_name: str
    severity: int = INFORMATIONAL
    entity: str = ""


_NONE = Mapping(BASE, OTHER, "Other")
KINDS: Final[dict[str, Mapping]] = {
    "log.opened": Mapping(LIFECYCLE, 3, "Start"),
    "log.closed": Mapping(LIFECYCLE, 4, "Stop"),
    "log.degraded": Mapping(LIFECYCLE, OTHER, "Other", HIGH),
    "log.frozen": Mapping(LIFECYCLE, OTHER, "Other", CRITICAL),
    "log.control": Mapping(API, OTHER, "Other"),
    "heartbeat": Mapping(LIFECYCLE, OTHER, "Other"),
    "log.key.rotated": Mapping(ENTITY, 3, "Update", entity="log signing key"),
    "config.changed": Mapping(ENTITY, 3, "Update", entity="tenant document"),
    "legal.hold": Mapping(ENTITY, 1, "Create", entity="legal hold"),
    "legal.hold.released": Mapping(ENTITY, 4, "Delete", entity="legal hold"),
    "erasure": Mapping(ENTITY, 4, "Delete", entity="sealed content"),
    "retention.pruned": Mapping(ENTITY, 4, "Delete", entity="log entries"),
    "identity.bound": Mapping(AGENT, 6, "Register"),
    "session.start": Mapping(DELEGATION, 1, "Create"),
    "session.end": Mapping(DELEGATION, 4, "Complete"),
    "session.cancelled": Mapping(DELEGATION, 2, "Revoke"),
    "task.sent": Mapping(DELEGATION, 1, "Create"),
    "task.result": Mapping(DELEGATION, 4, "Complete"),
    "model.call.intent": Mapping(API, OTHER, "Other"),
    "model.call.outcome": Mapping(API, OTHER, "Other"),
    "tool.call.intent": Mapping(API, OTHER, "Other"),
    "tool.call.outcome": Mapping(API, OTHER, "Other"),
    "bus.refused": Mapping(API, OTHER, "Other", MEDIUM),
    "evidence.read": Mapping(API, 2, "Read"),
    "evidence.exported": Mapping(API, 2, "Read"),
    "bus.resent": _NONE,
    "bus.dead": Mapping(BASE, OTHER, "Other", MEDIUM),
    "anchor": _NONE,
    "anchor.failed": Mapping(BASE, OTHER, "Other", MEDIUM),
    "council.plan": _NONE,
    "council.vote": _NONE,
    "council.decision": _NONE,
    "gate.submission": _NONE,
    "gate.probe": _NONE,
    "gate.check": _NONE,
    "gate.review": _NONE,
    "gate.verdict": _NONE,
}


def event(entry: Entry, leaf: bytes, raw: bytes) -> dict[str, Any]:
    """The event of an entry. `leaf` and `raw` are its leaf hash and its exact bytes."""
    kind = entry.kind
    mapping = KINDS.get(kind, _NONE)
    made: dict[str, Any] = {
        "class_uid": mapping.class_.uid, "class_name": mapping.class_.name, "category_uid": mapping.class_.category,
        "category_name": mapping.class_.category_name, "activity_id": mapping.activity,
        "activity_name": mapping.activity_name if mapping.activity != OTHER else kind,
        "type_uid": mapping.class_.uid * 100 + mapping.activity, "severity_id": mapping.severity,
        "time": _milliseconds(text(entry.ce.time) or entry.ce.recordedtime), "message": kind, "metadata": _metadata(entry),
        "actor": _actor(entry), "attestation_list": [_attestation(entry, leaf)],
        "raw_data": raw.decode(errors="replace"), "unmapped": _unmapped(entry),
    }  # fmt: skip
    status = _STATUS.get(_outcome(entry))
    if status is not None:
        made |= {"status_id": status, "status_code": _outcome(entry)}
    parts = _PARTS.get(mapping.class_.uid)
    return made if parts is None else made | parts(entry, mapping)


def uid(origin: str, seq: int) -> str:
    """`metadata.uid`: unique, and computable for the entry before."""
    return f"{origin}#{seq}"


def _metadata(entry: Entry) -> dict[str, Any]:
    profiles = ["record_integrity", *(["ai_operation"] if KINDS.get(entry.kind, _NONE).class_ is API else [])]
    found: dict[str, Any] = {
        "version": VERSION, "product": {"name": "Folkmoot", "vendor_name": "Folkmoot"}, "profiles": profiles,
        "uid": uid(entry.origin, entry.seq), "original_event_uid": entry.ce.id, "event_code": entry.ce.type, "log_name": entry.origin,
        "log_provider": entry.obs.id, "sequence": entry.seq, "logged_time": _milliseconds(entry.ce.recordedtime),
    }  # fmt: skip
    if entry.session:
        found["correlation_uid"] = entry.session
    if text(entry.ce.time):
        found["original_time"] = text(entry.ce.time)
    return found


def _attestation(entry: Entry, leaf: bytes) -> dict[str, Any]:
    made: dict[str, Any] = {
        "uid": uid(entry.origin, entry.seq), "chain_uid": entry.origin, "authority_uid": entry.origin,
        "fingerprint": _fingerprint(leaf.hex()),
    }  # fmt: skip
    if entry.prev != GENESIS_PREV:
        made["prev_event"] = {"uid": uid(entry.origin, entry.seq - 1), "fingerprint": _fingerprint(entry.prev)}
    return made


def _fingerprint(value: str) -> dict[str, Any]:
    return {"algorithm_id": OTHER, "algorithm": FINGERPRINT, "value": value}


def _actor(entry: Entry) -> dict[str, Any]:
    who = entry.actor
    kind, name, seed = (text(getattr(who, field, "")) for field in ("kind", "id", "seed"))
    if kind == "human":
        return {"user": {"name": name, "type_id": 1, "type": "User"}}
    return {"application": {"name": name, **({"uid": seed} if seed else {})}}


def _ai_agent(entry: Entry) -> dict[str, Any]:
    """The agent that acted; its identity seed is its stable id, the commitment its version."""
    who, facts = entry.actor, entry.facts
    kind, name, seed, commitment = (text(getattr(who, field, "")) for field in ("kind", "id", "seed", "commitment"))
    if kind != "agent":
        name, seed, commitment = text(facts.get("gen_ai.agent.name")), "", ""
    if not name:
        return {}
    made: dict[str, Any] = {"uid": seed or name, "name": name, "type_id": 1, "type": "Native"}
    if commitment:
        made["version"] = commitment
    model = text(facts.get("gen_ai.response.model")) or text(facts.get("gen_ai.request.model"))
    if model:
        made["ai_model"] = {"name": model, "ai_provider": text(facts.get("gen_ai.provider.name")) or "unknown"}
    return {"ai_agent": made}


def _api(entry: Entry, mapping: Mapping) -> dict[str, Any]:
    facts = entry.facts
    operation = text(facts.get("gen_ai.operation.name")) or text(facts.get("gen_ai.tool.name")) or entry.kind
    service = text(facts.get("gen_ai.provider.name"))
    made: dict[str, Any] = {
        "api": {"operation": operation, **({"service": {"name": service}} if service else {})},
        "src_endpoint": {"name": entry.obs.id, "uid": entry.ce.source}, **_ai_agent(entry),
    }  # fmt: skip
    read, written = facts.get("gen_ai.usage.input_tokens"), facts.get("gen_ai.usage.output_tokens")
    if isinstance(read, int) and isinstance(written, int):
        made["message_context"] = {
            "uid": entry.session, "service": {"name": service or entry.obs.id}, "prompt_tokens": read, "completion_tokens": written,
            "total_tokens": read + written,
        }  # fmt: skip
    return made


def _entity(entry: Entry, mapping: Mapping) -> dict[str, Any]:
    facts = entry.facts
    found = next((text(facts.get(name)) for name in ("document", "vkey", "hold", "erasure", "id") if text(facts.get(name))), "")
    return {"entity": {"type": mapping.entity, "uid": found or entry.ce.id}}


def _delegation(entry: Entry, mapping: Mapping) -> dict[str, Any]:
    task = text(entry.facts.get("task"))
    made: dict[str, Any] = {"uid": task or entry.session, "issuer_uid": entry.obs.id}
    if task and entry.session:
        made["parent_uid"] = entry.session
    return {"delegation": made, **_ai_agent(entry)}


def _lifecycle(entry: Entry, mapping: Mapping) -> dict[str, Any]:
    return {"app": {"name": "Folkmoot ledger", "vendor_name": "Folkmoot", "uid": entry.origin}}


def _registered(entry: Entry, mapping: Mapping) -> dict[str, Any]:
    return _ai_agent(entry)


_PARTS: Final[dict[int, Callable[[Entry, Mapping], dict[str, Any]]]] = {
    6003: _api,
    3004: _entity,
    9001: _delegation,
    6002: _lifecycle,
    9002: _registered,
}


def _outcome(entry: Entry) -> str:
    facts = entry.facts
    return next((text(facts.get(key)) for key in ("folkmoot.outcome", "state", "status", "phase") if text(facts.get(key))), "")


def _unmapped(entry: Entry) -> dict[str, Any]:
    payload = entry.payload if isinstance(entry.payload, dict) else None
    made = {"data": entry.facts, "config": text(entry.config), "note": NOTE, **({"payload": payload} if payload else {})}
    return {"folkmoot": made}


def _milliseconds(stamp: str) -> int:
    """Epoch milliseconds; 0 for a time that is none."""
    try:
        return int(datetime.fromisoformat(stamp).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return 0
