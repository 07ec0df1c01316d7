"""What the router does with a message: pure decisions. folkmoot_runtime.bus.router gathers the context and acts.

A message from a participant's outbox passes an ordered chain of checks; the first refusal wins and is a value, never an
exception. Delivered tasks wait for their ACK: missed, the same request_id is sent again, then the sender is told.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from folkmoot_core import signing
from folkmoot_core.canonical import sha256_hex
from folkmoot_core.errors import Invalid
from folkmoot_core.messages import MAX_BODY, Envelope, Kind, Task, TaskResult
from folkmoot_core.names import CORE

ROUTER: Final = "core/router"  # sender of what the router itself says; the slash keeps it apart from every agent's name
ACK_MS: Final = {"critical": 30_000, "routine": 60_000}  # substrate.md "Bus"
MIN_ACK_MS: Final = 1_000
MAX_ACK_MS: Final = 3_600_000
MAX_ATTEMPTS: Final = 3  # the first delivery and two resends
MAX_HANDOUTS: Final = 5  # times one delivery may be handed out again after its reader died
SEEN_WINDOW_MS: Final = 24 * 3_600_000  # how long a request_id is remembered
MAX_INBOX: Final = 10_000  # messages an agent's inbox may hold

FROM_CORE: Final[frozenset[Kind]] = frozenset({"task", "cancel"})
TO_CORE: Final[frozenset[Kind]] = frozenset({"ack", "result", "heartbeat"})


@dataclass(frozen=True)
class Context:
    """What the router knows when it looks at one message."""

    tenant: str
    owner: str
    """The participant whose outbox held the message: the bus's ACL vouches for that, nothing in the message does."""
    participants: frozenset[str]
    """Agents of the tenant document, and the core."""
    keys: tuple[bytes, ...]
    """Public keys registered for `owner` and not expired."""
    seen: bool = False
    """Whether this owner's request_id was routed before."""
    waiting_for: str = ""
    """Whose ACK the delivery named by `ack_for` waits for; empty: it waits no more."""
    inbox: int = 0
    """Messages in the recipient's inbox."""
    now_ms: int = 0
    """The bus server's own time."""


@dataclass(frozen=True)
class Deliver:
    """Put it into the recipient's inbox. `interval_ms`: its ACK is due that long after now, 0: it needs none; `settles`: the
    waiting delivery that this one answers."""

    envelope: Envelope
    interval_ms: int = 0
    settles: str | None = None


@dataclass(frozen=True)
class Refuse:
    """Do not deliver; record it. `tell`: what the sender is told when it waits for an answer."""

    reason: str
    message: str
    request_id: str = ""
    kind: str = ""
    to: str = ""
    tell: Envelope | None = None


@dataclass(frozen=True)
class Duplicate:
    """Routed before: take it off the outbox, nothing else."""

    request_id: str


Decision = Deliver | Refuse | Duplicate
Refusal = tuple[str, str] | None


def waiting_id(sender: str, request_id: str) -> str:
    """Name of a delivery that waits for its ACK. Ids are unique per sender only."""
    return f"{sender}/{request_id}"


def decide(fields: dict[str, str], context: Context) -> Decision:
    """Check one outbox message; `fields` is what the stream holds."""
    try:
        envelope = Envelope.from_fields(fields)
    except Invalid as error:
        return Refuse("Malformed", error.message)
    for check in CHECKS:
        if refusal := check(envelope, context):
            reason, message = refusal
            tell = _told(envelope, context, reason, message)
            return Refuse(reason, message, envelope.request_id, envelope.kind, envelope.to, tell)
    if context.seen:
        return Duplicate(envelope.request_id)
    settles = waiting_id(envelope.to, envelope.ack_for) if context.waiting_for == envelope.sender and envelope.ack_for else None
    interval_ms = ack_interval(envelope) if envelope.kind == "task" else 0
    due_ms = context.now_ms + interval_ms if interval_ms else 0
    return Deliver(envelope.model_copy(update={"attempt": 1, "deadline_ms": due_ms}), interval_ms, settles)


def ack_interval(envelope: Envelope) -> int:
    """Milliseconds the recipient has for its ACK, counted from delivery: the sender's wish within bounds, else the priority's."""
    if not envelope.deadline_ms:
        return ACK_MS[envelope.priority]
    return min(max(envelope.deadline_ms - envelope.created_ms, MIN_ACK_MS), MAX_ACK_MS)


def _check_tenant(envelope: Envelope, context: Context) -> Refusal:
    if envelope.tenant != context.tenant:
        return "ForeignTenant", f"message names another tenant than {context.tenant}"
    return None


def _check_sender(envelope: Envelope, context: Context) -> Refusal:
    if envelope.sender != context.owner:
        return "ForeignSender", f"message in the outbox of {context.owner} names another sender"
    return None


def _check_recipient(envelope: Envelope, context: Context) -> Refusal:
    if envelope.to not in context.participants:
        return "UnknownRecipient", "recipient is not among the agents of the tenant document"
    return None


def _check_kind(envelope: Envelope, context: Context) -> Refusal:
    if CORE not in (envelope.sender, envelope.to) or envelope.sender == envelope.to:
        return "NotAllowed", "messages go between the core and one agent; agents reach each other through their council alone"
    allowed = FROM_CORE if envelope.sender == CORE else TO_CORE
    if envelope.kind not in allowed:
        return "NotAllowed", f"{context.owner} may not send kind {envelope.kind}; allowed: {', '.join(sorted(allowed))}"
    return None


