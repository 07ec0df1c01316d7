"""The bytes of the write-ahead log: a record is one batch, whole or not there. ledger.md §5.2. Pure; `wal.py` does the files.

    "ALB1" | first index u64 | count u32 | payload length u32 | digest[32] | payload

big-endian; the payload is the entry-bundle framing (u16 length, bytes)*; digest = SHA-256(previous record's digest || leaf
hashes). So at most the last record can be torn: a broken record with a whole one after it is damage.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from folkmoot_core.errors import FolkmootError, Invalid
from folkmoot_core.ledger import bundle

MAGIC = b"ALB1"
HEADER = struct.Struct(">4sQII32s")
GENESIS = b"\0" * 32
PAGE = 4096
MAX_COUNT = 1024  # entries in a batch (ledger.md §5.1)
MAX_PAYLOAD = 1 << 20
REPAIR = (
    "Repair: keep a copy of this directory; restore the volume from storage that has the whole log, or, where the log up to the "
    "damage is in an export, retire this log and start another under a new origin. Never delete records to make it start."
)


class LogDamaged(FolkmootError):
    """What is on the volume is not a log that this process wrote and synced; it must not be continued."""

    reason = "LogDamaged"


class SyncFailed(FolkmootError):
    """A write or sync failed: what is on the disk is unknown, so the process stops and recovers from the log at its next start."""

    reason = "SyncFailed"


class VolumeFailed(FolkmootError):
    """The volume cannot be read or written, or is full, where the log cannot begin without it."""

    reason = "VolumeFailed"


class Superseded(FolkmootError):
    """Another process has opened the log since: this one must write nothing more and promise nothing more."""

    reason = "SecondWriter"


class OutOfTurn(FolkmootError):
    """A batch does not follow what was written: the one before it was not. Nothing was added."""

    reason = "OutOfTurn"


@dataclass(frozen=True)
class Head:
    """A record's header that is well-formed."""

    first: int
    count: int
    length: int
    digest: bytes


@dataclass(frozen=True)
class Record:
    """A record whose structure holds; its digest is the caller's to check."""

    first: int
    digest: bytes
    entries: list[bytes]
    end: int  # offset behind it


def encode(first: int, entries: Sequence[bytes], digest: bytes) -> bytes:
    """The record of these entries."""
    payload = bundle.encode(entries)
    return HEADER.pack(MAGIC, first, len(entries), len(payload), digest) + payload


def chain(previous: bytes, leaves: Sequence[bytes]) -> bytes:
    """A record's digest."""
    return hashlib.sha256(previous + b"".join(leaves)).digest()


def head(data: bytes, offset: int = 0) -> Head | None:
    """The header at an offset, or None where there is none."""
    if offset + HEADER.size > len(data):
        return None
    magic, first, count, length, digest = HEADER.unpack_from(data, offset)
    return Head(first, count, length, digest) if magic == MAGIC and 0 < count <= MAX_COUNT else None


def parse(data: bytes, offset: int) -> Record | None:
    """The record at an offset, if its structure holds."""
    found = head(data, offset)
    start = offset + HEADER.size
    if found is None or start + found.length > len(data):
        return None
    try:
        entries = bundle.decode(data[start : start + found.length], found.count)
    except Invalid:
        return None
    return Record(found.first, found.digest, entries, start + found.length)


def any_record(data: bytes, offset: int) -> bool:
    """Whether a structurally whole record starts anywhere behind `offset`. Entries are JSON, which has no zero bytes, so
    none can hide inside one."""
    found = data.find(MAGIC, offset)
    while found >= 0:
        if parse(data, found) is not None:
            return True
        found = data.find(MAGIC, found + 1)
    return False


def used(data: bytes) -> int:
    """Length without the zeros at the end, found without copying a whole segment."""
    end = len(data)
    while end and data.count(0, max(0, end - PAGE), end) == min(PAGE, end):
        end = max(0, end - PAGE)
    start = max(0, end - PAGE)
    return start + len(data[start:end].rstrip(b"\0"))
