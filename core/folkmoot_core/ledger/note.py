"""C2SP signed-note: a text, a blank line, signature lines; public keys as `vkey` text.

Keys are of the types that a log and its witnesses use: Ed25519 over the text (0x01), and the timestamped cosignatures of
tlog-cosignature, Ed25519 (0x04) and ML-DSA-44 (0x06); those are made in `cosignature.py`. Used by whatever reads or signs a
checkpoint. It must not say what a text means.

Obligations of `open_note` (signed-note, Format and Signatures), numbered here and at the steps: 1. bounded, valid UTF-8, no
control characters but LF; 2. at least one signature line, each well-formed, in canonical base64; 3. a line of a known key (name
and id) must verify, else the whole note is refused; 4. lines of unknown keys are ignored; 5. at least one known key signed. The
caller still owes: what the text says, and whether those who signed are enough.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.cosigned import ed25519_message, mldsa_message, unbase64

ED25519: Final = 0x01
COSIGNATURE: Final = 0x04
MLDSA44: Final = 0x06
KEY_BYTES: Final = {ED25519: 32, COSIGNATURE: 32, MLDSA44: 1312}
SIGNATURE_BYTES: Final = {ED25519: 64, COSIGNATURE: 8 + 64, MLDSA44: 8 + 2420}  # what follows the key id: time, signature
TIME_BYTES: Final = 8
SEED_BYTES: Final = 32
ID_BYTES: Final = 4
MAX_NAME: Final = 255  # bytes: what an ML-DSA-44 cosignature can hold
MAX_NOTE: Final = 1_000_000  # bytes; golang.org/x/mod/sumdb/note has the same bound
MAX_SIGNATURES: Final = 100  # likewise
DASH: Final = "\u2014"


@dataclass(frozen=True)
class VerifierKey:
    """A named public key of one of the types above."""

    name: str
    public: bytes
    algorithm: int = ED25519

    @property
    def id(self) -> bytes:
        """First four bytes of SHA-256(name || LF || type || key)."""
        return hashlib.sha256(self.name.encode() + b"\n" + self._typed()).digest()[:ID_BYTES]

    def vkey(self) -> str:
        """`<name>+<key id hex>+<base64 of type and key>`."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(self._typed()).decode()}"

    def verify(self, text: str, payload: bytes) -> bool:
        """Whether this key signed the note's text; `payload` is what follows the key id in its line."""
        if len(payload) != SIGNATURE_BYTES[self.algorithm]:
            return False
        try:
            if self.algorithm == ED25519:
                Ed25519PublicKey.from_public_bytes(self.public).verify(payload, text.encode())
                return True
            seconds, signature = int.from_bytes(payload[:TIME_BYTES], "big"), payload[TIME_BYTES:]
            if self.algorithm == COSIGNATURE:
                Ed25519PublicKey.from_public_bytes(self.public).verify(signature, ed25519_message(text, seconds))
            else:  # its message names the signer and the log, so that neither can be exchanged
                MLDSA44PublicKey.from_public_bytes(self.public).verify(signature, mldsa_message(self.name, text, seconds))
        except (InvalidSignature, ValueError, Invalid):
            return False
        return True

    def _typed(self) -> bytes:
        return bytes([self.algorithm]) + self.public


class Signer(Protocol):
    """Somebody who adds a line to a note."""

    @property
    def name(self) -> str:
        """The name on the line."""

    def verifier(self) -> VerifierKey:
        """The public half."""

    def line(self, text: str) -> str:
        """The signature line over `text`, with its line feed."""


@dataclass(frozen=True)
class Ed25519Signer:
    """A named Ed25519 private key that signs the text itself (0x01). The key never leaves the process; repr hides it."""

    name: str
    key: Ed25519PrivateKey

    @staticmethod
    def from_seed(name: str, seed: bytes) -> Ed25519Signer:
        """From the 32 bytes of RFC 8032 §5.1.5."""
        return Ed25519Signer(name, ed25519_key(name, seed))

    def verifier(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, self.key.public_key().public_bytes_raw())

    def line(self, text: str) -> str:
        """The signature line over `text`."""
        return signature_line(self.verifier(), self.key.sign(text.encode()))


@dataclass(frozen=True)
class Note:
    """An opened note: its text and who is known to have signed it."""

    text: str
    signers: tuple[VerifierKey, ...]


class Line(NamedTuple):
    """A signature line, read and not verified."""

    name: str
    key_id: bytes
    payload: bytes

    def text(self) -> str:
        """The line as it stands in a note."""
        return f"{DASH} {self.name} {base64.b64encode(self.key_id + self.payload).decode()}\n"


