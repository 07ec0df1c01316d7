"""Erasure and legal holds as values: what is asked for, what is answered, what an entry about it says, what a session keeps.

Pure. The conductor acts; the CLI shows. Nothing here holds content: an entry names commitments and files by number and digest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from folkmoot_core.canonical import digest
from folkmoot_core.document import SessionOrder
from folkmoot_core.resources.session import SessionSpec, SubjectName
from folkmoot_core.sessions import ClosingNote, Ending, SessionEvent

MAX_RANGES: Final = 100  # position ranges in one entry; closer ones are joined beyond it
ERASED_TEXT: Final = "(erased)"
MAX_SESSIONS: Final = 1000  # in one request to the broker
BROKER: Final = "broker-journal"
NOT_REACHED: Final = (BROKER, "exports", "backups", "providers")
"""Where copies may be that erasing at the conductor does not reach; said in every entry about an erasure (docs/privacy.md). The broker's
journal is asked to erase as well, and leaves the list once it has said that it did."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
SessionName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{7,39}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ErasureRequest(_Frozen):
    """`POST /v1/erasures`: one subject or one session (name or uid). `basis` is on record for ever and must name no person, such
    as "GDPR Art. 17(1)(b), request 2026-114". `id` of the caller's choice: the same one again is the same erasure."""

    subject: SubjectName | None = None
    session: SessionName | None = None
    basis: Text
    id: Id | None = None

    @model_validator(mode="after")
    def _one(self) -> ErasureRequest:
        if (self.subject is None) == (self.session is None):
            raise ValueError("expected a subject or a session, one of them")
        return self


class Erasure(_Frozen):
    """What became of an erasure."""

    id: str
    subject_ref: str
    session: str = ""  # uid, where only one session of the subject was erased
    basis: str
    by: str
    asked: str  # RFC 3339
    state: Literal["intended", "recorded", "destroyed", "done"]
    sessions: int
    count: int  # commitments that can no longer be opened
    digest: str  # of the list of deleted sealed files
    intent: int | None = None  # position of the entry before, and of the one after
    outcome: int | None = None
    not_reached: tuple[str, ...] = NOT_REACHED


class SessionsErasure(_Frozen):
    """Body of the broker's `POST /v1/erasures`: uids of sessions whose calls go."""

    sessions: tuple[SessionName, ...] = Field(min_length=1, max_length=MAX_SESSIONS)


class HoldRequest(_Frozen):
    """`POST /v1/holds`. `reason` is on record for ever and must name no person."""

    scope: Literal["tenant", "subject", "session"]
    subject: SubjectName | None = None
    session: SessionName | None = None
    reason: Text
    id: Id | None = None

    @model_validator(mode="after")
    def _fits(self) -> HoldRequest:
        wanted = {"tenant": (False, False), "subject": (True, False), "session": (False, True)}[self.scope]
        if (self.subject is not None, self.session is not None) != wanted:
            named = "neither subject nor session" if self.scope == "tenant" else f"its {self.scope} and nothing else"
            raise ValueError(f"a hold of scope {self.scope} names {named}")
        return self


class Hold(_Frozen):
    """A legal hold. In force from its request on until its release is on record."""

    id: str
    scope: Literal["tenant", "subject", "session"]
    subject_ref: str = ""
    session: str = ""  # uid
    reason: str
    by: str
    placed: str  # RFC 3339
    entry: int | None = None  # position of legal.hold, once it is durable
    released: int | None = None  # position of legal.hold.released


def list_digest(names: Iterable[str]) -> str:
    """Digest of a list of deleted files: their names sorted, each with a line feed."""
    return digest("".join(f"{name}\n" for name in sorted(names)).encode())


def ranges(positions: Iterable[int], most: int = MAX_RANGES) -> list[list[int]]:
    """Positions as [first, last] pairs in order; the closest are joined until there are at most `most`."""
    found: list[list[int]] = []
    for position in sorted(set(positions)):
        if found and position == found[-1][1] + 1:
            found[-1][1] = position
        else:
            found.append([position, position])
    while len(found) > max(most, 1):
        nearest = min(range(1, len(found)), key=lambda i: found[i][0] - found[i - 1][1])
        found[nearest - 1][1] = found.pop(nearest)[1]
    return found


# What an event keeps when its session is erased: numbers, codes of ours, names of objects. Not the digests of content: of content
# that can be guessed they tell that it was there. Texts of notes (a vote's reason, a review's findings) are what somebody said.
_CODES: Final = frozenset({"phase", "reason", "name", "need", "agent", "task", "status", "provider", "model", "family", "cost",
                           "currency", "usage", "gate_verdict", "gate_shapes"})  # fmt: skip
_OWN: Final = frozenset({"session.accepted", "session.order", "session.phase", "session.cancelling", "task.sent", "task.result",
                         "check.result", "probes.result"})  # fmt: skip
_NOTED: Final = frozenset({"need", "actor", "verdict", "shapes"})
_NUMBERS: Final = frozenset({"generation", "calls", "exit_code", "timed_out", "findings", "ledger", "submission", "for", "against",
                             "gate_submission", "votes_for", "votes_against"})  # fmt: skip


def scrubbed_event(event: SessionEvent) -> SessionEvent:
    """The event without anything that was said: what is not known to be harmless goes."""
    texts = _CODES if event.type in _OWN else _NOTED
    kept = {
        key: value for key, value in event.data.items() if key in texts or (key in _NUMBERS and isinstance(value, int | None))
    }
    if event.type == "session.phase":
        kept["message"] = ERASED_TEXT
    return event.model_copy(update={"data": kept})


def scrubbed_order(order: SessionOrder) -> SessionOrder:
    """The order with who works on it and its limits, and without what was asked and of whom."""
    spec = SessionSpec(
        target=order.spec.target, task=ERASED_TEXT, budget=order.spec.budget, priority=order.spec.priority,
        ttl_seconds_after_finished=order.spec.ttl_seconds_after_finished,
    )  # fmt: skip
    return order.model_copy(update={"spec": spec, "inputs": {}})


def scrubbed_ending(ending: Ending) -> Ending:
    """How it ended, without the outcome."""
    return Ending(phase=ending.phase, reason=ending.reason, message=ERASED_TEXT)


def scrubbed_note(note: ClosingNote) -> ClosingNote:
    """The closing note without its words."""
    return note.model_copy(update={"summary": ERASED_TEXT, "unfinished": ()})
