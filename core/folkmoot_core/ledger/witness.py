"""C2SP tlog-witness as arithmetic: the request and the answer of `add-checkpoint`, and what a witness decides.

The witness's door calls `parse_request` and, in one transaction of its store, `decide`; the log calls `Request.encode` and
`read_answer`. Nothing here stores, signs or reads a clock.

Obligations of `decide` (tlog-witness, add-checkpoint), numbered here and at the steps: 1. the origin is known, or 404; 2. a key
that is trusted for the origin signed, and no line of such a key is false, or 403; lines of other keys are ignored; 3. the old
size is not above the checkpoint's, or 400; 4. it is the size last cosigned, or 409 with that size; 5. the same size has the same
root, or 422: this is a fork, and both notes prove it; 6. the consistency proof leads from what was cosigned to what is to be
cosigned, or 422. The caller still owes: 7. that reading what is stored, deciding and storing are one step; 8. that the result is
on disk before a signature leaves; 9. that no cosignature is dated before the one that went before it (tlog-cosignature: "as of
the specified time … the largest size").
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import checkpoint, note, rotation
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.cosigned import MAX_SIZE, unbase64
from folkmoot_core.ledger.note import ED25519, VerifierKey
from folkmoot_core.ledger.tree import EMPTY_ROOT, HASH_SIZE, verify_consistency

MAX_REQUEST: Final = 16 * 1024  # bytes of a body; what transparency-dev's witness reads as well
MAX_ANSWER: Final = 64 * 1024
MAX_PROOF_LINES: Final = 63
TEXT_TYPE: Final = "text/plain; charset=utf-8"
SIZE_TYPE: Final = "text/x.tlog.size"
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)

OK, BAD_REQUEST, FORBIDDEN, NOT_FOUND, CONFLICT, UNPROCESSABLE = 200, 400, 403, 404, 409, 422


@dataclass(frozen=True)
class Request:
    """A checkpoint, verbatim, and the proof that it extends the tree of size `old`."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        """The body; raises `Invalid` for one that no witness would read."""
        lines = [f"old {self.old}", *(base64.b64encode(one).decode() for one in self.proof), "", ""]
        body = "\n".join(lines).encode() + self.checkpoint
        parse_request(body)
        return body


@dataclass(frozen=True)
class Known:
    """What a witness keeps of a log. A log that was never cosigned has size 0."""

    origin: str
    keys: tuple[VerifierKey, ...]
    size: int = 0
    root: bytes = EMPTY_ROOT
    seconds: int = 0  # of the last cosignature
    note: bytes = b""  # the checkpoint last cosigned, with the witness's lines
    fork: bytes = b""  # a checkpoint that the log signed and that contradicts `note`'s; the first one is kept


@dataclass(frozen=True)
class Accepted:
    """To be cosigned: store `known` with the signature lines added, then answer with these lines."""

    known: Known
    text: str


@dataclass(frozen=True)
class Rejected:
    """The answer, without a signature. `known` is to be stored where it is not None: a fork came to light."""

    status: int
    detail: str
    size: int | None = None  # of the answer 409
    known: Known | None = None


def origin_hash(origin: str) -> str:
    """What names a log in the monitoring path: hex of SHA-256."""
    return hashlib.sha256(origin.encode()).hexdigest()


def parse_request(body: bytes) -> Request:
    """The request in a body; raises `Invalid`, which is answered with 400."""
    if len(body) > MAX_REQUEST:
        raise Invalid(f"add-checkpoint: body has {len(body)} bytes; at most {MAX_REQUEST}")
    top, blank, signed = body.partition(b"\n\n")
    try:
        first, *lines = top.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise Invalid("add-checkpoint: the lines before the checkpoint are not ASCII") from error
    old = first.removeprefix("old ")
    if not blank or first == old or not _SIZE.fullmatch(old) or int(old) > MAX_SIZE:
        raise Invalid("add-checkpoint: expected 'old <size>', proof lines, an empty line and a checkpoint")
    if len(lines) > MAX_PROOF_LINES:
        raise Invalid(f"add-checkpoint: {len(lines)} proof lines; at most {MAX_PROOF_LINES}")
    checkpoint.parse(note.split(signed)[0])
    return Request(int(old), tuple(_hash(line) for line in lines), signed)


def claim_of(request: Request) -> Checkpoint:
    """What the checkpoint says, **not verified**: its origin tells which log to look up."""
    return checkpoint.parse(note.split(request.checkpoint)[0])


def decide(request: Request, known: Known | None) -> Accepted | Rejected:
    """Check obligations 1-6 against what is stored for the request's origin."""
    claim = claim_of(request)
    if known is None or known.origin != claim.origin:  # 1
        return Rejected(NOT_FOUND, "this witness does not know the checkpoint's log")
    try:
        opened = note.open_note(request.checkpoint, known.keys)  # 2
    except Invalid as error:
        return Rejected(FORBIDDEN, error.message)
    if request.old > claim.size:  # 3
        return Rejected(BAD_REQUEST, f"old size {request.old} is above the checkpoint's size {claim.size}")
    forked = claim.size == known.size and claim.root != known.root
    # A fork is kept whatever the old size says: the log signed it.
    signed = _own_lines(request.checkpoint, known.keys)
    kept = replace(known, fork=signed) if forked and not known.fork else None
    if request.old != known.size:  # 4
        return Rejected(CONFLICT, f"the size last cosigned is {known.size}", known.size, kept)
    if forked:  # 5
        return Rejected(UNPROCESSABLE, f"another root was cosigned for size {known.size}: the log has forked", known=kept)
    try:
        verify_consistency(known.size, claim.size, known.root, claim.root, request.proof)  # 6
    except Invalid as error:
        return Rejected(UNPROCESSABLE, error.message)
    return Accepted(replace(known, size=claim.size, root=claim.root, note=signed), opened.text)