def signature_line(key: VerifierKey, payload: bytes) -> str:
    """The line that carries this key's signature."""
    return Line(key.name, key.id, payload).text()


def ed25519_key(name: str, seed: bytes) -> Ed25519PrivateKey:
    """The private key of a signer with this name; raises `Invalid` for a name that no line can carry."""
    if len(seed) != SEED_BYTES:
        raise Invalid(f"an Ed25519 seed has {SEED_BYTES} bytes, not {len(seed)}")
    check_name(name)
    return Ed25519PrivateKey.from_private_bytes(seed)


def parse_vkey(vkey: str) -> VerifierKey:
    """The key behind a vkey's text; raises `Invalid` for a type that is not known and for an id that is not the key's own."""
    name, _, rest = vkey.strip().partition("+")
    key_id, _, encoded = rest.partition("+")
    check_name(name)
    typed = _base64(encoded, f"vkey of {name}: the key")
    if not typed or len(typed) - 1 != KEY_BYTES.get(typed[0]):
        raise Invalid(f"vkey of {name}: expected a key of type 01 or 04 (Ed25519, 32 bytes) or 06 (ML-DSA-44, 1312 bytes)")
    key = VerifierKey(name, typed[1:], typed[0])
    if key.id.hex() != key_id:
        raise Invalid(f"vkey of {name}: its key id is {key.id.hex()}, the text says {key_id[:16]!r}")
    return key


def sign(text: str, signers: Sequence[Signer]) -> bytes:
    """The signed note over `text`, which ends in a line feed."""
    if not text.endswith("\n"):
        raise Invalid("a note's text ends in a line feed")
    _check_text(text)
    return (text + "\n" + "".join(signer.line(text) for signer in signers)).encode()


def split(data: bytes) -> tuple[str, list[Line]]:
    """Text and signature lines of a note, well-formed and **not verified**; raises `Invalid`."""
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
    return whole[: cut + 1], parse_lines(whole[cut + 2 :])


def parse_lines(text: str) -> list[Line]:
    """Signature lines, each ended by a line feed, as a note ends with and a witness answers; raises `Invalid`."""
    if not text.endswith("\n"):
        raise Invalid("signature lines end in a line feed")
    lines = text[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise Invalid(f"note has {len(lines)} signatures; at most {MAX_SIGNATURES}")
    return [_parse_line(line) for line in lines]


def open_note(data: bytes, known: Sequence[VerifierKey]) -> Note:
    """Check obligations 1-5 and return the text with those who signed it; raises `Invalid`."""
    text, lines = split(data)  # 1, 2
    keys = {(key.name, key.id): key for key in known}
    found: dict[tuple[str, bytes], VerifierKey] = {}
    for line in lines:
        key = keys.get((line.name, line.key_id))
        if key is None:  # 4
            continue
        if not key.verify(text, line.payload):  # 3
            raise Invalid(f"note's signature by {line.name} does not verify: the text was changed, or another key signed it")
        found[(line.name, line.key_id)] = key
    if not found:  # 5
        names = ", ".join(key.name for key in known) or "nobody"
        raise Invalid(f"note is signed by none of the known keys ({names})")
    return Note(text, tuple(found.values()))


def check_name(name: str) -> None:
    """A key's name (signed-note, Format); raises `Invalid`."""
    plain = not any(c.isspace() or c < " " or "\ud800" <= c <= "\udfff" for c in name)
    if not name or "+" in name or not plain or len(name.encode()) > MAX_NAME:
        raise Invalid(
            f"key name {name[:60]!r}: expected text of at most {MAX_NAME} bytes without spaces, control characters and '+'"
        )


def _parse_line(line: str) -> Line:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != DASH:
        raise Invalid(f"note has a malformed signature line; expected '{DASH} <name> <base64>'")
    check_name(parts[1])
    data = _base64(parts[2], f"note's signature by {parts[1]}")
    if len(data) <= ID_BYTES:
        raise Invalid(f"note's signature by {parts[1]} is too short")
    return Line(parts[1], data[:ID_BYTES], data[ID_BYTES:])


def _check_text(text: str) -> None:
    if any((c < " " and c != "\n") or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in text):
        raise Invalid("note contains control characters other than line feeds, or what is no text in UTF-8")


def _base64(text: str, what: str) -> bytes:
    try:
        return unbase64(text)
    except Invalid as error:
        raise Invalid(f"{what} is {error.message}") from error
