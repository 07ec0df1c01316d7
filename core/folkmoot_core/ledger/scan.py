"""Entries of one bundle, read strictly and fast: what verification and coverage know of an entry. Used by `chain`; pure.

The short way decodes a whole bundle at once and encodes it again with sorted keys. If the bytes come back the same and are ASCII,
they are canonical: no key twice or out of order, no other spelling of a text or a number, and the types admit no float, no
integer beyond 2^53 - 1 and, being ASCII, no key that is not. What is not certainly good takes the long way, entry by entry,
through `canonical_json`, which decides and says what is wrong. A property test holds the two against each other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from folkmoot_core.canonical import MAX_INTEGER, canonical_json
from folkmoot_core.entries import TYPE_PREFIX
from folkmoot_core.errors import FolkmootError, Invalid

_Integer = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
_Scalar = _Integer | str | bool | None
_Inner = _Scalar | list[_Scalar] | dict[str, _Scalar]
_Value = _Scalar | list[_Inner] | dict[str, _Inner]  # three levels; deeper data takes the long way
_Text = str | UnsetType


class Event(msgspec.Struct, gc=False):
    """An entry's CloudEvents fields; here and below in the order of their names, as canonical JSON has them."""

    id: str
    recordedtime: str
    source: str
    specversion: _Text = UNSET
    subject: _Text = UNSET
    time: _Text = UNSET
    traceparent: _Text = UNSET
    type: str = ""


class Who(msgspec.Struct, gc=False):
    """`actor`."""

    commitment: _Text = UNSET
    id: _Text = UNSET
    kind: _Text = UNSET
    seed: _Text = UNSET


class Observer(msgspec.Struct, gc=False):
    """`obs`."""

    build: _Text = UNSET
    id: str = msgspec.field(default="")


class Entry(msgspec.Struct, kw_only=True, gc=False):
    """One entry. Fields that verification does not need may be absent in hostile bytes."""

    actor: Who | UnsetType = UNSET
    ce: Event
    config: _Text = UNSET
    data: dict[str, _Value] | UnsetType = UNSET
    obs: Observer
    origin: str
    payload: dict[str, _Scalar] | UnsetType = UNSET
    prev: str
    seq: _Integer
    v: _Integer

    @property
    def kind(self) -> str:
        """Its type without prefix and version, such as `gate.verdict`."""
        return self.ce.type.removeprefix(TYPE_PREFIX).removesuffix(".v1")

    @property
    def facts(self) -> dict[str, Any]:
        """`data`, whatever it is."""
        return self.data if isinstance(self.data, dict) else {}

    @property
    def session(self) -> str:
        """Uid of the session, or ''."""
        return text(self.ce.subject)

    @property
    def commitment(self) -> str:
        """The salted commitment it carries, or ''."""
        return text(self.payload.get("commit")) if isinstance(self.payload, dict) else ""


class _Loose(Entry, kw_only=True, gc=False):
    """The long way's: `data` may be anything that is canonical, and `obs` must still be there."""

    data: Any = UNSET


_decode = msgspec.json.Decoder(Entry).decode_lines
_encode = msgspec.json.Encoder(order="sorted").encode_lines


def text(value: Any) -> str:
    """A field's text, '' for anything else."""
    return value if isinstance(value, str) else ""


def read_bundle(entries: Sequence[bytes]) -> list[Entry] | None:
    """All entries of a bundle, certainly canonical; None: take the long way, `read_entry`, for each."""
    whole = b"".join(entries)
    # An entry with a line feed in it could pass as two, or two pieces as one.
    if not whole.isascii() or b"\n" in whole:
        return None
    lines = b"\n".join(entries) + b"\n"
    try:
        found = _decode(lines)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return found if _encode(found) == lines else None


def read_entry(entry: bytes) -> tuple[Entry, bool]:
    """An entry and whether its JSON is canonical; raises `Invalid` for what is no ledger entry."""
    try:
        value = json.loads(entry)
        canonical = canonical_json(value) == entry
        return msgspec.convert(value, _Loose), canonical
    except (ValueError, TypeError, RecursionError, msgspec.MsgspecError, FolkmootError) as error:
        raise Invalid("not a ledger entry") from error
