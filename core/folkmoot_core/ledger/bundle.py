"""Entry bundles of C2SP tlog-tiles: for each entry a big-endian uint16 length and its bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from folkmoot_core.errors import Invalid

MAX_ENTRY = 0xFFFF
_LENGTH = struct.Struct(">H")


def encode(entries: Iterable[bytes]) -> bytes:
    """The bundle of these entries; raises `Invalid` for one that is longer than 65,535 bytes."""
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise Invalid(f"an entry of {len(entry)} bytes does not fit a bundle; at most {MAX_ENTRY}")
        parts += (_LENGTH.pack(len(entry)), entry)
    return b"".join(parts)


def decode(data: bytes, count: int | None = None) -> list[bytes]:
    """The entries of a bundle; raises `Invalid` when it is cut off or does not hold `count` of them."""
    entries: list[bytes] = []
    position, size, length_at = 0, len(data), _LENGTH.unpack_from
    while position < size:
        start = position + 2
        if start > size:
            raise Invalid(f"entry bundle ends inside a length, after {len(entries)} entries")
        position = start + length_at(data, position)[0]
        if position > size:
            raise Invalid(f"entry bundle ends inside entry {len(entries)}")
        entries.append(data[start:position])
    if count is not None and len(entries) != count:
        raise Invalid(f"entry bundle holds {len(entries)} entries; expected {count}")
    return entries
