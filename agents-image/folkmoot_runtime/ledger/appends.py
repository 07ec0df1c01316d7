"""From the body of `POST /v1/entries` to receipts, for every door: the short way where it will do, the long way otherwise.

`begin` is synchronous, so that the Unix socket's protocol needs no task for a request; what the producer is, the door knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from folkmoot_core.entries import EntryRequest, Producer
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import wire
from folkmoot_core.ledger.envelope import Prepared, prepare
from folkmoot_runtime.ledger.interface import AGENTS, SPOKEN_BY, Ledger, check_claims
from folkmoot_runtime.ledger.waiting import Admission

MAX_SPEAKERS = 256  # producers that are remembered; a tenant has fewer


class _Batch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    entries: tuple[EntryRequest, ...] = Field(min_length=1, max_length=wire.MAX_BATCH)


class Appends:
    """Makes entries for one log."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._origin = ledger.origin
        self._speakers: dict[str, wire.Speaker] = {}

    def begin(self, body: bytes, producer: Producer) -> tuple[Admission, bool]:
        """Queue what the body asks for; whether it was one entry alone. Raises what `Ledger.append` raises."""
        decoded = wire.decode(body)
        if decoded is not None:
            short = self._speaker(producer).prepare(decoded[0])
            if short is not None:
                return self.ledger.admit(short), decoded[1]
        requests, single = _requests(body)
        return self.ledger.admit(self._long_way(requests, producer)), single

    def _long_way(self, requests: Sequence[EntryRequest], producer: Producer) -> list[Prepared]:
        for request in requests:
            check_claims(request, producer)
        return [prepare(request, origin=self._origin, producer=producer) for request in requests]

    def _speaker(self, producer: Producer) -> wire.Speaker:
        found = self._speakers.get(producer.id)
        if found is None:
            if len(self._speakers) >= MAX_SPEAKERS:
                self._speakers.clear()
            agent = producer.id.removeprefix(AGENTS) if producer.id.startswith(AGENTS) else None
            types = SPOKEN_BY.get(AGENTS if agent is not None else producer.id, frozenset())
            found = self._speakers[producer.id] = wire.Speaker(producer, self._origin, frozenset(types), agent)
        return found


def answer(admission: Admission, single: bool) -> bytes:
    """The receipts as JSON. All are durable."""
    receipts = [
        f'{{"index":{index},"leaf":"{leaf.hex()}","duplicate":{"true" if duplicate else "false"}}}'
        for index, leaf, duplicate in admission.results()
    ]
    return (receipts[0] if single else '{"receipts":[' + ",".join(receipts) + "]}").encode()


def _requests(body: bytes) -> tuple[list[EntryRequest], bool]:
    """One request or a batch; whether it was one."""
    try:
        value: Any = pydantic_core.from_json(body)
    except ValueError as error:
        raise Invalid("the request's body is not JSON") from error
    try:
        if isinstance(value, dict) and "entries" in value:
            return list(_Batch.model_validate(value).entries), False
        return [EntryRequest.model_validate(value)], True
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"EntryRequest: field {where or '(body)'}: {first['msg']}") from None
