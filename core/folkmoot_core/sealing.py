"""Content at rest: sealed under a data key that can be destroyed, with the secret its commitments' salts are made from inside.

Pure: keys, nonces and secrets come in as arguments. Called by the conductor, which keeps the sealed bytes as files. ledger.md §4.4.

    sealed = "FMS1" ‖ nonce[12] ‖ AES-256-GCM(data key, nonce, secret[32] ‖ content, AAD)
    AAD    = "folkmoot/sealed/v1" 0x00 ‖ context 0x00 ‖ name of the content (its digest)
    salt   = HMAC-SHA-256(secret, "folkmoot/salt/v1" 0x00 ‖ id of the entry that commits)

Obligations, with their numbers at the steps: 1. a data key has 256 bits, a nonce 96, and no pair of them is used twice (random
nonces: NIST SP 800-38D §8.2.2 allows 2^32 under one key; a data key serves one subject for one month); 2. what was sealed under
one name, or for another log, does not open under this one (AAD); 3. nothing of the plaintext is given out before the tag was
verified; 4. whatever is wrong with sealed bytes is one of our errors, never another exception; 5. a salt cannot be had without
opening the seal, so that whatever destroys the content (file or key) destroys every salt with it. The caller still owes: random
input, and that a destroyed key is really gone.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from folkmoot_core.errors import Invalid

KEY: Final = 32  # bytes of a data key, and of a key-encryption key
NONCE: Final = 12
SECRET: Final = 32
TAG: Final = 16
_CONTENT: Final = b"FMS1"
_KEY: Final = b"FMK1"
OVERHEAD: Final = len(_CONTENT) + NONCE + SECRET + TAG  # bytes that sealing adds
_SEAL_DOMAIN: Final = b"folkmoot/sealed/v1\0"
_WRAP_DOMAIN: Final = b"folkmoot/wrapped/v1\0"
_SALT_DOMAIN: Final = b"folkmoot/salt/v1\0"


class Opened(NamedTuple):
    """What was sealed."""

    secret: bytes
    content: bytes


class DataKey:
    """One data key, ready for use (making an AES key schedule per blob costs more than sealing a small one). `context` names
    the log, or the tenant, that everything sealed under it belongs to."""

    def __init__(self, key: bytes, context: str) -> None:
        self._cipher = AESGCM(_sized(key, KEY, "data key"))  # 1
        self._context = _plain(context, "context")

    def seal(self, name: str, content: bytes, *, nonce: bytes, secret: bytes) -> bytes:
        """Sealed bytes. `nonce` and `secret` are fresh random ones."""
        _sized(nonce, NONCE, "nonce")  # 1
        _sized(secret, SECRET, "secret")
        return b"".join((_CONTENT, nonce, self._cipher.encrypt(nonce, secret + content, self._aad(name))))

    def open(self, name: str, sealed: bytes) -> Opened:
        """The content; raises `Invalid` (SealBroken) for anything but exactly what was sealed under this key and name."""
        plain = _opened(self._cipher, _CONTENT, sealed, self._aad(name), f"sealed content {name}")
        if len(plain) < SECRET:
            raise _broken(f"sealed content {name}")
        return Opened(plain[:SECRET], plain[SECRET:])

    def _aad(self, name: str) -> bytes:
        return b"".join((_SEAL_DOMAIN, self._context, b"\0", _plain(name, "name")))  # 2


def salt(secret: bytes, entry_id: str) -> bytes:
    """The 32 bytes with which this entry commits to the content that the secret lies beside. Each entry has its own, so that two
    commitments to the same content do not look the same; making it again after a crash gives the same."""
    return hmac.new(_sized(secret, SECRET, "secret"), _SALT_DOMAIN + entry_id.encode(), hashlib.sha256).digest()  # 5


def wrap(wrapping: bytes, name: str, key: bytes, *, nonce: bytes) -> bytes:
    """A data key under a key-encryption key; `name` is bound to it."""
    _sized(key, KEY, "data key")
    aad = _WRAP_DOMAIN + _plain(name, "name")
    return b"".join((_KEY, _sized(nonce, NONCE, "nonce"), AESGCM(_sized(wrapping, KEY, "wrapping key")).encrypt(nonce, key, aad)))


def unwrap(wrapping: bytes, name: str, wrapped: bytes) -> bytes:
    """The data key; raises `Invalid` (SealBroken) unless it was wrapped by this key under this name."""
    cipher = AESGCM(_sized(wrapping, KEY, "wrapping key"))
    key = _opened(cipher, _KEY, wrapped, _WRAP_DOMAIN + _plain(name, "name"), f"wrapped key {name}")
    return _sized(key, KEY, "data key")


def month_of(now: float) -> str:
    """`YYYY-MM` in UTC of epoch seconds: which data key of a subject is used."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m")


def _opened(cipher: AESGCM, magic: bytes, sealed: bytes, aad: bytes, what: str) -> bytes:
    start = len(magic) + NONCE
    if len(sealed) < start + TAG or not sealed.startswith(magic):
        raise _broken(what)
    try:
        return cipher.decrypt(sealed[len(magic) : start], sealed[start:], aad)  # 3
    except InvalidTag:
        raise _broken(what) from None  # 4


def _broken(what: str) -> Invalid:
    return Invalid(
        f"{what[:120]} does not open: it was changed, cut short, or belongs to another key, name or log; restore it from a backup",
        reason="SealBroken",
    )


def _sized(value: bytes, size: int, what: str) -> bytes:
    if len(value) != size:
        raise Invalid(f"a {what} has {size} bytes, not {len(value)}")
    return value


def _plain(text: str, what: str) -> bytes:
    if "\0" in text or not text.isascii():
        raise Invalid(f"the {what} of sealed content is ASCII text without NUL")
    return text.encode()
