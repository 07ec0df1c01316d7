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
from folkmoot_core.ledger import note
from folkmoot_core.ledger.note import VerifierKey

SIZE_TYPE = "text/x.tlog.size"
MAX_ANSWER = 16 * 1024  # bytes: four ML-DSA-44 lines, with room


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
    """It cosigned: this line goes into the published checkpoint."""

    line: str


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


Outcome = Cosigned | AskFrom | Forked | Refused


def read_answer(answer: Answer, asked: Asked, witness: VerifierKey) -> Outcome:
    """Total: whatever a witness answers has a meaning here."""
    if len(answer.body) > MAX_ANSWER:
        return Refused(f"answered {len(answer.body)} bytes; at most {MAX_ANSWER} are read")
    if answer.status == 200:
        return _cosigned(answer.body, asked.text, witness)
    if answer.status == 409:
        return _conflict(answer, asked)
    if answer.status == 422:  # 3
        return Forked(f"it refuses our proof that the log grew from entry {asked.old}: it was shown another history of this log")
    if answer.status == 404:
        return Refused("it does not know this log yet")
    return Refused(f"answered {answer.status}")


def _cosigned(body: bytes, text: str, witness: VerifierKey) -> Outcome:
    try:
        lines = note.parse_lines(body.decode())
    except (UnicodeDecodeError, Invalid):
        return Refused("answered 200 with something else than signature lines")
    for line in lines:
        if (line.name, line.key_id) != (witness.name, witness.id):
            continue
        if not witness.verify(text, line.payload):  # 1
            return Refused("its cosignature does not verify by its key")
        return Cosigned(line.text())
    return Refused(f"answered 200 without a cosignature by key {witness.id.hex()}")


def _conflict(answer: Answer, asked: Asked) -> Outcome:
    if answer.content_type.partition(";")[0].strip() != SIZE_TYPE:
        # Older witnesses answer a fork at the same size so; a stale `old` always comes with the size (ledger.md §1.9).
        return Forked("it holds another checkpoint of this size")
    text = answer.body.decode(errors="replace").strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        return Refused("answered 409 without a size")
    size = int(text)
    if size > asked.durable:  # 2
        return Forked(f"it has cosigned {size} entries of this log, which holds {asked.durable}: the volume was rolled back")
    if size == asked.old:
        return Refused(f"answered 409 although it was asked from {size}, the size it names")
    return AskFrom(size)
