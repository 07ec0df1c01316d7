"""Opening the log's directory: one writer, one identity, the whole log read back and held against what was published.

    lock          held with flock for life: a second writer exits
    log.key       the signing keys (keys.py), mode 0600
    origin        `folkmoot/<uuid>`, made at birth
    wal-<n>       the log (wal.py)
    state         what of it need not be hashed entry by entry again (state.py); may be deleted
    row-<l>, marks, links, offsets   derived from it (columns.py); may be deleted
    checkpoint    the last published one; recovery never falls behind it
    checkpoints/, anchors/    its timestamps (anchor_files.py)
    clock         a person's word that the log's times are wrong (clock.py)

Runs in a thread before the process serves anything; raises `LogDamaged`, `Conflict`,
`ClockSetBack` or `VolumeFailed` with a sentence for the operator.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import bundle, checkpoint
from folkmoot_core.ledger.note import parse_vkey
from folkmoot_core.ledger.sequence import Sequence
from folkmoot_core.ledger.tiles import WIDTH, Rows, Tile
from folkmoot_core.ledger.tree import leaf_hash
from folkmoot_runtime.durable import FULL, Os, lock_directory, make_directory, refuse_shared_filesystem
from folkmoot_runtime.keyring import NoWrapper, Wrapper
from folkmoot_runtime.ledger.clock import refuse_set_back
from folkmoot_runtime.ledger.columns import Columns
from folkmoot_runtime.ledger.interface import own
from folkmoot_runtime.ledger.keys import KeyFiles, LogKeys
from folkmoot_runtime.ledger.records import REPAIR, LogDamaged, VolumeFailed
from folkmoot_runtime.ledger.segments import FIRST_SEGMENT
from folkmoot_runtime.ledger.wal import Wal

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Birth:
    """What a new log is made from; asked for only where there is none yet."""

    origin: Callable[[], str]
    secret: Callable[[], bytes]
    """64 random bytes: the seeds of both keys."""


def _new_origin() -> str:
    return f"folkmoot/{uuid.uuid4()}"


def _new_secret() -> bytes:
    return os.urandom(64)


NEW = Birth(origin=_new_origin, secret=_new_secret)


@dataclass
class Volume:
    """An opened, recovered directory."""

    directory: Path
    calls: Os
    wal: Wal
    sequence: Sequence
    files: KeyFiles
    keys: LogKeys
    rotation: str
    """The statement of the last exchange of keys; '' if there was none."""
    published: bytes | None
    published_size: int
    closed: bool
    wrong_until: str
    """Up to when the log's times are known to be wrong (`clock.py`); '' when they are not."""
    lock: int = field(repr=False)

    def bundle(self, tile: Tile) -> bytes:
        """The entries of a bundle, held against the hashes that the signed tree is made from: what a disk has changed is refused
        here, and not found by whoever reads the copy. Hashing is half of the 0.4 ms that a full one of 500-byte entries takes."""
        entries = self.wal.read(tile.index * WIDTH, tile.width)
        if b"".join(map(leaf_hash, entries)) != self.sequence.rows.tile(replace(tile, level=0)):
            raise LogDamaged(
                f"{self.directory}: the entries of {tile.path()} have other hashes than when they were written: the volume changed "
                f"since. {REPAIR}"
            )
        return bundle.encode(entries)

    def close(self) -> None:
        """Close the files and let another writer in."""
        try:
            self.wal.close()
        except OSError as error:  # everything that was promised was synced before
            log.warning("closing the log's files failed", extra={"reason": error.strerror})
        os.close(self.lock)


@dataclass(frozen=True)
class Opening:
    """How a directory is opened."""

    birth: Birth
    calls: Os
    wrapper: Wrapper = field(default_factory=NoWrapper)
    first_segment: int = FIRST_SEGMENT
    clock: Callable[[], float] = time.time


def open_volume(directory: Path, opening: Opening) -> Volume:
    """Lock, recover and check a log directory, or make a new one. Raises `Conflict` when another process writes it."""
    try:
        return _open(directory, opening)
    except OSError as error:
        raise _failed(directory, error) from error


