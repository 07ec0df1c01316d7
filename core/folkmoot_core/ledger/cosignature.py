"""C2SP tlog-cosignature: "at this time, this was the largest consistent tree of the log that I had seen".

Witnesses sign with both classes; a log adds a line of `MlDsaSigner` under its own name after its Ed25519 signature. Checking is
`note.VerifierKey.verify`, as for every line. The time is an argument: nothing here reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.cosigned import MAX_TIME, ed25519_message, head, mldsa_message
from folkmoot_core.ledger.note import (
    COSIGNATURE,
    MLDSA44,
    SEED_BYTES,
    SIGNATURE_BYTES,
    TIME_BYTES,
    VerifierKey,
    check_name,
    ed25519_key,
    signature_line,
)


@dataclass(frozen=True)
class Ed25519Cosigner:
    """A witness's Ed25519 key (type 0x04). One key serves one name only: its signature does not say the name."""

    name: str
    key: Ed25519PrivateKey

    @staticmethod
    def from_seed(name: str, seed: bytes) -> Ed25519Cosigner:
        """From the 32 bytes of RFC 8032 §5.1.5."""
        return Ed25519Cosigner(name, ed25519_key(name, seed))

    def verifier(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, self.key.public_key().public_bytes_raw(), COSIGNATURE)

    def line(self, text: str, seconds: int) -> str:
        """The line over a checkpoint's text at this time; raises `Invalid` for a text that is no checkpoint."""
        head(text)
        signature = self.key.sign(ed25519_message(text, seconds))
        return signature_line(self.verifier(), seconds.to_bytes(TIME_BYTES, "big") + signature)

    def at(self, seconds: int) -> TimedSigner:
        """As a signer of a note, at this time."""
        return TimedSigner(self, seconds)


@dataclass(frozen=True)
class MlDsaSigner:
    """A witness's or a log's ML-DSA-44 key (type 0x06). Lines after a checkpoint's root are not covered by it."""

    name: str
    key: MLDSA44PrivateKey

    @staticmethod
    def from_seed(name: str, seed: bytes) -> MlDsaSigner:
        """From the 32 bytes of FIPS 204 §5.1 (xi)."""
        if len(seed) != SEED_BYTES:
            raise Invalid(f"an ML-DSA-44 seed has {SEED_BYTES} bytes, not {len(seed)}")
        check_name(name)
        return MlDsaSigner(name, MLDSA44PrivateKey.from_seed_bytes(seed))

    def verifier(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, self.key.public_key().public_bytes_raw(), MLDSA44)

    def line(self, text: str, seconds: int) -> str:
        """The line over a checkpoint's text at this time; raises `Invalid` for a text that is no checkpoint."""
        signature = self.key.sign(mldsa_message(self.name, text, seconds))
        return signature_line(self.verifier(), seconds.to_bytes(TIME_BYTES, "big") + signature)

    def at(self, seconds: int) -> TimedSigner:
        """As a signer of a note, at this time."""
        return TimedSigner(self, seconds)


@dataclass(frozen=True)
class TimedSigner:
    """A cosigner with the time that it signs at: what `Checkpoint.sign` takes."""

    cosigner: Ed25519Cosigner | MlDsaSigner
    seconds: int

    @property
    def name(self) -> str:
        """The cosigner's."""
        return self.cosigner.name

    def verifier(self) -> VerifierKey:
        """The cosigner's public half."""
        return self.cosigner.verifier()

    def line(self, text: str) -> str:
        """The line over a checkpoint's text."""
        return self.cosigner.line(text, self.seconds)


def timestamp(payload: bytes) -> int:
    """The time in what follows a cosignature's key id (types 0x04 and 0x06), in seconds; raises `Invalid`."""
    seconds = int.from_bytes(payload[:TIME_BYTES], "big")
    if len(payload) not in (SIGNATURE_BYTES[COSIGNATURE], SIGNATURE_BYTES[MLDSA44]) or seconds > MAX_TIME:
        raise Invalid("cosignature: expected eight bytes of time and an Ed25519 or ML-DSA-44 signature")
    return seconds
