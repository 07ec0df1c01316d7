"""Keys that encrypt keys: how the runtime keeps secrets of its own on a volume. The one place that knows where they come from.

`Wrapper` is the whole interface, so that a KMS or a PKCS#11 token can stand behind it: it wraps and unwraps a few bytes for a
named purpose. `FileWrapper` is the twin of those: AES-256-GCM under a key in a mounted file (a Secret of the tenant's namespace,
or a file on a laptop). `NoWrapper` is what is left where nobody configured one: secrets rest in files of mode 0600, and the
process says so when it starts. Used by the ledger for its signing keys; the conductor, whose keys must be destructible one by
one, has a keyring of its own over the same file (`conductor/keyring.py`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from folkmoot_core.errors import Invalid, Unavailable

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12  # SP 800-38D §8.2.2: random, and few enough wrappings under one key
VARIABLE: Final = "FOLKMOOT_KEK_FILE"


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
    """AES-256-GCM by a key in a file (`read_kek`)."""

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
        kek = read_kek(self._path)
        if kek is None:
            raise Unavailable(f"{self._path}: the key-encryption key is not there; mount or restore it", reason="KekMissing")
        fingerprint = hashlib.sha256(b"folkmoot/kek/v1\0" + kek).hexdigest()[:16]
        return AESGCM(kek), f"file:{fingerprint}"


def read_kek(path: Path) -> bytes | None:
    """The key-encryption key in a file: 32 bytes, or 64 hex digits as a Secret made by hand has them. None where there is no file."""
    try:
        with path.open("rb") as file:
            data = file.read(1024)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"{path}: the key-encryption key cannot be read: {error.strerror}", reason="KekMissing") from error
    if len(data) == KEY_BYTES:
        return data
    text = data.strip()
    if len(text) == 2 * KEY_BYTES and not set(text) - set(b"0123456789abcdefABCDEF"):
        return bytes.fromhex(text.decode())
    raise Unavailable(
        f"{path}: expected a key-encryption key of {KEY_BYTES} bytes, or as {2 * KEY_BYTES} hex digits; found {len(data)} bytes",
        reason="KekInvalid",
    )


def from_environment(env: Mapping[str, str]) -> Wrapper:
    """`FOLKMOOT_KEK_FILE` names the file; without it, nothing is wrapped."""
    path = env.get(VARIABLE, "")
    return FileWrapper(Path(path)) if path else NoWrapper()