def _open(directory: Path, opening: Opening) -> Volume:
    make_directory(opening.calls, directory)
    refuse_shared_filesystem(directory)
    lock = lock_directory(directory)
    wal = Wal(opening.calls, directory, Columns(opening.calls, directory), opening.first_segment)
    try:
        return _recover(directory, opening, wal, lock)
    except BaseException:
        wal.close()
        os.close(lock)
        raise


def _failed(directory: Path, error: OSError) -> VolumeFailed:
    """Nothing that was acknowledged is lost by this: recovery writes over derived files and over what had no receipt alone."""
    what = f"{directory}: the log cannot be opened: {error.strerror}"
    if error.errno in FULL:
        return VolumeFailed(f"{what}. Enlarge the volume; the next start then goes on where this one ended")
    return VolumeFailed(f"{what}. Look at the volume and its storage first; the next start tries again. {REPAIR}")


def _recover(directory: Path, opening: Opening, wal: Wal, lock: int) -> Volume:
    wal.open()
    sequence = Sequence(Rows(wal.columns.row), wal.columns.store())
    try:
        wal.recover(sequence.accept)
    except Invalid as error:
        raise LogDamaged(f"{directory}: {error.message}. {REPAIR}") from error
    published = _read(directory / "checkpoint")
    files = KeyFiles(directory, opening.calls, opening.wrapper)
    birth = opening.birth
    keys = files.open(lambda: (birth.origin(), birth.secret()), new=len(sequence) == 0 and published is None)
    keys = _finish_rotation(files, keys, wal, sequence)
    closed = _check_ends(directory, wal, keys) if len(sequence) else False
    rotated = json.loads(wal.read(keys.since, 1)[0])["data"] if keys.since else {}
    signed_with = [keys.vkey(), *([str(rotated["previous"])] if rotated else [])]
    published_size = _check_published(directory, published, signed_with, sequence)
    rotation = str(rotated.get("statement", ""))
    last = wal.read(wal.size - 1, 1)[0] if wal.size else None
    wrong = "" if closed else refuse_set_back(directory, last, published, keys.origin, now=opening.clock())
    return Volume(directory, opening.calls, wal, sequence, files, keys, rotation, published, published_size, closed, wrong, lock)


def _finish_rotation(files: KeyFiles, keys: LogKeys, wal: Wal, sequence: Sequence) -> LogKeys:
    """A rotation that a crash interrupted: done if its entry is durable, forgotten if it is not."""
    prepared = files.prepared(keys.origin)
    if prepared is None:
        return keys
    wanted = own(prepared.rotation_id(), "log.key.rotated", keys.origin, now=0)
    found = sequence.find(wanted.key, lambda position: wal.read(position, 1)[0])
    if found is None:
        files.forget()
        return keys
    return files.take_over(prepared, found[0])


def _check_published(directory: Path, published: bytes | None, vkeys: list[str], sequence: Sequence) -> int:
    """The published checkpoint must be a prefix of what was recovered: a log that shrank or differs is never continued."""
    if published is None:
        return 0
    try:
        claim = _opened(published, vkeys)
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


def _opened(published: bytes, vkeys: list[str]) -> checkpoint.Checkpoint:
    for vkey in vkeys[:-1]:
        with contextlib.suppress(Invalid):
            return checkpoint.open_checkpoint(published, parse_vkey(vkey))
    return checkpoint.open_checkpoint(published, parse_vkey(vkeys[-1]))


def _check_ends(directory: Path, wal: Wal, keys: LogKeys) -> bool:
    """The entry that introduced the keys names this log and these; whether the last entry closed it."""
    if keys.since >= wal.size:
        raise LogDamaged(f"{directory}: log.key was introduced by entry {keys.since}, and the log holds {wal.size}. {REPAIR}")
    first, last = json.loads(wal.read(keys.since, 1)[0]), json.loads(wal.read(wal.size - 1, 1)[0])
    vkey, mldsa = keys.vkeys()
    if first["origin"] != keys.origin or (first["data"].get("vkey"), first["data"].get("mldsa")) != (vkey, mldsa):
        raise LogDamaged(f"{directory}: log.key and origin are not those that entry {keys.since} names. {REPAIR}")
    return bool(last["ce"]["type"] == "dev.folkmoot.audit.log.closed.v1")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
