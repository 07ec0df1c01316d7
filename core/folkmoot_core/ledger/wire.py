"""The short way from a request's bytes to an entry's: what is certainly well-formed is checked and encoded here, in a tenth of
the time. Called by the ledger's door for each `POST /v1/entries`.

It decides nothing new. `decode` and `Speaker.prepare` answer None for whatever is not certainly an `EntryRequest` within the
canonical subset, and the caller then takes the long way (`EntryRequest`, `envelope.prepare`), which accepts or says what is
wrong. What is accepted here gives the very bytes of the long way; a property test holds the two against each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from folkmoot_core.canonical import MAX_INTEGER, is_plain
from folkmoot_core.entries import MAX_ENTRY, TYPE_PREFIX, EntryType, Producer, source_of
from folkmoot_core.ledger.envelope import REST, Prepared

MAX_BATCH = 200  # entries of one request (docs/architecture.md)
_Text64 = Annotated[str, Meta(max_length=64)]
_Integer = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
_Scalar = _Integer | str | bool | None
_Inner = _Scalar | list[_Scalar] | dict[str, _Scalar]
_Value = _Scalar | list[_Inner] | dict[str, _Inner]  # three levels; deeper data takes the long way


class _Actor(msgspec.Struct, forbid_unknown_fields=True, gc=False):  # fields in the order of their names, as they are encoded
    id: Annotated[str, Meta(max_length=128)]
    kind: Literal["agent", "human", "service"]
    commitment: _Text64 = ""
    seed: _Text64 = ""


class _Payload(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    commit: Annotated[str, Meta(min_length=64, max_length=64)]
    size: Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
    alg: Literal["sha256-salt-v1"] = "sha256-salt-v1"
    media: Annotated[str, Meta(max_length=100)] = "application/json"


class Request(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An `EntryRequest`, field for field."""

    id: Annotated[str, Meta(min_length=8, max_length=128)]
    type: EntryType
    time: Annotated[str, Meta(max_length=40)]
    actor: _Actor
    session: _Text64 = ""
    config: Annotated[str, Meta(max_length=80)] = ""
    data: dict[str, _Value] = {}
    payload: _Payload | None = None
    traceparent: Annotated[str, Meta(max_length=60)] = ""


_Frame = tuple[_Actor, EntryType, str, str]


class _Batch(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    entries: Annotated[list[Request], Meta(min_length=1, max_length=MAX_BATCH)]


_single = msgspec.json.Decoder(Request)
_batch = msgspec.json.Decoder(_Batch)
_encode = msgspec.json.Encoder(order="sorted").encode
_KEY = hashlib.blake2b(digest_size=16)  # copied for each entry: half the time of a new one
_END = b',"prev":"'
_IS_BATCH = b'{"entries":'
# RFC3339 of envelope.py without an expression: what a time looks like with its digits made zeros. Only digits become zeros, and
# what is no ASCII stays what it is, so nothing else looks like this.
_SHAPE = bytes.maketrans(b"0123456789", b"0" * 10)
_TIMES = frozenset(b"0000-00-00T00:00:00%bZ" % fraction for fraction in (b"", *(b"." + b"0" * digits for digits in range(1, 10))))


def decode(body: bytes) -> tuple[list[Request], bool] | None:
    """The requests of a body and whether it was one alone; None: take the long way."""
    try:
        if body.startswith(_IS_BATCH):
            return _batch.decode(body).entries, False
        return [_single.decode(body)], True
    except (msgspec.MsgspecError, ValueError, RecursionError):  # bytes that are no UTF-8 raise a ValueError of its own
        return None


class Speaker:
    """Makes one producer's entries: what is the same in all of them is encoded once."""

    def __init__(self, producer: Producer, origin: str, types: frozenset[str], agent: str | None = None) -> None:
        self._types = types
        self._agent = agent
        source = _encode(source_of(origin, producer))
        self._identity = b"\0" + source
        self._source = b'","source":' + source + b',"specversion":"1.0"'
        self._frame: _Frame | None = None
        self._around = b"", b"", b""  # an entry's bytes before its id, before its time and before its data
        self._obs = b',"obs":' + _encode(producer.model_dump()) + b',"origin":' + _encode(origin)

    def prepare(self, requests: Sequence[Request]) -> list[Prepared] | None:
        """The requests' entries but for position and link; None: take the long way, with all of them.

        This loop is a third of what an entry costs, so what it needs is looked up before it, and it calls nothing of ours.
        """
        frame, (to_id, to_time, to_data) = self._frame, self._around
        encode, begin_key, join, source = _encode, _KEY.copy, b"".join, self._identity
        end = self._obs + _END
        prepared: list[Prepared] = []
        for request in requests:
            stamp = request.time.encode()
            if stamp.translate(_SHAPE) not in _TIMES:
                return None
            own = (request.actor, request.type, request.session, request.config)
            if own != frame:
                if not self._begin(own):
                    return None
                frame, (to_id, to_time, to_data) = own, self._around
            data = encode(request.data)
            if not data.isascii() and not is_plain(request.data):
                return None
            identity = encode(request.id)
            key = begin_key()
            key.update(identity + source)
            head = join((to_id, identity, b',"recordedtime":"'))
            trace = b'","traceparent":' + encode(request.traceparent) if request.traceparent else b'"'
            rest = end if request.payload is None else join((self._obs, b',"payload":', encode(request.payload), _END))
            middle = join((to_time, stamp, trace, to_data, data, rest))
            size = len(head) + len(middle) + REST
            if size > MAX_ENTRY:
                return None
            prepared.append(Prepared(key.digest(), head, middle, size))
        return prepared

    def _begin(self, frame: _Frame) -> bool:
        """Encode what is the same in most entries that follow each other; False: nothing for the short way."""
        actor, kind, session, config = frame
        if kind not in self._types or (self._agent is not None and (actor.kind != "agent" or actor.id != self._agent)):
            return False
        subject = b',"subject":' + _encode(session) if session else b""
        self._around = (
            b'{"actor":%b,"ce":{"id":' % _encode(actor),
            b'%b%b,"time":"' % (self._source, subject),
            b',"type":"%b"},"config":%b,"data":' % (_TYPES[kind], _encode(config)),
        )
        self._frame = frame
        return True


class _Types(dict[str, bytes]):
    def __missing__(self, kind: str) -> bytes:
        made = self[kind] = f"{TYPE_PREFIX}{kind}.v1".encode()
        return made


_TYPES = _Types()  # as many as EntryType has: what is decoded is one of those
