"""Entry bytes in two steps: everything the producer said is encoded when it arrives, position and link when its turn comes.

Sequencing is the serial part of the log, so it must be cheap: three joins and one SHA-256 per entry. The bytes are those of
`entries.encode_entry`, cut at the three values that only the ledger knows. The same cuts read a stored entry back into its
idempotency key and its fact, without parsing JSON: an unescaped quote cannot occur inside a JSON string, so the searched
sequences are found at the keys alone.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from folkmoot_core.entries import GENESIS_PREV, MAX_ENTRY, EntryRequest, Producer, encode_entry
from folkmoot_core.errors import Invalid

_RECORDED = b',"recordedtime":"'
_ID = b',"ce":{"id":'
_SOURCE = b'","source":'
_VERSION = b',"specversion":"'
_TIME = b',"time":"'
_TYPE = b',"type":"'
_PREV = b',"prev":"'
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", re.ASCII)
_PLACEHOLDER = "0000-00-00T00:00:00.000000Z"  # as long as what replaces it
REST = len(GENESIS_PREV) + len(_PLACEHOLDER) + 20 + 16  # 20 digits of the largest position


class Prepared(msgspec.Struct, gc=False):
    """An entry but for its position, link and time of recording. Not frozen, for one is made for each entry; never changed."""

    key: bytes
    """Idempotency key: digest of source and id."""
    head: bytes
    middle: bytes
    size: int
    """An upper bound of the final length: `REST` and what is there."""

    @property
    def fact(self) -> bytes:
        """All that must be equal when the same id comes again: not the producer's clock and trace."""
        time = self.middle.index(_TIME)
        return self.head + self.middle[:time] + self.middle[self.middle.index(_TYPE, time) :]

    def encode(self, seq: int, prev: str, recorded: str) -> bytes:
        """The entry's final bytes."""
        return b'%b%b%b%b","seq":%d,"v":1}' % (self.head, recorded.encode(), self.middle, prev.encode(), seq)

    @property
    def id(self) -> str:
        """The producer's id, for messages."""
        return self.head[self.head.rindex(_ID) + len(_ID) + 1 : -len(_RECORDED) - 1].decode()


def prepare(request: EntryRequest, *, origin: str, producer: Producer) -> Prepared:
    """Encode what is known on arrival; raises `Invalid` for times that are not RFC 3339 UTC and entries over 60 KiB."""
    if not RFC3339.fullmatch(request.time):
        raise Invalid(f"entry {request.id}: time {request.time!r} is not RFC 3339 in UTC, like 2026-01-31T12:00:00.000000Z")
    entry = encode_entry(request, origin=origin, seq=0, prev=GENESIS_PREV, recorded=_PLACEHOLDER, producer=producer)
    prepared = take_apart(entry)
    if prepared.size > MAX_ENTRY:
        raise Invalid(
            f"entry {request.id} has {len(entry)} bytes; at most {MAX_ENTRY}: commit to large content, do not inline it"
        )
    return prepared


def take_apart(entry: bytes) -> Prepared:
    """The prepared form behind stored bytes; raises `Invalid` when they are not an entry."""
    try:
        head_end = entry.index(_RECORDED) + len(_RECORDED)
        middle_start = entry.index(b'"', head_end)
        middle_end = entry.rindex(_PREV) + len(_PREV)
        head, middle = entry[:head_end], entry[middle_start:middle_end]
        identity = head[head.rindex(_ID) + len(_ID) : -len(_RECORDED)]
        source = middle[len(_SOURCE) : middle.index(_VERSION)]
        middle.index(_TYPE, middle.index(_TIME))
    except ValueError as error:
        raise Invalid("stored bytes are not a ledger entry") from error
    key = hashlib.blake2b(identity + b"\0" + source, digest_size=16).digest()
    return Prepared(key, head, middle, len(head) + len(middle) + REST)


def key_of(entry: bytes) -> bytes:
    """The idempotency key of stored bytes, as `take_apart` gives it, without copying the rest; raises `Invalid`."""
    try:
        end = entry.index(_RECORDED)
        identity = entry[entry.rindex(_ID, 0, end) + len(_ID) : end]
        start = entry.index(_SOURCE, end)
        source = entry[start + len(_SOURCE) : entry.index(_VERSION, start)]
    except ValueError as error:
        raise Invalid("stored bytes are not a ledger entry") from error
    return hashlib.blake2b(identity + b"\0" + source, digest_size=16).digest()
