"""How a log's keys change: an entry `log.key.rotated` whose statement the old and the new key both signed.

Entry 0 names the first keys (`vkey`, and all of them as `vkeys`). A rotation's data has `vkeys`, the keys that sign from then on,
and `note`, a signed note (C2SP signed-note) over `statement`, with a line by the old Ed25519 key, which alone makes it count, and one by
the new, which shows that its holder agreed. The ledger writes it; `audit` follows it from a key that a reader kept to the one that signs
today.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import note
from folkmoot_core.ledger.note import ED25519, MLDSA44, Signer, VerifierKey

HEADER = "folkmoot/log-key-rotation/v1"
MAX_KEYS = 4


def statement(origin: str, old: Sequence[str], new: Sequence[str]) -> str:
    """What both keys sign: which log, which keys end, which begin."""
    lines = [HEADER, origin, *(f"from {vkey}" for vkey in old), *(f"to {vkey}" for vkey in new)]
    return "\n".join(lines) + "\n"


def data(origin: str, old: Sequence[Signer], new: Sequence[Signer]) -> dict[str, Any]:
    """The `data` of `log.key.rotated`. Of both sets the Ed25519 signers sign: an ML-DSA-44 line is over checkpoints alone."""
    old_keys, new_keys = ([signer.verifier() for signer in signers] for signers in (old, new))
    text = statement(origin, [key.vkey() for key in old_keys], [key.vkey() for key in new_keys])
    plain = [signer for signer in (*old, *new) if signer.verifier().algorithm == ED25519]
    return {"vkeys": [key.vkey() for key in new_keys], "note": note.sign(text, plain).decode()}


def named(data: Mapping[str, Any]) -> list[VerifierKey]:
    """The keys that an opening or a rotation names; raises `Invalid`."""
    listed = data.get("vkeys") or [data.get("vkey")]
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_KEYS or not all(isinstance(vkey, str) for vkey in listed):
        raise Invalid(f"expected vkeys, a list of 1 to {MAX_KEYS} keys as text")
    keys = [note.parse_vkey(vkey) for vkey in listed]
    if [key.algorithm for key in keys].count(ED25519) != 1 or any(key.algorithm not in (ED25519, MLDSA44) for key in keys):
        raise Invalid("expected one Ed25519 key (type 01), and at most ML-DSA-44 keys (type 06) beside it")
    return keys


def check(data: Mapping[str, Any], origin: str, current: Sequence[VerifierKey]) -> list[VerifierKey]:
    """The keys that sign from here on; raises `Invalid` unless those that signed until now handed over to them.

    1. the new keys are well-formed and bear the log's name; 2. the statement names this log, exactly the current keys and
    exactly the new ones; 3. the current Ed25519 key signed it; 4. the new one did.
    """
    new = named(data)
    if any(key.name != origin for key in new):  # 1
        raise Invalid("the new keys bear another name than the log's")
    old_plain, new_plain = (next(key for key in keys if key.algorithm == ED25519) for keys in (current, new))
    signed = data.get("note")
    opened = note.open_note(signed.encode() if isinstance(signed, str) else b"", [old_plain, new_plain])
    if opened.text != statement(origin, [key.vkey() for key in current], [key.vkey() for key in new]):  # 2
        raise Invalid("its statement is not about this log, its keys until then and these new ones")
    for key, what in ((old_plain, "until then"), (new_plain, "from then on")):  # 3, 4
        if key not in opened.signers:
            raise Invalid(f"its statement is not signed by the log's key {what}")
    return new
