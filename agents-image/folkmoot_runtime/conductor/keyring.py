"""Who wraps data keys: a small interface that a KMS or a PKCS#11 token can stand behind, and its twin with a key in a file.

Called by the vault alone. The file twin wraps under a key made of two parts: the tenant's key-encryption key (KEK), and a share
of its own for each name, which lies in a file and is overwritten and removed by `destroy`. So a wrapped key that somebody copied
out of the database stays closed once its share is gone. Who holds the KEK, the shares and the database together reads
everything: keep the KEK off the volume (FOLKMOOT_KEK_FILE, a mounted Secret) and the shares out of backups.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from folkmoot_core import sealing
from folkmoot_core.canonical import sha256_hex
from folkmoot_core.errors import Invalid, Missing, Unavailable
from folkmoot_runtime.durable import sync_path
from folkmoot_runtime.keyring import read_kek

KEK_FILE: Final = "tenant.kek"
_SHARES: Final = "shares"
_ID_DOMAIN: Final = b"folkmoot/kek/id/v1"
_JOIN_DOMAIN: Final = b"folkmoot/kek/share/v1\0"


class Keyring(Protocol):
    """Wraps data keys under names (`<subject_ref>/<month>`). Synchronous: the vault calls it in a thread."""

    @property
    def id(self) -> str:
        """Tells this key-encryption key from another without saying anything about it; kept beside what it wrapped."""

    def wrap(self, name: str, key: bytes) -> bytes:
        """The data key in a form that only `unwrap` of the same name opens."""

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        """The data key. Raises `Missing` (KeyDestroyed) after `destroy`, `Invalid` for what was not wrapped here."""

    def destroy(self, name: str) -> None:
        """From its return on, nothing that was ever wrapped under this name can be unwrapped. Repeatable."""


class FileKeyring:
    """`Keyring` with a KEK of 32 bytes and a directory of shares. `random` gives n fresh random bytes."""

    def __init__(self, kek: bytes, directory: Path, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        if len(kek) != sealing.KEY:
            raise Invalid(f"the key-encryption key has {len(kek)} bytes; expected {sealing.KEY}")
        self._kek = kek
        self._shares = directory / _SHARES
        self._random = random

    @property
    def id(self) -> str:
        """See `Keyring.id`."""
        return hmac.new(self._kek, _ID_DOMAIN, hashlib.sha256).hexdigest()[:32]

    def wrap(self, name: str, key: bytes) -> bytes:
        """See `Keyring.wrap`. The share is durable before anything is wrapped with it."""
        path = self._path(name)
        if (share := _read(path)) is None:
            share = _create(path, self._random(sealing.KEY))
        if not any(share):
            raise Missing(f"data key {name} is being destroyed; nothing is sealed under it any more", reason="KeyDestroyed")
        return sealing.wrap(self._join(name, share), name, key, nonce=self._random(sealing.NONCE))

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        """See `Keyring.unwrap`."""
        share = _read(self._path(name))
        if share is None:
            raise Missing(f"data key {name} was destroyed; what was sealed under it is gone for good", reason="KeyDestroyed")
        return sealing.unwrap(self._join(name, share), name, wrapped)

    def destroy(self, name: str) -> None:
        """See `Keyring.destroy`. Overwritten first: on most disks that reaches the old block, and where it does not (flash, copy
        on write) the KEK's part still keeps the wrapped key closed to whoever has the disk alone."""
        path = self._path(name)
        try:
            with path.open("r+b") as file:
                file.write(bytes(sealing.KEY))
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError:
            return
        path.unlink(missing_ok=True)
        sync_path(path.parent)

    def _path(self, name: str) -> Path:
        return self._shares / sha256_hex(name.encode())

    def _join(self, name: str, share: bytes) -> bytes:
        return hmac.new(self._kek, _JOIN_DOMAIN + share + name.encode(), hashlib.sha256).digest()


def open_keyring(directory: Path, given: Path | None, known: str | None) -> FileKeyring:
    """The tenant's keyring. `given`: a file with the KEK that is mounted; None: the one in `directory`, made at the first start.
    `known`: id of the KEK that wrapped what is stored, None while nothing is. Raises `Unavailable` for a KEK that is missing or
    another one: a new one would make everything sealed unreadable without a word."""
    path = given or directory / KEK_FILE
    kek = read_kek(path)
    if kek is None:
        if given is not None or known is not None:
            raise Unavailable(f"{path}: the key-encryption key is not there; mount or restore it", reason="KekMissing")
        kek = _create(path, secrets.token_bytes(sealing.KEY))
    elif given is None and path.stat().st_mode & 0o007:  # the kubelet gives what lies on a volume to the pod's group as well
        raise Unavailable(
            f"{path}: everybody may read the key-encryption key; expected mode 0600: chmod 600 it", reason="KekExposed"
        )
    ring = FileKeyring(kek, directory)
    if known not in (None, ring.id):
        raise Unavailable(
            f"{path}: this is another key-encryption key than the one that sealed this volume's content; restore that one",
            reason="KekMismatch",
        )
    return ring


def _read(path: Path) -> bytes | None:
    """A share; one of zeros was caught by a crash while it was being destroyed, and counts as gone."""
    try:
        share = path.read_bytes()
    except FileNotFoundError:
        return None
    return share if any(share) else None


def _create(path: Path, value: bytes) -> bytes:
    """Durable and readable by this user alone; if another was quicker, its value."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, value)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(temporary, path)  # unlike a rename, never over one that is there
    except FileExistsError:
        value = path.read_bytes()
    finally:
        temporary.unlink()
    for directory in (path.parent, path.parent.parent):
        sync_path(directory)
    return value
