"""C2SP signed-note: a text, a blank line, signature lines; Ed25519 keys (type 0x01) as `vkey` text.

Obligations of `open_note`, numbered here and at the steps: 1. bounded, valid UTF-8, no control characters but LF; 2. at least
one signature line, each well-formed; 3. a line of a known key (name and id) must verify, else the whole note is refused;
4. lines of unknown keys are ignored; 5. at least one known key signed. The caller still owes: what the text says.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from folkmoot_core.errors import Invalid

ALGORITHM_ED25519 = 0x01
KEY_BYTES = 32
ID_BYTES = 4
MAX_NOTE = 1_000_000  # bytes; golang.org/x/mod/sumdb/note has the same bound
MAX_SIGNATURES = 100  # likewise
DASH = "\u2014"


@dataclass(frozen=True)
class VerifierKey:
    """A named Ed25519 public key."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        """First four bytes of SHA-256(name || LF || type || key)."""
        return hashlib.sha256(self.name.encode() + b"\n" + self._typed()).digest()[:ID_BYTES]

    def vkey(self) -> str:
        """`<name>+<key id hex>+<base64 of type and key>`."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(self._typed()).decode()}"

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether this key signed the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def _typed(self) -> bytes:
        return bytes([ALGORITHM_ED25519]) + self.public


@dataclass(frozen=True)
class Signer:
    """A named Ed25519 private key. `seed` never leaves the process; repr hides it."""

    name: str
    key: Ed25519PrivateKey

    @staticmethod
    def from_seed(name: str, seed: bytes) -> Signer:
        """From the 32 bytes of RFC 8032 §5.1.5."""
        if len(seed) != KEY_BYTES:
            raise Invalid(f"an Ed25519 seed has {KEY_BYTES} bytes, not {len(seed)}")
        _check_name(name)
        return Signer(name, Ed25519PrivateKey.from_private_bytes(seed))

    def verifier(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, self.key.public_key().public_bytes_raw())

    def line(self, text: str) -> str:
        """The signature line over `text`."""
        signature = self.key.sign(text.encode())
        return f"{DASH} {self.name} {base64.b64encode(self.verifier().id + signature).decode()}\n"


@dataclass(frozen=True)
class Note:
    """An opened note: its text and who is known to have signed it."""

    text: str
    signers: tuple[VerifierKey, ...]


def parse_vkey(vkey: str) -> VerifierKey:
    """The key behind a vkey's text; raises `Invalid` for other types than Ed25519 and for an id that is not the key's own."""
    name, _, rest = vkey.strip().partition("+")
    key_id, _, encoded = rest.partition("+")
    _check_name(name)
    typed = _base64(encoded, "key")
    if len(typed) != 1 + KEY_BYTES or typed[0] != ALGORITHM_ED25519:
        raise Invalid(f"vkey of {name}: expected an Ed25519 key (type 01 and {KEY_BYTES} bytes)")
    key = VerifierKey(name, typed[1:])
    if key.id.hex() != key_id:
        raise Invalid(f"vkey of {name}: its key id is {key.id.hex()}, the text says {key_id[:16]!r}")
    return key


def sign(text: str, signers: Sequence[Signer]) -> bytes:
    """The signed note over `text`, which ends in a line feed."""
    if not text.endswith("\n"):
        raise Invalid("a note's text ends in a line feed")
    _check_text(text)
    return (text + "\n" + "".join(signer.line(text) for signer in signers)).encode()


def open_note(data: bytes, known: Sequence[VerifierKey]) -> Note:
    """Check obligations 1-5 and return the text with those who signed it; raises `Invalid`."""
    if len(data) > MAX_NOTE:  # 1
        raise Invalid(f"note has {len(data)} bytes; at most {MAX_NOTE}")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise Invalid("note is not UTF-8 text") from error
    _check_text(whole)
    cut = whole.rfind("\n\n")
    if cut < 0 or not whole.endswith("\n") or len(whole) == cut + 2:  # 2
        raise Invalid("note has no signatures: expected a text, a blank line and signature lines")
    text, lines = whole[: cut + 1], whole[cut + 2 : -1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise Invalid(f"note has {len(lines)} signatures; at most {MAX_SIGNATURES}")
    keys = {(key.name, key.id): key for key in known}
    found: dict[tuple[str, bytes], VerifierKey] = {}
    for line in lines:
        name, key_id, signature = _parse_line(line)
        key = keys.get((name, key_id))
        if key is None:  # 4
            continue
        if not key.verify(text.encode(), signature):  # 3
            raise Invalid(f"note's signature by {name} does not verify: the text was changed, or another key signed it")
        found[(name, key_id)] = key
    if not found:  # 5
        names = ", ".join(key.name for key in known) or "nobody"
        raise Invalid(f"note is signed by none of the known keys ({names})")
    return Note(text, tuple(found.values()))


def _parse_line(line: str) -> tuple[str, bytes, bytes]:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != DASH:
        raise Invalid(f"note has a malformed signature line; expected '{DASH} <name> <base64>'")
    _check_name(parts[1])
    payload = _base64(parts[2], "signature")
    if len(payload) <= ID_BYTES:
        raise Invalid(f"note's signature by {parts[1]} is too short")
    return parts[1], payload[:ID_BYTES], payload[ID_BYTES:]


def _check_name(name: str) -> None:
    if not name or len(name) > 255 or "+" in name or any(c.isspace() or c < " " for c in name):
        raise Invalid(f"key name {name[:60]!r}: expected text without spaces, control characters and '+'")


def _check_text(text: str) -> None:
    if any(c < " " and c != "\n" for c in text) or "\x7f" in text:
        raise Invalid("note contains control characters other than line feeds")


def _base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"note's {what} is not base64") from error
