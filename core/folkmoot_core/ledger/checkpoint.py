"""C2SP tlog-checkpoint: origin, size and root of a log, as the text of a signed note.

A log of ours signs with Ed25519 (0x01), which every client of the public network reads, and then with ML-DSA-44 (0x06), which
outlives quantum computers. Who may not do without one of them passes both keys to `open_checkpoint`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import note
from folkmoot_core.ledger.cosigned import MAX_SIZE as MAX_SIZE
from folkmoot_core.ledger.cosigned import head
from folkmoot_core.ledger.note import Signer, VerifierKey


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
    origin, size, root = head(text)
    return Checkpoint(origin, size, root, tuple(text.split("\n")[3:-1]))


def open_checkpoint(data: bytes, keys: VerifierKey | Sequence[VerifierKey], origin: str | None = None) -> Checkpoint:
    """The checkpoint in a note that **all** of these keys of one log signed; raises `Invalid`.

    The origin must be `origin`, or the first key's name.
    """
    wanted = [keys] if isinstance(keys, VerifierKey) else list(keys)
    opened = note.open_note(data, wanted)
    if missing := [key for key in wanted if key not in opened.signers]:
        raise Invalid(f"checkpoint lacks the signature of {missing[0].name} with key id {missing[0].id.hex()}")
    found = parse(opened.text)
    expected = wanted[0].name if origin is None else origin
    if found.origin != expected:
        raise Invalid(f"checkpoint is of log {found.origin[:80]!r}; expected {expected!r}")
    return found
