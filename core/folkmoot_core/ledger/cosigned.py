"""The exact bytes that C2SP tlog-cosignature has signed, and the three lines of a checkpoint that they are made from.

`note.py` checks signatures over them, `cosignature.py` makes them, `checkpoint.py` reads its first lines here. It must not
know keys: it only says what a signature is over. § are headings of tlog-cosignature.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.tree import HASH_SIZE

MAX_SIZE = 2**63 - 1
MAX_TIME = 2**63 - 1  # §Format: a timestamp must not exceed it
MAX_OPAQUE = 255  # bytes of a name or origin: opaque<1..2^8-1>
HEADER_ED25519 = "cosignature/v1\n"
LABEL_SUBTREE = b"subtree/v1\n\0"
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class Head(NamedTuple):
    """What every cosigner vouches for, whatever lines follow."""

    origin: str
    size: int
    root: bytes


def head(text: str) -> Head:
    """Origin, size and root of a checkpoint's text (tlog-checkpoint, Note text); raises `Invalid` for any other spelling."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] != "" or any(not line for line in lines[:-1]):
        raise Invalid("checkpoint: expected lines origin, size and root hash, each ended by a line feed")
    origin, size, root = lines[:3]
    return Head(origin, _size(origin, size), _root(origin, root))


def _size(origin: str, text: str) -> int:
    if not _SIZE.fullmatch(text) or int(text) > MAX_SIZE:
        raise Invalid(f"checkpoint of {origin[:80]}: size {text[:30]!r} is not a decimal number without leading zeros")
    return int(text)


def _root(origin: str, text: str) -> bytes:
    try:
        found = unbase64(text)
    except Invalid as error:
        raise Invalid(f"checkpoint of {origin[:80]}: the root hash is not canonical base64") from error
    if len(found) != HASH_SIZE:
        raise Invalid(f"checkpoint of {origin[:80]}: the root hash has {len(found)} bytes; expected {HASH_SIZE}")
    return found


def ed25519_message(text: str, seconds: int) -> bytes:
    """§Ed25519 signed message: a header, the time, and the whole text with its last line feed."""
    return f"{HEADER_ED25519}time {_time(seconds)}\n{text}".encode()


def mldsa_message(name: str, text: str, seconds: int) -> bytes:
    """§ML-DSA-44 signed message: `cosigned_message` over the whole tree; lines after the root are not in it."""
    origin, size, root = head(text)
    parts = (LABEL_SUBTREE, _opaque(name, "cosigner's name"), _u64(_time(seconds)), _opaque(origin, "log's origin"))
    return b"".join(parts) + _u64(0) + _u64(size) + root


def unbase64(text: str) -> bytes:
    """The bytes of standard padded base64, in the one spelling that encoding gives; raises `Invalid`."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid("not base64") from error
    if base64.b64encode(data).decode() != text:  # padding bits that are not zero: a second spelling of the same bytes
        raise Invalid("not canonical base64")
    return data


def _time(seconds: int) -> int:
    if not 0 <= seconds <= MAX_TIME:
        raise Invalid(f"a cosignature's time is a number of seconds from 0 to {MAX_TIME}, not {seconds}")
    return seconds


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _opaque(text: str, what: str) -> bytes:
    data = text.encode()
    if not 1 <= len(data) <= MAX_OPAQUE:
        raise Invalid(f"the {what} has {len(data)} bytes; an ML-DSA-44 cosignature holds 1 to {MAX_OPAQUE}")
    return bytes([len(data)]) + data
