"""A log's change of keys, as a note that both the old and the new Ed25519 key signed.

    folkmoot/rotation/v1
    <origin>
    <vkey of the new Ed25519 key>
    <vkey of the new ML-DSA-44 key>          and further ones, in the order of the log's signatures

The log records it (`log.key.rotated`) and a witness takes a new key for a known origin on the strength of it. Obligations of
`verify`, numbered at the steps: 1. the key in force until now signed it: who holds only a new key changes nothing; 2. the new
Ed25519 key signed it: nobody is given a key that its holder did not offer; 3. it is about this log, and every key bears the
log's name; 4. exactly one new Ed25519 key, and no key twice. ML-DSA-44 keys cannot sign a note that is no checkpoint: they are
vouched for by the Ed25519 ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import note
from folkmoot_core.ledger.note import ED25519, MLDSA44, Ed25519Signer, VerifierKey

HEADER: Final = "folkmoot/rotation/v1"
MAX_KEYS: Final = 4
MAX_ROTATION: Final = 16 * 1024


def make(old: Ed25519Signer, new: Ed25519Signer, keys: Sequence[VerifierKey]) -> bytes:
    """The note by which the log named `old.name` goes over to `keys`, all of its new public keys with `new`'s first."""
    text = "\n".join([HEADER, old.name, *(key.vkey() for key in keys)]) + "\n"
    signers = [old] if old.verifier() == new.verifier() else [old, new]
    made = note.sign(text, signers)
    verify(made, old.verifier(), keys)
    return made


def verify(data: bytes, old: VerifierKey, keys: Sequence[VerifierKey] | None = None) -> tuple[VerifierKey, ...]:
    """The new keys of the log that `old` signs for; raises `Invalid`. With `keys`, they must be exactly those."""
    if len(data) > MAX_ROTATION:
        raise Invalid(f"rotation note has {len(data)} bytes; at most {MAX_ROTATION}")
    text, _ = note.split(data)
    lines = text.split("\n")[:-1]
    if lines[0] != HEADER or len(lines) < 3:
        raise Invalid(f"rotation note: expected the lines {HEADER!r}, the log's origin and 1 to {MAX_KEYS} vkeys")
    origin, vkeys = lines[1], lines[2:]
    found = check_keys(origin, vkeys)  # 3, 4
    new = next(key for key in found if key.algorithm == ED25519)
    signers = note.open_note(data, [old, new]).signers
    if origin != old.name or old not in signers:  # 1, 3
        raise Invalid(f"rotation note of {origin[:80]!r} is not signed by the key in force of {old.name} ({old.id.hex()})")
    if new not in signers:  # 2
        raise Invalid(f"rotation note of {origin[:80]!r} is not signed by the new key ({new.id.hex()})")
    if keys is not None and found != tuple(keys):
        raise Invalid(f"rotation note of {origin[:80]!r} names other keys than those asked for")
    return found


def check_keys(origin: str, vkeys: Sequence[str]) -> tuple[VerifierKey, ...]:
    """The public keys of one log, read; raises `Invalid` unless they bear its name and one of them is Ed25519."""
    if not 1 <= len(vkeys) <= MAX_KEYS:
        raise Invalid(f"log {origin[:80]!r}: expected 1 to {MAX_KEYS} vkeys, found {len(vkeys)}")
    found = tuple(note.parse_vkey(vkey) for vkey in vkeys)
    for key in found:
        if key.name != origin or key.algorithm not in (ED25519, MLDSA44):
            raise Invalid(
                f"log {origin[:80]!r}: expected keys of types 01 and 06 under its name, found {key.name} ({key.algorithm:02x})"
            )
    if sum(key.algorithm == ED25519 for key in found) != 1 or len({key.public for key in found}) != len(found):
        raise Invalid(f"log {origin[:80]!r}: expected exactly one Ed25519 key, and no key twice")
    return found
