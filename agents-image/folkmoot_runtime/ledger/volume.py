"""Opening the log's directory: one writer, one identity, the whole log read back and held against what was published.

    lock          held with flock for life: a second writer exits
    log.key       Ed25519 seed, mode 0600; who holds it can sign checkpoints in this log's name
    origin        `folkmoot/<uuid>`, made at birth
    wal-<n>       the log (wal.py)
    state         what of it need not be hashed entry by entry again (state.py); may be deleted
    row-<l>, marks, offsets   derived from it (columns.py); may be deleted
    checkpoint    the last published one; recovery never falls behind it

Runs in a thread before the process serves anything; raises `LogDamaged` or `Conflict` with a sentence for the operator.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from folkmoot_core.errors import Conflict, Invalid
from folkmoot_core.ledger import checkpoint
from folkmoot_core.ledger.note import Signer
from folkmoot_core.ledger.sequence import Sequence
from folkmoot_core.ledger.tiles import Rows
from folkmoot_runtime.ledger.columns import Columns
from folkmoot_runtime.ledger.durable import Os, RealOs, make_directory, refuse_shared_filesystem, replace_file
from folkmoot_runtime.ledger.records import REPAIR, LogDamaged
from folkmoot_runtime.ledger.wal import FIRST_SEGMENT, Wal

SEED = 32


@dataclass(frozen=True)
class Birth:
    """What a new log is made from; asked for only where there is none yet."""

    origin: Callable[[], str]
    seed: Callable[[], bytes]


@dataclass
class Volume:
    """An opened, recovered directory."""

    directory: Path
    calls: Os
    wal: Wal
    sequence: Sequence
    signer: Signer
    published: bytes | None
    published_size: int
    closed: bool
    lock: int = field(repr=False)

    def close(self) -> None:
        """Close the files and let another writer in."""
        self.wal.close()
        os.close(self.lock)


def open_volume(directory: Path, birth: Birth, calls: Os | None = None, first_segment: int = FIRST_SEGMENT) -> Volume:
    """Lock, recover and check a log directory, or make a new one. Raises `Conflict` when another process writes it."""
    calls = RealOs() if calls is None else calls
    make_directory(calls, directory)
    refuse_shared_filesystem(directory)
    lock = _lock(directory)
    wal = Wal(calls, directory, Columns(calls, directory), first_segment)
    try:
        return _recover(directory, birth, calls, wal, lock)
    except BaseException:
        wal.close()
        os.close(lock)
        raise


def _recover(directory: Path, birth: Birth, calls: Os, wal: Wal, lock: int) -> Volume:
    wal.open()
    sequence = Sequence(Rows(wal.columns.row), wal.columns.marks)
    try:
        wal.recover(sequence.accept)
    except Invalid as error:
        raise LogDamaged(f"{directory}: {error.message}. {REPAIR}") from error
    published = _read(directory / "checkpoint")
    signer = _identity(directory, birth, calls, new=len(sequence) == 0 and published is None)
    published_size = _check_published(directory, published, signer, sequence)
    closed = _check_ends(directory, wal, signer) if len(sequence) else False
    return Volume(directory, calls, wal, sequence, signer, published, published_size, closed, lock)


def _lock(directory: Path) -> int:
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise Conflict(
            f"ledger directory {directory} is being written by another process; a log has one writer. "
            "Stop the other one, or wait until it is gone",
            reason="SecondWriter",
        ) from error
    return fd


def _identity(directory: Path, birth: Birth, calls: Os, *, new: bool) -> Signer:
    """Key and origin; made where the log is new. A log that has entries never gets another identity."""
    seed, origin = _read(directory / "log.key"), _read(directory / "origin")
    if not new and (seed is None or origin is None):
        missing = "log.key" if seed is None else "origin"
        raise LogDamaged(f"{directory}: the log has entries, but {missing} is missing; restore it from the same volume. {REPAIR}")
    if seed is None:
        seed = birth.seed()
        replace_file(calls, directory / "log.key", seed, mode=0o600)
    if origin is None:
        origin = birth.origin().encode()
        replace_file(calls, directory / "origin", origin)
    if len(seed) != SEED:
        raise LogDamaged(f"{directory}/log.key has {len(seed)} bytes; expected the {SEED} of an Ed25519 seed")
    return Signer.from_seed(origin.decode().strip(), seed)


def _check_published(directory: Path, published: bytes | None, signer: Signer, sequence: Sequence) -> int:
    """The published checkpoint must be a prefix of what was recovered: a log that shrank or differs is never continued."""
    if published is None:
        return 0
    try:
        claim = checkpoint.open_checkpoint(published, signer.verifier())
    except Invalid as error:
        raise LogDamaged(f"{directory}/checkpoint: {error.message}. {REPAIR}") from error
    if claim.size > len(sequence):
        raise LogDamaged(
            f"{directory}: a checkpoint over {claim.size} entries was published, but the log holds {len(sequence)}: "
            f"the volume was rolled back or lost its end. {REPAIR}"
        )
    if sequence.rows.root(claim.size) != claim.root:
        raise LogDamaged(f"{directory}: the first {claim.size} entries are not those of the published checkpoint. {REPAIR}")
    return claim.size


def _check_ends(directory: Path, wal: Wal, signer: Signer) -> bool:
    """The first entry names this log and key; whether the last one closed it."""
    first, last = json.loads(wal.read(0, 1)[0]), json.loads(wal.read(wal.size - 1, 1)[0])
    if first["origin"] != signer.name or first["data"].get("vkey") != signer.verifier().vkey():
        raise LogDamaged(f"{directory}: log.key and origin are not those that entry 0 was opened with. {REPAIR}")
    return bool(last["ce"]["type"] == "dev.folkmoot.audit.log.closed.v1")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
