"""The witness's directory: one process, one identity, and a memory that is never started over.

    lock            held with flock for life: a second process exits
    witness.db      what was cosigned (store.py)
    witness.name    `folkmoot-witness/<uuid>`, made at birth: the name of both keys
    witness.key     seeds of the Ed25519 and the ML-DSA-44 key, 64 bytes, mode 0600, made at birth

Keys without their memory would cosign any history, and memory without its keys could not be told from a new witness: where one
of the two is lost, the process does not start. The way out is a new directory, and its new keys in every policy.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from folkmoot_core.errors import FolkmootError
from folkmoot_core.ledger.cosignature import Ed25519Cosigner, MlDsaSigner
from folkmoot_core.ledger.note import SEED_BYTES
from folkmoot_runtime.durable import Os, RealOs, lock_directory, make_directory, refuse_shared_filesystem, replace_file
from folkmoot_runtime.witness.store import SqliteStore

KEY: Final = "witness.key"
NAME: Final = "witness.name"
DATABASE: Final = "witness.db"
REPAIR: Final = (
    "Never put an older copy back: a witness that forgot what it cosigned cosigns a fork. Move the directory away, start with an "
    "empty one, and give the new keys to whoever verifies"
)


class WitnessDamaged(FolkmootError):
    """The directory cannot be continued; the message says why and what to do."""

    reason = "WitnessDamaged"


@dataclass(frozen=True)
class Birth:
    """What a new witness is made from."""

    name: Callable[[], str]
    seed: Callable[[], bytes]


@dataclass(frozen=True)
class Identity:
    """The two cosigners under their one name."""

    ed25519: Ed25519Cosigner
    mldsa: MlDsaSigner

    def vkeys(self) -> list[str]:
        """For tenant documents and policies: types 0x04 and 0x06."""
        return [self.ed25519.verifier().vkey(), self.mldsa.verifier().vkey()]

    def lines(self, text: str, seconds: int) -> str:
        """Both cosignatures of a checkpoint's text."""
        return self.ed25519.line(text, seconds) + self.mldsa.line(text, seconds)


@dataclass
class Volume:
    """An opened directory."""

    identity: Identity
    store: SqliteStore
    lock: int = field(repr=False)

    async def close(self) -> None:
        """Close the database and let another process in."""
        await self.store.close()
        os.close(self.lock)


async def open_volume(directory: Path, birth: Birth, calls: Os | None = None) -> Volume:
    """Lock and check the directory, or make a new one; raises `Conflict` or `WitnessDamaged`."""
    calls = RealOs() if calls is None else calls
    make_directory(calls, directory)
    refuse_shared_filesystem(directory)
    lock = lock_directory(directory)
    store = SqliteStore(directory / DATABASE)
    try:
        memory = (directory / DATABASE).exists()
        if not memory and (directory / KEY).exists():
            raise WitnessDamaged(f"{directory}: {KEY} is there, but {DATABASE} is missing. {REPAIR}")
        # The memory is made first: if birth is cut short between the two, there are no keys yet that could have signed.
        known = await store.open()
        return Volume(_identity(directory, birth, calls, known), store, lock)
    except BaseException:
        await store.close()
        os.close(lock)
        raise


def _identity(directory: Path, birth: Birth, calls: Os, known: int) -> Identity:
    key, name = directory / KEY, directory / NAME
    if not key.exists():
        if known:
            raise WitnessDamaged(f"{directory}: {known} logs were witnessed, but {KEY} is missing. {REPAIR}")
        replace_file(calls, name, birth.name().encode())
        replace_file(calls, key, birth.seed() + birth.seed(), mode=0o600)
    seeds = key.read_bytes()
    if len(seeds) != 2 * SEED_BYTES or not name.exists():
        raise WitnessDamaged(f"{directory}: expected {2 * SEED_BYTES} bytes in {KEY}, and {NAME} beside it. {REPAIR}")
    if key.stat().st_mode & 0o007:  # the group may be the volume's own: the kubelet gives it what fsGroup says
        raise WitnessDamaged(f"{key} can be read by everybody; expected mode 0600. Treat the keys as known to others. {REPAIR}")
    named = name.read_text().strip()
    return Identity(Ed25519Cosigner.from_seed(named, seeds[:SEED_BYTES]), MlDsaSigner.from_seed(named, seeds[SEED_BYTES:]))
