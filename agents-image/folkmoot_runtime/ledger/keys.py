"""The log's own signing keys: made at birth inside the pod, kept wrapped, rotated with a statement that both keys sign.

    log.key        {"v", "kek", "since", "keys"}: wrapped seeds of Ed25519 and ML-DSA-44; `since`: index of the entry that names them
    log.key.next   the keys that a rotation introduces, until the entry about it is durable
    origin         `folkmoot/<uuid>`, made at birth

Who holds `log.key` and the key that wraps it can sign checkpoints in this log's name. Used by `volume` at start and by the
publisher; never logs, never shows a seed. Crash states of a rotation: `next` without an entry → forgotten; with it → taken over.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from folkmoot_core.canonical import canonical_json
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.cosignature import MlDsaSigner
from folkmoot_core.ledger.note import SEED_BYTES, Ed25519Signer, Signer
from folkmoot_runtime.durable import Os, remove_file, replace_file
from folkmoot_runtime.keyring import Wrapper
from folkmoot_runtime.ledger.records import REPAIR, LogDamaged

KEY: Final = "log.key"
NEXT: Final = "log.key.next"
ORIGIN: Final = "origin"
_PURPOSE: Final = b"folkmoot/log-key/v1\0"
_SECRETS: Final = 2 * SEED_BYTES  # Ed25519, then ML-DSA-44


@dataclass(frozen=True)
class LogKeys:
    """Both keys of a log under its origin's name."""

    origin: str
    ed25519: Ed25519Signer
    mldsa: MlDsaSigner
    since: int
    """Index of the entry that introduced them: 0, or a rotation's."""
    secret: bytes = field(repr=False)

    @staticmethod
    def of(origin: str, secret: bytes, since: int = 0) -> LogKeys:
        """From both seeds."""
        ed25519, mldsa = secret[:SEED_BYTES], secret[SEED_BYTES:]
        return LogKeys(origin, Ed25519Signer.from_seed(origin, ed25519), MlDsaSigner.from_seed(origin, mldsa), since, secret)

    def vkey(self) -> str:
        """The Ed25519 key, by which the log is known."""
        return self.ed25519.verifier().vkey()

    def vkeys(self) -> tuple[str, str]:
        """Both, Ed25519 first."""
        return self.vkey(), self.mldsa.verifier().vkey()

    def rotation_id(self) -> str:
        """Id of the entry that introduces these keys by a rotation: another attempt at the same one adds nothing."""
        return f"log.key.rotated/{self.ed25519.verifier().id.hex()}"

    def signers(self, seconds: int) -> list[Signer]:
        """Who signs a checkpoint at this time: Ed25519 for every client there is, ML-DSA-44 for those to come."""
        return [self.ed25519, self.mldsa.at(seconds)]


@dataclass
class KeyFiles:
    """The files of one log's directory."""

    directory: Path
    calls: Os
    wrapper: Wrapper

    def open(self, birth: Callable[[], tuple[str, bytes]], *, new: bool) -> LogKeys:
        """Keys and origin; made where the log is new. A log that has entries never gets others by itself."""
        secret, since, origin = *self._read(KEY), _bytes(self.directory / ORIGIN)
        if not new and (secret is None or origin is None):
            missing = KEY if secret is None else ORIGIN
            raise LogDamaged(
                f"{self.directory}: the log has entries, but {missing} is missing; restore it from the same volume. {REPAIR}"
            )
        if secret is None or origin is None:
            made_origin, made_secret = birth()
            secret, origin = secret or made_secret, origin or made_origin.encode()
            self._write(KEY, secret, 0)
            replace_file(self.calls, self.directory / ORIGIN, origin)
        return LogKeys.of(origin.decode().strip(), secret, since)

    def prepare(self, secret: bytes) -> None:
        """Keep what a rotation will introduce, before anybody is told of it."""
        self._write(NEXT, secret, 0)

    def prepared(self, origin: str) -> LogKeys | None:
        """What a rotation was about to introduce."""
        secret, _ = self._read(NEXT)
        return None if secret is None else LogKeys.of(origin, secret)

    def take_over(self, keys: LogKeys, since: int) -> LogKeys:
        """The rotation's entry is durable at `since`: from here on the new keys sign."""
        self._write(KEY, keys.secret, since)
        self.forget()
        return LogKeys.of(keys.origin, keys.secret, since)

    def forget(self) -> None:
        """No rotation is under way."""
        remove_file(self.calls, self.directory / NEXT)

    def _write(self, name: str, secret: bytes, since: int) -> None:
        wrapped = self.wrapper.wrap(secret, _PURPOSE)
        content = {"v": 1, "kek": self.wrapper.id, "since": since, "keys": base64.b64encode(wrapped).decode()}
        replace_file(self.calls, self.directory / name, canonical_json(content), mode=0o600)

    def _read(self, name: str) -> tuple[bytes | None, int]:
        raw = _bytes(self.directory / name)
        if raw is None:
            return None, 0
        path = self.directory / name
        try:
            value: dict[str, Any] = json.loads(raw)
            kek, since, wrapped = str(value["kek"]), int(value["since"]), base64.b64decode(value["keys"], validate=True)
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise LogDamaged(f"{path} is not a key file of a log; restore it from the same volume. {REPAIR}") from error
        if kek != self.wrapper.id:
            raise LogDamaged(
                f"{path} is wrapped by {kek or 'no key'}, and {self.wrapper.id or 'none'} is given: mount the key that wrapped it"
            )
        try:
            secret = self.wrapper.unwrap(wrapped, _PURPOSE)
        except Invalid as error:
            raise LogDamaged(f"{path}: {error.message}") from error
        if len(secret) != _SECRETS:
            raise LogDamaged(f"{path} has {len(secret)} bytes of secret; expected {_SECRETS}: an Ed25519 and an ML-DSA-44 seed")
        return secret, since


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
