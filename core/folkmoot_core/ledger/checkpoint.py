"""C2SP tlog-checkpoint: origin, size and root of a log, as the text of a signed note."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import note
from folkmoot_core.ledger.note import Signer, VerifierKey
from folkmoot_core.ledger.tree import HASH_SIZE

MAX_SIZE = 2**63 - 1
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """A claim about a log: at `size` entries its root was `root`. `extensions` are kept, never interpreted."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def body(self) -> str:
        """The signed text."""
        lines = [self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions]
        return "\n".join(lines) + "\n"

    def sign(self, signers: Sequence[Signer]) -> bytes:
        """The signed note."""
        return note.sign(self.body(), signers)


def parse(text: str) -> Checkpoint:
    """The checkpoint in a note's text; raises `Invalid` for every spelling but the canonical one."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] != "" or any(not line for line in lines[:-1]):
        raise Invalid("checkpoint: expected lines origin, size and root hash, each ended by a line feed")
    origin, size, root, *extensions = lines[:-1]
    if not _SIZE.fullmatch(size) or int(size) > MAX_SIZE:
        raise Invalid(f"checkpoint of {origin[:80]}: size {size[:30]!r} is not a decimal number without leading zeros")
    try:
        root_hash = base64.b64decode(root.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"checkpoint of {origin[:80]}: the root hash is not base64") from error
    found = Checkpoint(origin, int(size), root_hash, tuple(extensions))
    if len(root_hash) != HASH_SIZE or found.body() != text:
        raise Invalid(f"checkpoint of {origin[:80]}: the root hash is not {HASH_SIZE} bytes in canonical base64")
    return found


def open_checkpoint(data: bytes, key: VerifierKey, origin: str | None = None) -> Checkpoint:
    """The checkpoint in a signed note of this log's key; raises `Invalid`. The origin must be `origin`, or the key's name."""
    found = parse(note.open_note(data, [key]).text)
    expected = key.name if origin is None else origin
    if found.origin != expected:
        raise Invalid(f"checkpoint is of log {found.origin[:80]!r}; expected {expected!r}")
    return found
