"""Keys that encrypt keys: how the runtime keeps secrets of its own on a volume. The one place that knows where they come from.

`Wrapper` is the whole interface, so that a KMS or a PKCS#11 token can stand behind it: it wraps and unwraps a few bytes for a
named purpose. `FileWrapper` is the twin of those: AES-256-GCM under a key in a mounted file (a Secret of the tenant's namespace,
or a file on a laptop). `NoWrapper` is what is left where nobody configured one: secrets rest in files of mode 0600, and the
reports say so. Used by the ledger for its signing keys and by the conductor for the keys of sealed content.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from folkmoot_core.errors import Invalid, Missing

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12  # SP 800-38D §8.2.2: random, and few enough wrappings under one key
VARIABLE: Final = "FOLKMOOT_KEK"


class Wrapper(Protocol):
    """Wraps secrets. `purpose` is authenticated with them: what was wrapped for one is refused for another."""

    @property
    def id(self) -> str:
        """Which key wraps, as text that is no secret; '' where none does."""

    def wrap(self, secret: bytes, purpose: bytes) -> bytes:
        """The wrapped secret."""

    def unwrap(self, wrapped: bytes, purpose: bytes) -> bytes:
        """The secret; raises `Invalid` when it was wrapped by another key, for another purpose, or was changed."""


class NoWrapper:
    """Wraps nothing."""

    id: Final = ""

    def wrap(self, secret: bytes, purpose: bytes) -> bytes:
        """The secret itself."""
        return secret

    def unwrap(self, wrapped: bytes, purpose: bytes) -> bytes:
        """The secret itself."""
        return wrapped


class FileWrapper:
    """AES-256-GCM by a key in a file: 32 raw bytes, or the same in base64."""

    def __init__(self, path: Path, random: Callable[[int], bytes] = os.urandom) -> None:
        self._path = path
        self._random = random
        self._cipher, self.id = self._load()

    def wrap(self, secret: bytes, purpose: bytes) -> bytes:
        """See `Wrapper.wrap`."""
        nonce = self._random(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, purpose)

    def unwrap(self, wrapped: bytes, purpose: bytes) -> bytes:
        """See `Wrapper.unwrap`."""
        try:
            return self._cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], purpose)
        except (InvalidTag, ValueError) as error:
            raise Invalid(
                f"a secret on the volume was not wrapped by the key in {self._path} ({self.id}), or was changed"
            ) from error

    def _load(self) -> tuple[AESGCM, str]:
        try:
            raw = self._path.read_bytes()
        except OSError as error:
            raise Missing(
                f"key-encryption key {self._path} cannot be read ({error.strerror}); mount the Secret that holds it"
            ) from None
        if len(raw) != KEY_BYTES:
            try:
                raw = base64.b64decode(raw.strip(), validate=True)
            except (binascii.Error, ValueError):
                raw = b""
        if len(raw) != KEY_BYTES:
            raise Invalid(f"key-encryption key {self._path}: expected {KEY_BYTES} random bytes, raw or in base64")
        fingerprint = hashlib.sha256(b"folkmoot/kek/v1\0" + raw).hexdigest()[:16]
        return AESGCM(raw), f"file:{fingerprint}"


def from_environment(env: Mapping[str, str]) -> Wrapper:
    """`FOLKMOOT_KEK` names the file; without it, nothing is wrapped."""
    path = env.get(VARIABLE, "")
    return FileWrapper(Path(path)) if path else NoWrapper()
