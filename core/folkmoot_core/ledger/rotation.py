"""The statement by which a log exchanges its keys: a note that the old and the new key sign.

It stands in the `log.key.rotated` entry, and is shown to witnesses, which accept the new key for a known origin by it alone.

    folkmoot/rotation/v1
    <origin>
    <new Ed25519 vkey>
    <new ML-DSA-44 vkey>

Obligations of `verify`, numbered at the steps: 1. the old key signed it; 2. it is for this origin; 3. both new keys are of their type
and carry the origin as name; 4. the new key signed it too, so that nobody introduces a key that is not in his hands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import note
from folkmoot_core.ledger.note import ED25519, MLDSA44, Ed25519Signer, VerifierKey

HEADER: Final = "folkmoot/rotation/v1"


def statement(old: Ed25519Signer, new: Ed25519Signer, mldsa: VerifierKey) -> bytes:
    """The signed note."""
    text = "\n".join([HEADER, old.name, new.verifier().vkey(), mldsa.vkey()]) + "\n"
    return note.sign(text, [old, new])


def verify(data: bytes, old: VerifierKey) -> tuple[VerifierKey, VerifierKey]:
    """The new keys, Ed25519 and ML-DSA-44; raises `Invalid`."""
    text = note.open_note(data, [old]).text  # 1
    match text.split("\n"):
        case [header, origin, vkey, mldsa, ""] if header == HEADER and origin == old.name:  # 2
            fresh = _keys([vkey, mldsa], origin)  # 3
        case _:
            raise Invalid(f"not a statement that the log {old.name[:80]} exchanges its keys")
    if fresh[0] == old or fresh[0] not in note.open_note(data, [old, fresh[0]]).signers:  # 4
        raise Invalid(f"the new key of log {old.name[:80]} did not sign the statement that introduces it")
    return fresh


def _keys(vkeys: Sequence[str], origin: str) -> tuple[VerifierKey, VerifierKey]:
    ed25519, mldsa = (note.parse_vkey(vkey) for vkey in vkeys)
    if (ed25519.algorithm, mldsa.algorithm) != (ED25519, MLDSA44) or {ed25519.name, mldsa.name} != {origin}:
        raise Invalid(f"a rotation of log {origin[:80]} names an Ed25519 and an ML-DSA-44 key of that name")
    return ed25519, mldsa
