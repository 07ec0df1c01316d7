"""The file `state`: what a start need not hash entry by entry again. Written whenever a segment of the log is full.

It can only save work, never decide. Believed when all of this holds, and otherwise the whole log is read back record by record,
which accepts it or says what is damaged: 1. the file's own digest; 2. the records of each full segment have, byte for byte, the digest that
was taken while they were written; 3. the last record of the last of them is where the file says, with the digest that chains it to
all before it; 4. each column has the digest it had then. What an attacker who writes this volume gains by forging it: nothing
that forging the log itself does not give.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folkmoot_runtime.durable import ZEROS, Os, read_at
from folkmoot_runtime.ledger import records
from folkmoot_runtime.ledger.segments import START

NAME = "state"
CHUNK = len(ZEROS)
HASHERS = 2  # hashing runs without the interpreter's lock


@dataclass(frozen=True)
class Sealed:
    """A segment that is full."""

    digest: bytes
    """SHA-256 of the file behind its header."""
    last: int
    """Offset of its last record."""
    used: int
    """Offset behind it."""


@dataclass(frozen=True)
class State:
    """The log up to the end of its full segments."""

    segments: tuple[Sealed, ...]
    size: int
    chain: bytes
    columns: Mapping[str, tuple[int, bytes]]

    def encode(self) -> bytes:
        """The file's bytes: JSON, and its digest on a line of its own."""
        value = {
            "segments": [[one.digest.hex(), one.last, one.used] for one in self.segments],
            "size": self.size,
            "chain": self.chain.hex(),
            "columns": {name: [count, digest.hex()] for name, (count, digest) in self.columns.items()},
        }
        body = json.dumps(value).encode() + b"\n"
        return body + hashlib.sha256(body).hexdigest().encode() + b"\n"


def parse(data: bytes) -> State | None:
    """What `encode` made, or None."""
    body, _, digest = data.removesuffix(b"\n").rpartition(b"\n")
    body += b"\n"
    if hashlib.sha256(body).hexdigest().encode() != digest:  # 1
        return None
    try:
        value: Any = json.loads(body)
        return State(
            tuple(Sealed(bytes.fromhex(digest), int(last), int(used)) for digest, last, used in value["segments"]),
            int(value["size"]),
            bytes.fromhex(value["chain"]),
            {str(name): (int(count), bytes.fromhex(digest)) for name, (count, digest) in value["columns"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def holds(calls: Os, state: State, files: list[tuple[Path, int, int]]) -> bool:
    """Whether the log's segments (path, descriptor, size) are those of the state."""
    sealed = state.segments
    if not sealed or len(files) < len(sealed):
        return False
    _, fd, _ = files[len(sealed) - 1]
    last = records.head(read_at(calls, fd, records.HEADER.size, sealed[-1].last))
    if (
        last is None
        or sealed[-1].last < START
        or last.digest != state.chain
        or last.first + last.count != state.size
        or sealed[-1].last + records.HEADER.size + last.length != sealed[-1].used
    ):
        return False  # 3
    with ThreadPoolExecutor(HASHERS, "ledger-check") as pool:
        digests = pool.map(lambda file: _digest(calls, file[1], file[2]), files[: len(sealed)])
        return all(found == one.digest for found, one in zip(digests, sealed, strict=True))  # 2


def _digest(calls: Os, fd: int, size: int) -> bytes:
    found = hashlib.sha256()
    for start in range(START, size, CHUNK):
        found.update(read_at(calls, fd, min(CHUNK, size - start), start))
    return found.digest()
