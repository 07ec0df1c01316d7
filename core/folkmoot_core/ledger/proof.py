"""C2SP tlog-proof: an entry's place in a log, with the cosigned checkpoint it is proved against, in one text.

The receipt that is handed out: who has it, the entry and a policy needs neither the log nor us. Reading is strict, one spelling
for each proof. `extra` is kept and **not authenticated**: the format says that nobody may trust it by itself; ours holds
openings of commitments, which prove themselves.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import note
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.cosigned import MAX_SIZE, unbase64
from folkmoot_core.ledger.policy import Policy
from folkmoot_core.ledger.tree import HASH_SIZE, verify_inclusion

HEADER: Final = "c2sp.org/tlog-proof@v1"
SUFFIX: Final = ".tlog-proof"
MAX_HASHES: Final = 63  # a log of 2^63 - 1 entries has no longer path
MAX_EXTRA: Final = 64 * 1024
MAX_PROOF: Final = note.MAX_NOTE + 2 * MAX_EXTRA
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True)
class TlogProof:
    """`hashes` lead from the leaf's sibling to the root's child; `checkpoint` is the signed note, byte for byte."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    def encode(self) -> bytes:
        """The text; raises `Invalid` for what `parse` would not read."""
        _check(self)
        extra = [f"extra {base64.b64encode(self.extra).decode()}"] if self.extra else []
        path = [base64.b64encode(one).decode() for one in self.hashes]
        return "\n".join([HEADER, *extra, f"index {self.index}", *path, "", ""]).encode() + self.checkpoint


def parse(data: bytes) -> TlogProof:
    """The proof in its text, **not verified**; raises `Invalid`."""
    if len(data) > MAX_PROOF:
        raise Invalid(f"proof has {len(data)} bytes; at most {MAX_PROOF}")
    top, blank, signed = data.partition(b"\n\n")
    try:
        lines = top.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise Invalid("proof: the lines before the checkpoint are not ASCII") from error
    if not blank or lines.pop(0) != HEADER:
        raise Invalid(f"proof: expected the line {HEADER!r}, an index, hashes, an empty line and a checkpoint")
    extra = _unbase64(lines.pop(0).removeprefix("extra "), "extra data") if lines and lines[0].startswith("extra ") else None
    if extra == b"":
        raise Invalid("proof: a line of extra data without data; it would have been left out")
    index = lines.pop(0).removeprefix("index ") if lines and lines[0].startswith("index ") else ""
    if not _INDEX.fullmatch(index):
        raise Invalid("proof: expected 'index' and a decimal number without leading zeros")
    if len(lines) > MAX_HASHES:
        raise Invalid(f"proof has {len(lines)} hashes; at most {MAX_HASHES}")
    found = TlogProof(int(index), tuple(_unbase64(line, "a hash") for line in lines), signed, extra or b"")
    _check(found)
    return found


def verify(proof: TlogProof, leaf_hash: bytes, policy: Policy) -> Checkpoint:
    """The checkpoint that the policy accepts and whose tree has this leaf at the proof's index; raises `Invalid`."""
    found = policy.check(proof.checkpoint)
    verify_inclusion(proof.index, found.size, leaf_hash, proof.hashes, found.root)
    return found


def _check(proof: TlogProof) -> None:
    if not 0 <= proof.index <= MAX_SIZE:
        raise Invalid(f"proof: index {proof.index} is not from 0 to {MAX_SIZE}")
    if len(proof.hashes) > MAX_HASHES or any(len(one) != HASH_SIZE for one in proof.hashes):
        raise Invalid(f"proof: expected at most {MAX_HASHES} hashes of {HASH_SIZE} bytes")
    if len(proof.extra) > MAX_EXTRA:
        raise Invalid(f"proof has {len(proof.extra)} bytes of extra data; at most {MAX_EXTRA}")
    note.split(proof.checkpoint)


def _unbase64(text: str, what: str) -> bytes:
    try:
        return unbase64(text)
    except Invalid as error:
        raise Invalid(f"proof: {what} is {error.message}") from error