def cosigned(accepted: Accepted, lines: str, seconds: int) -> Known:
    """What is stored of an accepted checkpoint once the witness's lines are made."""
    return replace(accepted.known, note=accepted.known.note + lines.encode(), seconds=seconds)


def admit(known: Known | None, origin: str, keys: tuple[VerifierKey, ...], rotated: bytes = b"") -> Known:
    """The log as it is known from now on; raises `Invalid` for another key without a valid rotation note.

    A new log starts at size 0: what it shows first is believed, as everywhere (trust on first use).
    """
    if known is None:
        return Known(origin, keys)
    if known.keys == keys:
        return known
    if not rotated:
        raise Invalid(
            f"log {origin[:80]!r} is known with other keys ({known.keys[0].id.hex()}); "
            "send the rotation note that its old and its new key signed"
        )
    old = next(key for key in known.keys if key.algorithm == ED25519)
    rotation.verify(rotated, old, keys)
    return replace(known, keys=keys)


# -- the log's side -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cosignatures:
    """Lines of keys that were expected, each verified: to be appended to the checkpoint."""

    lines: str
    keys: tuple[VerifierKey, ...]


@dataclass(frozen=True)
class Behind:
    """The witness last cosigned this size: make a proof from there and ask again."""

    size: int


@dataclass(frozen=True)
class Refused:
    """No cosignature. `fork`: the witness knows another history of this log, which is an alarm and never a reason to retry."""

    status: int
    fork: bool


def read_answer(answer: tuple[int, str, bytes], text: str, keys: Sequence[VerifierKey]) -> Cosignatures | Behind | Refused:
    """Status, content type and body as a witness with these keys gave them for a checkpoint's text; raises `Invalid`.

    Lines of other keys are ignored (add-checkpoint). A false line of an expected key makes the whole answer invalid: once
    published it would make the checkpoint unreadable for whoever knows that key.
    """
    status, content_type, body = answer
    if len(body) > MAX_ANSWER:
        raise Invalid(f"witness answered {len(body)} bytes; at most {MAX_ANSWER}")
    if status == CONFLICT and content_type.partition(";")[0].strip().lower() == SIZE_TYPE:
        return Behind(_size(body))
    if status != OK:
        # Older witnesses answer 409 without a size where the root differs; today's 422.
        return Refused(status, fork=status in (CONFLICT, UNPROCESSABLE))
    try:
        lines = note.parse_lines(body.decode())
    except UnicodeDecodeError as error:
        raise Invalid("witness answered what is not UTF-8") from error
    wanted = {(key.name, key.id): key for key in keys}
    found: dict[VerifierKey, str] = {}
    for line in lines:
        key = wanted.get((line.name, line.key_id))
        if key is None:
            continue
        if not key.verify(text, line.payload):
            raise Invalid(f"witness answered a false cosignature by {key.name} ({key.id.hex()})")
        found[key] = line.text()
    if not found:
        raise Invalid(f"witness answered no cosignature by {', '.join(sorted({key.name for key in keys})) or 'an expected key'}")
    return Cosignatures("".join(found.values()), tuple(found))


def _own_lines(signed: bytes, keys: Sequence[VerifierKey]) -> bytes:
    """The note without lines of others, which nobody here can verify and which would be stored and served again."""
    text, lines = note.split(signed)
    wanted = {(key.name, key.id) for key in keys}
    return (text + "\n" + "".join(line.text() for line in lines if (line.name, line.key_id) in wanted)).encode()


def _size(body: bytes) -> int:
    text = body.decode("ascii", errors="replace").removesuffix("\n")
    if not _SIZE.fullmatch(text) or int(text) > MAX_SIZE:
        raise Invalid(f"witness answered 409 with {text[:30]!r}; expected a size and a line feed")
    return int(text)


def _hash(line: str) -> bytes:
    try:
        found = unbase64(line)
    except Invalid as error:
        raise Invalid(f"add-checkpoint: a proof line is {error.message}") from error
    if len(found) != HASH_SIZE:
        raise Invalid(f"add-checkpoint: a proof line holds {len(found)} bytes; expected {HASH_SIZE}")
    return found
