"""What a witness's answer to `add-checkpoint` means for the log that asked. C2SP tlog-witness, seen from the log's side.

A witness remembers the largest checkpoint that it cosigned, on a volume that is not the log's. So its answers tell a log whose
volume was rolled back, or that shows two histories, what it cannot know by itself. Used by the ledger before it publishes; no I/O.

Obligations, numbered here and at the steps: 1. a cosignature counts only if it verifies by the witness's key over exactly the
text that was asked about: one bad line from a known key would make the whole checkpoint unreadable; 2. a witness that has seen
more of this log than the log itself holds means that the log lost entries; 3. a refusal of a consistency proof that we made from
our own tree means that the witness was shown another tree; 4. anything else is no cosignature, and never an alarm.
"""

from __future__ import annotations

from dataclasses import dataclass

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import witness
from folkmoot_core.ledger.note import VerifierKey


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True)
class Asked:
    """What was asked: the checkpoint's text, and the size from which consistency was proved."""

    text: str
    old: int
    durable: int
    """Entries that the log holds now."""


@dataclass(frozen=True)
class Cosigned:
    """It cosigned: these lines go into the published checkpoint."""

    lines: str


@dataclass(frozen=True)
class AskFrom:
    """It last cosigned this size: ask again with a proof from there."""

    size: int


@dataclass(frozen=True)
class Forked:
    """It holds a history that this log does not extend. The log must not go on."""

    why: str


@dataclass(frozen=True)
class Refused:
    """No cosignature, for another reason. It may be asked again later."""

    why: str


_UNKNOWN = {
    witness.NOT_FOUND: "it does not know this log yet",
    witness.FORBIDDEN: "it answers 403: it knows this log by another key. After an exchange of keys the installation's own witness is told "
    "at once, any other by whoever runs it",
}
Outcome = Cosigned | AskFrom | Forked | Refused


def judge(answer: Answer, asked: Asked, key: VerifierKey) -> Outcome:
    """Total: whatever a witness answers has a meaning here."""
    try:
        found = witness.read_answer((answer.status, answer.content_type, answer.body), asked.text, [key])  # 1
    except Invalid as error:
        return Refused(error.message)
    match found:
        case witness.Cosignatures(lines=lines):
            return Cosigned(lines)
        case witness.Behind(size=size):
            return _behind(size, asked)
        case witness.Refused(status=status, fork=fork):
            if fork:  # 3
                return Forked(
                    f"it answers {status}: it was shown another history of this log than one that grew from entry {asked.old}"
                )
            return Refused(_UNKNOWN.get(status, f"it answers {status}"))


def _behind(size: int, asked: Asked) -> Outcome:
    if size > asked.durable:  # 2
        return Forked(f"it has cosigned {size} entries of this log, which holds {asked.durable}: the volume was rolled back")
    if size == asked.old:
        return Refused(f"it answers 409 although it was asked from {size}, the size it names")
    return AskFrom(size)
