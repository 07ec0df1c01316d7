"""Ledger entries: the envelope that is final from the first day. ledger.md §4.5, wiring.md §7.

A producer sends an `EntryRequest`; the ledger adds what only it can vouch for: position, hash link, time of recording and
the authenticated producer (`obs`, `ce.source`). No content ever: metadata and salted commitments.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from folkmoot_core.canonical import canonical_json

MAX_ENTRY = 60 * 1024  # bytes of one encoded entry (tlog-tiles allows 65,535)
GENESIS_PREV = "0" * 64  # `prev` of entry 0
TYPE_PREFIX = "dev.folkmoot.audit."

EntryType = Literal[
    "log.opened", "log.closed", "log.degraded", "log.frozen", "log.control", "log.key.rotated", "anchor", "anchor.failed", "retention.pruned",
    "erasure", "legal.hold", "legal.hold.released", "heartbeat", "config.changed", "identity.bound",
    "session.start", "session.end", "session.cancelled", "task.sent", "task.result",
    "council.plan", "council.vote", "council.decision",
    "gate.submission", "gate.probe", "gate.check", "gate.review", "gate.verdict", "model.call.intent", "model.call.outcome",
    "tool.call.intent", "tool.call.outcome", "bus.resent", "bus.dead", "bus.refused", "evidence.read", "evidence.exported",
]  # fmt: skip


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Actor(_Frozen):
    """On whose behalf. `seed` and `commitment` come from the tenant document (wiring.md §7)."""

    kind: Literal["agent", "human", "service"]
    id: str = Field(max_length=128)
    seed: str = Field(default="", max_length=64)
    commitment: str = Field(default="", max_length=64)


class Payload(_Frozen):
    """A salted commitment to content that lives elsewhere; the opening stays with whoever made it."""

    alg: Literal["sha256-salt-v1"] = "sha256-salt-v1"
    commit: str = Field(min_length=64, max_length=64)
    size: int = Field(ge=0)
    media: str = Field(default="application/json", max_length=100)


class EntryRequest(_Frozen):
    """Body of the ledger's `POST /v1/entries`. (`source` derived from the caller, `id`) is the idempotency key."""

    id: str = Field(min_length=8, max_length=128)
    type: EntryType
    time: str = Field(max_length=40)  # RFC 3339, UTC, 'Z'
    actor: Actor
    session: str = Field(default="", max_length=64)
    config: str = Field(default="", max_length=80)  # digest of the tenant document in force
    data: dict[str, Any] = {}  # OTel GenAI names where one exists; ASCII keys, no floats
    payload: Payload | None = None
    traceparent: str = Field(default="", max_length=60)

    def same_fact(self, other: EntryRequest) -> bool:
        """Whether both record the same fact. A producer that died before it heard the answer makes its request again, and
        its clock and trace have moved by then; all else must be equal."""
        return self.model_copy(update={"time": other.time, "traceparent": other.traceparent}) == other


def rfc3339(now: float) -> str:
    """Epoch seconds as RFC 3339 text in UTC with microseconds and 'Z': the one form of time in entries."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def new_entry(  # noqa: PLR0913 - keyword arguments that name the envelope's fields
    type: EntryType, actor: Actor, *, id: str, data: Mapping[str, Any], session: str = "", config: str = "",
    payload: Payload | None = None, now: float,
) -> EntryRequest:  # fmt: skip
    """An append request. `id` is stable for the fact that is recorded, so that making the request again after a crash adds
    nothing; `now` is epoch seconds."""
    return EntryRequest(
        id=id, type=type, time=rfc3339(now), actor=actor, session=session, config=config, data=dict(data), payload=payload,
    )  # fmt: skip


class Producer(_Frozen):
    """Who the ledger authenticated: `uid:<n>` mapped to a container, or a ServiceAccount."""

    id: str  # "core/conductor", "core/router", "broker", "agents/<name>"
    build: str = ""


class Receipt(_Frozen):
    """Answer to an append: durable at `index`."""

    index: int
    leaf: str  # lowercase hex RFC 6962 leaf hash
    duplicate: bool = False


def source_of(origin: str, producer: Producer) -> str:
    """CloudEvents `source`: the log and who was authenticated."""
    return f"/{origin.rsplit('/', 1)[-1]}/{producer.id}"


def encode_entry(  # noqa: PLR0913 - these are the envelope's fields; a holder class would only rename them
    request: EntryRequest, *, origin: str, seq: int, prev: str, recorded: str, producer: Producer
) -> bytes:
    """The exact bytes that are hashed and stored, RFC 8785 JSON. Raises `Invalid` when `data` is outside the canonical subset."""
    ce: dict[str, Any] = {
        "specversion": "1.0", "id": request.id, "source": source_of(origin, producer),
        "type": f"{TYPE_PREFIX}{request.type}.v1", "time": request.time, "recordedtime": recorded,
    }  # fmt: skip
    if request.session:
        ce["subject"] = request.session
    if request.traceparent:
        ce["traceparent"] = request.traceparent
    entry: dict[str, Any] = {
        "v": 1, "origin": origin, "seq": seq, "prev": prev, "ce": ce, "actor": request.actor.model_dump(),
        "config": request.config, "data": request.data, "obs": producer.model_dump(),
    }  # fmt: skip
    if request.payload is not None:
        entry["payload"] = request.payload.model_dump()
    return canonical_json(entry)
