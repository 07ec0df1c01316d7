"""What the doors need of a log, and what a producer may claim in one: shared by the log on a volume and its twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from folkmoot_core.entries import Actor, EntryRequest, EntryType, Producer, Receipt, new_entry
from folkmoot_core.errors import Forbidden
from folkmoot_core.ledger.envelope import Prepared, prepare

if TYPE_CHECKING:
    from folkmoot_runtime.ledger.waiting import Admission

OWN: Final = Producer(id="core/ledger")
OWN_ACTOR: Final = Actor(kind="service", id="ledger")
OWN_TYPES: Final[frozenset[EntryType]] = frozenset(
    {
        "log.opened", "log.closed", "log.degraded", "log.frozen", "log.key.rotated", "anchor", "anchor.failed", "retention.pruned",
        "heartbeat", "evidence.read",
    }
)  # fmt: skip
AGENTS: Final = "agents/"
SPOKEN_BY: Final[Mapping[str, frozenset[EntryType]]] = {
    "core/ledger": OWN_TYPES,
    AGENTS: frozenset({"identity.bound", "tool.call.intent", "tool.call.outcome"}),
    "broker": frozenset({"model.call.intent", "model.call.outcome"}),
    "core/router": frozenset({"bus.resent", "bus.dead", "bus.refused"}),
    "core/conductor": frozenset(
        {
            "log.control", "evidence.exported", "erasure", "legal.hold", "legal.hold.released", "config.changed", "session.start", "session.end", "session.cancelled", "task.sent", "task.result",
            "council.plan", "council.vote", "council.decision",
            "gate.submission", "gate.probe", "gate.check", "gate.review", "gate.verdict",
        }
    ),
}  # fmt: skip
"""Who records what. A reader who looks for a verdict by its type must not find one that an agent wrote."""


def own(entry_id: str, kind: EntryType, origin: str, *, now: float, **data: Any) -> Prepared:
    """An entry of the ledger itself."""
    return prepare(new_entry(kind, OWN_ACTOR, id=entry_id, data=data, now=now), origin=origin, producer=OWN)


class Ledger(Protocol):
    """An append-only log of one tenant."""

    @property
    def origin(self) -> str:
        """The log's identity for ever."""

    @property
    def vkey(self) -> str:
        """Its public key as text."""

    @property
    def size(self) -> int:
        """Durable entries."""

    async def append(self, requests: Sequence[EntryRequest], producer: Producer) -> list[Receipt]:
        """Append all or none, in order; durable on return. Known ids answer with their first receipt; `Conflict` when the
        content differs or the log is closed."""

    def admit(self, prepared: Sequence[Prepared]) -> Admission:
        """The part of `append` before the waiting, for a caller that checked claims and made the entries itself."""

    async def read(self, path: str) -> bytes | None:
        """A file of the log by its tlog-tiles path; None where there is none. Raises `Invalid` for what is no path."""

    async def publish(self) -> bool:
        """Sign and publish a checkpoint over all that is durable; True when one covers it."""

    async def covered(self, size: int) -> None:
        """Wait until a published checkpoint covers the first `size` entries."""

    async def close_log(self) -> int:
        """Append `log.closed`, publish, and return the final size. Idempotent."""

    async def aclose(self) -> None:
        """Finish what was accepted and let go of the volume."""


def check_claims(request: EntryRequest, producer: Producer) -> None:
    """Refuse what the producer cannot speak for: kinds of entries that are another's, and, for an agent, any other actor."""
    speaker = AGENTS if producer.id.startswith(AGENTS) else producer.id
    if request.type not in SPOKEN_BY.get(speaker, frozenset()):
        owner = next((name for name, types in SPOKEN_BY.items() if request.type in types), "nobody")
        raise Forbidden(f"entry {request.id}: {producer.id} may not record {request.type}; {owner} does", reason="ForeignType")
    if producer.id.startswith(AGENTS):
        agent = producer.id.removeprefix(AGENTS)
        if request.actor.kind != "agent" or request.actor.id != agent:
            raise Forbidden(
                f"entry {request.id}: agent {agent} claims to act as {request.actor.kind} {request.actor.id!r}; expected itself",
                reason="ForeignActor",
            )