def _check_signature(envelope: Envelope, context: Context) -> Refusal:
    if not context.keys:
        return "UnknownKey", f"no public key of {context.owner} is registered; ask the router's door for credentials first"
    if not signing.verify(envelope, context.keys):
        return "BadSignature", f"signature is not by a registered key of {context.owner}"
    return None


def _check_body(envelope: Envelope, context: Context) -> Refusal:
    if len(envelope.body.encode()) > MAX_BODY:
        return "TooLarge", f"body is larger than {MAX_BODY} bytes; larger content travels by artefact digest"
    try:
        if envelope.kind == "task":
            Task.model_validate_json(envelope.body)
        elif envelope.kind == "result":
            TaskResult.model_validate_json(envelope.body)
        elif not isinstance(json.loads(envelope.body), dict):
            return "Malformed", f"body of kind {envelope.kind} is not a JSON object"
    except (ValidationError, ValueError, RecursionError):
        return "Malformed", f"body does not fit kind {envelope.kind}"
    return None


def _check_room(envelope: Envelope, context: Context) -> Refusal:
    if envelope.to != CORE and context.inbox >= MAX_INBOX:
        return "InboxFull", f"inbox of {envelope.to} holds {context.inbox} messages; it does not read them"
    return None


def _check_ack(envelope: Envelope, context: Context) -> Refusal:
    if envelope.kind in ("ack", "result") and not envelope.ack_for:
        return "Malformed", f"kind {envelope.kind} names no message in ack_for"
    if context.waiting_for and context.waiting_for != context.owner:
        return "ForeignAck", "message answers a delivery that went to somebody else"
    return None


CHECKS: Final[tuple[Callable[[Envelope, Context], Refusal], ...]] = (
    _check_tenant,  # a message of another tenant never goes on, whoever signed it
    _check_sender,  # nobody speaks in another's name
    _check_recipient,  # nothing for inboxes that nobody reads
    _check_kind,  # only the core gives work; agents answer it
    _check_signature,  # made by a process that showed this participant's token within the hour
    _check_body,  # the recipient can parse it
    _check_ack,  # nobody settles a delivery to somebody else
    _check_room,  # a stream is never trimmed of what was not read; the core's inbox holds its senders back instead
)


class Waiting(BaseModel):
    """A delivered task that waits for its ACK: a value of the hash `delivered_key`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    envelope: Envelope
    interval_ms: int


@dataclass(frozen=True)
class Resend:
    """Deliver the same request_id again, with a higher attempt, due at the envelope's new `deadline_ms`."""

    envelope: Envelope


@dataclass(frozen=True)
class Dead:
    """Give up: into the dead stream and the ledger; the sender is told."""

    envelope: Envelope
    reason: str
    tell: Envelope | None


def overdue(waiting: Waiting, now_ms: int) -> Resend | Dead:
    """The ACK of this delivery was missed."""
    envelope = waiting.envelope
    if envelope.attempt < MAX_ATTEMPTS:
        update = {"attempt": envelope.attempt + 1, "deadline_ms": now_ms + waiting.interval_ms}
        return Resend(envelope.model_copy(update=update))
    message = f"agent {envelope.to} did not acknowledge the task in {envelope.attempt} attempts"
    return Dead(envelope, "Unresponsive", failure(envelope, "Unresponsive", message, now_ms))


def poisonous(envelope: Envelope, now_ms: int) -> Dead:
    """This delivery was handed out more than MAX_HANDOUTS times and never done: it seems to kill whoever takes it."""
    message = f"the task was handed to agent {envelope.to} {MAX_HANDOUTS} times and never finished"
    return Dead(envelope, "Poison", failure(envelope, "Poison", message, now_ms))


def record_of(envelope: Envelope, reason: str = "") -> dict[str, str | int]:
    """What the ledger is told of a message: names and numbers, never its body."""
    data: dict[str, str | int] = {
        "request_id": envelope.request_id, "kind": envelope.kind, "from": envelope.sender, "to": envelope.to,
        "priority": envelope.priority, "attempt": envelope.attempt,
    }  # fmt: skip
    return {**data, "reason": reason} if reason else data


def failure(envelope: Envelope, reason: str, message: str, now_ms: int) -> Envelope | None:
    """The router's own answer to a task that will get no other one; None when the message is no task."""
    if envelope.kind != "task":
        return None
    try:
        task = Task.model_validate_json(envelope.body)
    except ValidationError:
        return None
    body = TaskResult(task=task.task, session=task.session, status="failed", error=message, reason=reason)
    identity = sha256_hex(f"{reason}\n{envelope.sender}\n{envelope.request_id}".encode())
    return Envelope(
        request_id=f"told-{identity[:40]}", ack_for=envelope.request_id, conversation=envelope.conversation,
        tenant=envelope.tenant, sender=ROUTER, to=envelope.sender, kind="result", priority=envelope.priority, created_ms=now_ms,
        body=body.model_dump_json(),
    )  # fmt: skip


def _told(envelope: Envelope, context: Context, reason: str, message: str) -> Envelope | None:
    """The core hears of its own refused tasks; an agent's refused message is only recorded, so it gains no voice by it."""
    if context.owner != CORE or (envelope.sender, envelope.tenant) != (CORE, context.tenant):
        return None
    return failure(envelope, reason, message, context.now_ms)
