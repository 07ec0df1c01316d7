"""The short way from a request to an entry accepts nothing that the long way does not, and makes the same bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.entries import EntryRequest, Producer
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import wire
from folkmoot_core.ledger.envelope import RFC3339, Prepared, prepare

ORIGIN = "folkmoot/1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b"
PRODUCER = Producer(id="core/conductor", build="b1")
TYPES = frozenset({"session.start", "gate.verdict"})
SPEAKER = wire.Speaker(PRODUCER, ORIGIN, TYPES)

text = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.sampled_from(
        ['","recordedtime":"', "\\", '"', "\x7f", "\u2028", "\x00\x1f\b\f\n\r\t", "é" * 64, "é" * 65, "x" * 128, "x" * 129]
    ),
)
scalars = st.one_of(
    st.none(), st.booleans(), text, st.floats(), st.integers(-(2**53) - 1, 2**53 + 1),
    st.sampled_from([2**53 - 1, 2**53, -(2**53) + 1, -(2**53), 2**64, 10**30, 1.0, -0.0]),
)  # fmt: skip
keys = st.sampled_from(["a", "b", "B", "a.b", "é", "", "time", "prev", 'q"', "\x7f", "\n"])
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8)
usual = st.fixed_dictionaries(
    {
        "id": text.map(lambda t: f"request-{t}"),
        "type": st.sampled_from(["session.start", "gate.verdict"]),
        "time": st.just("2026-01-31T12:00:00.000000Z"),
        "actor": st.fixed_dictionaries(
            {"kind": st.sampled_from(["agent", "service"]), "id": text}, optional={"seed": text, "commitment": text}
        ),
    },
    optional={
        "session": text,
        "config": text,
        "data": st.dictionaries(keys, values, max_size=4),
        "payload": st.none()
        | st.fixed_dictionaries(
            {
                "commit": st.sampled_from(["0" * 64, "é" * 64, "0" * 63]),
                "size": st.sampled_from([0, 7, -1, "7", 7.0, True, 2**53]),
            },
            optional={"media": text, "alg": st.sampled_from(["sha256-salt-v1", "none"])},
        ),
        "traceparent": text,
    },
)
PATHS = [
    ("id",),
    ("type",),
    ("time",),
    ("actor",),
    ("actor", "kind"),
    ("actor", "id"),
    ("session",),
    ("data",),
    ("payload",),
    ("more",),
]


@st.composite
def spoilt(draw: st.DrawFn) -> dict[str, Any]:
    """A usual request with one field replaced by anything, or left out."""
    request = draw(usual)
    path = draw(st.sampled_from(PATHS))
    inner: Any = request
    for name in path[:-1]:
        inner = inner[name]
    if draw(st.booleans()):
        inner[path[-1]] = draw(
            st.one_of(values, st.sampled_from(["2026-01-31T12:00:00Z\n", "2026-01-31T12:00:00+00:00", "log.closed"]))
        )
    else:
        inner.pop(path[-1], None)
    return request


def short(body: bytes) -> list[Prepared] | None:
    decoded = wire.decode(body)
    return None if decoded is None else SPEAKER.prepare(decoded[0])


def long(value: Any) -> Prepared:
    """Raises a ValueError (pydantic's is one) or Invalid where it refuses."""
    return prepare(EntryRequest.model_validate(value), origin=ORIGIN, producer=PRODUCER)


@given(st.one_of(usual, spoilt()), st.booleans())
def test_what_the_short_way_accepts_has_the_bytes_of_the_long_way(value: dict[str, Any], plain: bool) -> None:
    body = json.dumps(value, ensure_ascii=plain).encode("utf-8", "surrogatepass")
    found = short(body)
    if found is not None:
        assert found == [long(json.loads(body))]


@given(usual)
def test_a_clients_own_requests_take_the_short_way_alone_and_in_a_batch(value: dict[str, Any]) -> None:
    try:
        request = EntryRequest.model_validate(value)
        expected = long(value)
    except (ValueError, Invalid):
        return
    depth = json.dumps(value.get("data", {})).count("{") + json.dumps(value.get("data", {})).count("[")
    body = request.model_dump_json().encode()
    found = short(body)
    assert found == [expected] or depth > 3
    if found is not None:
        assert short(b'{"entries":[' + body + b"," + body + b"]}") == found * 2


@given(st.lists(st.one_of(usual, spoilt()), min_size=1, max_size=4))
def test_a_batch_gives_what_each_of_its_requests_gives_alone(values: list[dict[str, Any]]) -> None:
    bodies = [json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass") for value in values]
    alone = [short(body) for body in bodies]
    together = short(b'{"entries":[' + b",".join(bodies) + b"]}")
    assert together == (None if None in alone else [made for found in alone if found for made in found])


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b"null", b'{"entries":[]}', b'{"entries":[{}]}', b'{"entries":{}}', b"\xff", b'{"entries":[],"more":1}',
        b'{"id":"' + b"x" * 200 + b'"}', b"[" * 100_000, b'{"entries":[' + b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_request_is_left_to_the_long_way(body: bytes) -> None:
    assert wire.decode(body) is None


def one(**fields: Any) -> bytes:
    base = {"id": "request-1", "type": "session.start", "time": "2026-01-31T12:00:00Z", "actor": {"kind": "agent", "id": "anna"}}
    return json.dumps(base | fields).encode()


def test_more_than_a_batch_holds_is_left_to_the_long_way() -> None:
    assert short(b'{"entries":[' + b",".join([one()] * 200) + b"]}") is not None
    assert short(b'{"entries":[' + b",".join([one()] * 201) + b"]}") is None


@pytest.mark.parametrize(
    "fields",
    [{"type": "log.closed"}, {"time": "2026-01-31T12:00:00+01:00"}, {"data": {"é": 1}}, {"data": {"pad": "x" * 61_000}}],
    ids=["another's type", "time", "key", "size"],
)
def test_what_a_producer_may_not_say_is_left_to_the_long_way(fields: dict[str, Any]) -> None:
    assert wire.decode(one(**fields)) is not None
    assert short(one(**fields)) is None


def test_an_agent_speaks_for_itself_alone() -> None:
    anna = wire.Speaker(Producer(id="agents/anna"), ORIGIN, TYPES, "anna")
    for actor, accepted in (("anna", True), ("ben", False)):
        decoded = wire.decode(one(actor={"kind": "agent", "id": actor}))
        assert decoded is not None
        assert (anna.prepare(decoded[0]) is not None) is accepted
    decoded = wire.decode(one(actor={"kind": "human", "id": "anna"}))
    assert decoded is not None
    assert anna.prepare(decoded[0]) is None


def test_the_short_way_knows_every_field_of_a_request() -> None:
    assert set(wire.Request.__struct_fields__) == set(EntryRequest.model_fields)


@given(
    st.text(st.sampled_from("0123456789-T:.Z٣²zt+ é"), max_size=32)
    | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,10})?Z?")
)
def test_the_short_way_takes_the_times_that_the_long_way_takes(time: str) -> None:
    decoded = wire.decode(one(time=time))
    short = None if decoded is None else SPEAKER.prepare(decoded[0])
    assert (short is not None) is (RFC3339.fullmatch(time) is not None)
