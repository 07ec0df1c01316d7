"""Ed25519 signatures on bus messages: made by participants, checked by the router against keys registered at its door.

The private key lives in one process's memory and nowhere else; making it (randomness) is the caller's affair:
`SigningKey(Ed25519PrivateKey.generate())`. What a thief of the key could do: speak as that participant until the key's
registration expires (an hour), through its outbox alone.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from folkmoot_core.canonical import sha256_hex
from folkmoot_core.errors import Invalid
from folkmoot_core.messages import Envelope


class SigningKey:
    """A participant's key pair. It has no way out: neither repr nor pickling shows the private half."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public: bytes = private.public_key().public_bytes_raw()

    def sign(self, envelope: Envelope) -> Envelope:
        """The envelope with its signature over `signed_bytes()`."""
        signature = base64.b64encode(self._private.sign(envelope.signed_bytes())).decode()
        return envelope.model_copy(update={"signature": signature})

    def public_text(self) -> str:
        """The raw public key in base64: what the router's door is given."""
        return base64.b64encode(self.public).decode()


def public_key(text: str) -> bytes:
    """The 32 raw bytes behind a base64 public key; raises `Invalid`."""
    try:
        raw = base64.b64decode(text, validate=True)
        Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError) as error:
        raise Invalid("public key: expected 32 bytes of Ed25519 in base64") from error
    return raw


def verify(envelope: Envelope, keys: Iterable[bytes]) -> bool:
    """Whether one of the sender's registered public keys made this signature."""
    try:
        signature = base64.b64decode(envelope.signature, validate=True)
        message = envelope.signed_bytes()
    except (binascii.Error, Invalid, ValueError):
        return False
    return any(_made_by(key, signature, message) for key in keys)


def _made_by(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(key: bytes) -> str:
    """SHA-256 hex of the raw public key: how `identity.bound` names it."""
    return sha256_hex(key)
