"""The witness's doors over a real store: the protocol's answers, hostile requests, and two at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from witnessing import IDENTITY, NOW, WITNESS_KEYS, GrowingLog

from folkmoot_core.ledger import cosignature, note, rotation, witness
from folkmoot_core.ledger.checkpoint import open_checkpoint
from folkmoot_core.ledger.note import Ed25519Signer
from folkmoot_core.ledger.witness import Behind, Cosignatures, Refused
from folkmoot_runtime.witness.door import MAX_AT_WORK, Witness
from folkmoot_runtime.witness.interface import MemoryStore, Step, T
from folkmoot_runtime.witness.store import SqliteStore

TENANT = "3f0e8a5e-0000-4000-8000-000000000000"


@dataclass
class Clock:
    now: float = float(NOW)

    def __call__(self) -> float:
        return self.now


@dataclass
class Doors:
    """Both doors as HTTP clients, in process."""

    public: httpx2.AsyncClient
    operator: httpx2.AsyncClient
    clock: Clock
    store: SqliteStore

    async def enrol(self, log: GrowingLog, **more: Any) -> httpx2.Response:
        body = {"origin": log.origin, "vkeys": [key.vkey() for key in log.keys], **more}
        return await self.operator.put(f"/operator/v1/logs/{TENANT}", json=body)

    async def add(self, request: witness.Request) -> httpx2.Response:
        return await self.public.post("/add-checkpoint", content=request.encode())

    async def cosign(self, log: GrowingLog, old: int, size: int) -> Cosignatures | Behind | Refused:
        answer = await self.add(log.request(old, size))
        found = (answer.status_code, answer.headers["content-type"], answer.content)
        return witness.read_answer(found, log.point(size).body(), WITNESS_KEYS)


@asynccontextmanager
async def opened(store: SqliteStore) -> AsyncIterator[Doors]:
    clock = Clock()
    both = Witness(store, IDENTITY, clock)
    async with (
        httpx2.AsyncClient(transport=httpx2.ASGITransport(both.public()), base_url="http://witness") as public,
        httpx2.AsyncClient(transport=httpx2.ASGITransport(both.operator()), base_url="http://witness") as operator,
    ):
        yield Doors(public, operator, clock, store)


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    store = SqliteStore(tmp_path / "witness.db")
    await store.open()
    async with opened(store) as found:
        yield found
    await store.close()


async def test_a_log_that_grows_gets_both_cosignatures_each_time(doors: Doors) -> None:
    log = GrowingLog()
    assert (await doors.enrol(log)).status_code == 200
    size = 0
    for new in (0, 1, 2, 255, 256, 257, 300):
        doors.clock.now += 1
        found = await doors.cosign(log, size, new)
        assert isinstance(found, Cosignatures)
        assert found.keys == WITNESS_KEYS
        assert {cosignature.timestamp(line.payload) for line in note.parse_lines(found.lines)} == {int(doors.clock.now)}
        whole = log.signed(new) + found.lines.encode()
        assert open_checkpoint(whole, [*log.keys, *WITNESS_KEYS]) == log.point(new)
        size = new


async def test_an_answer_that_was_lost_is_given_again(doors: Doors) -> None:
    """The witness was killed between storing and answering: the log asks as before, learns the size, and asks from there."""
    log = GrowingLog()
    await doors.enrol(log)
    await doors.add(log.request(0, 5))  # and nobody reads the answer
    assert await doors.cosign(log, 0, 5) == Behind(5)
    assert isinstance(await doors.cosign(log, 5, 5), Cosignatures)
    assert isinstance(await doors.cosign(log, 5, 9), Cosignatures)


async def test_a_clock_that_goes_back_dates_nothing_earlier(doors: Doors) -> None:
    log = GrowingLog()
    await doors.enrol(log)
    await doors.cosign(log, 0, 5)
    doors.clock.now -= 3600
    found = await doors.cosign(log, 5, 6)
    assert isinstance(found, Cosignatures)
    assert {cosignature.timestamp(line.payload) for line in note.parse_lines(found.lines)} == {NOW}


async def test_of_two_at_once_one_wins(doors: Doors) -> None:
    """Both extend what was cosigned; together they would be a fork."""
    log = GrowingLog().grow(5)
    await doors.enrol(log)
    await doors.cosign(log, 0, 5)
    heirs = [GrowingLog(salt=salt, leaves=list(log.leaves)) for salt in (b"one", b"two", b"three", b"four")]
    answers = await asyncio.gather(*(doors.add(heir.request(5, 9)) for heir in heirs))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    assert {answer.text for answer in answers if answer.status_code == 409} == {"9\n"}
    winner = next(heir for heir, answer in zip(heirs, answers, strict=True) if answer.status_code == 200)
    served = await doors.public.get(f"/{witness.origin_hash(log.origin)}/checkpoint")
    assert open_checkpoint(served.content, log.keys) == winner.point(9)


async def test_a_smaller_checkpoint_never_rolls_back_a_larger_one(doors: Doors) -> None:
    log = GrowingLog().grow(20)
    await doors.enrol(log)
    answers = await asyncio.gather(*(doors.add(log.request(0, size)) for size in range(1, 21)))
    (won,) = [size for size, answer in enumerate(answers, 1) if answer.status_code == 200]
    for size in range(won, 21):
        assert isinstance(await doors.cosign(log, size if size == won else size - 1, size), Cosignatures)
    assert await doors.cosign(log, 3, 7) == Behind(20)


async def test_a_fork_is_refused_shown_and_never_forgotten(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    log, fork = GrowingLog(), GrowingLog(salt=b"fork ")
    await doors.enrol(log)
    await doors.cosign(log, 0, 5)
    for old, size, status in ((5, 5, 422), (5, 8, 422), (0, 5, 409), (0, 8, 409), (5, 5, 422)):
        assert (await doors.add(fork.request(old, size))).status_code == status
    assert await doors.cosign(fork, 5, 5) == Refused(422, fork=True)
    assert [record.message for record in caplog.records if record.name.startswith("folkmoot")] == ["a log has forked"]
    (report,) = (await doors.operator.get(f"/operator/v1/logs/{TENANT}")).json()["logs"]
    assert open_checkpoint(report["checkpoint"].encode(), log.keys) == log.point(5)
    assert open_checkpoint(report["fork"].encode(), log.keys) == fork.point(5)
    assert isinstance(await doors.cosign(log, 5, 6), Cosignatures), "the log that was cosigned goes on"


def hostile() -> list[tuple[bytes, int]]:
    log = GrowingLog()
    stranger = Ed25519Signer.from_seed(log.origin, b"s" * 32)
    return [
        (b"", 400),
        (b"\x00" * 100, 400),
        (b"old 0\n\nnot a note\n", 400),
        (b"old 0\n\n" + b"x" * witness.MAX_REQUEST, 413),
        (b"x" * 10_000_000, 413),
        (GrowingLog(origin="folkmoot/unknown").request(0, 3).encode(), 404),
        (replace(log.request(0, 7), checkpoint=log.point(7).sign([stranger])).encode(), 403),
        (log.request(9, 7).encode(), 400),
        (log.request(4, 7).encode(), 409),
        (replace(log.request(5, 7), proof=log.request(4, 7).proof).encode(), 422),
    ]


async def test_hostile_requests_get_their_refusal_and_change_nothing(doors: Doors) -> None:
    log = GrowingLog()
    await doors.enrol(log)
    await doors.cosign(log, 0, 5)
    before = await doors.store.logs(TENANT)
    for body, status in hostile():
        answer = await doors.public.post("/add-checkpoint", content=body)
        assert answer.status_code == status, body[:60]
        assert (answer.headers["content-type"] == witness.SIZE_TYPE) == (status == 409)
    assert await doors.store.logs(TENANT) == before


@pytest.mark.looptime
async def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(5)
        return {"type": "http.request", "body": b"old", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    scope = {"type": "http", "method": "POST", "path": "/add-checkpoint", "headers": [], "query_string": b"", "root_path": ""}
    await Witness(MemoryStore(), IDENTITY, Clock()).public()(scope, receive, send)
    assert sent[0]["status"] == 400
    assert b"within 10 s" in sent[1]["body"]


async def test_an_unknown_log_leaves_nothing_behind(doors: Doors) -> None:
    for number in range(50):
        assert (await doors.add(GrowingLog(origin=f"folkmoot/{number}").request(0, 1))).status_code == 404
    assert await doors.store.logs(TENANT) == []
    assert (await doors.public.get(f"/{witness.origin_hash('folkmoot/7')}/checkpoint")).status_code == 404


class SlowStore(SqliteStore):
    """Answers when it is told to, and says when as many stand before it as may be at work."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.full, self.released = asyncio.Event(), asyncio.Event()
        self._waiting = 0

    async def step(self, origin: str, change: Step[T]) -> T:
        self._waiting += 1
        if self._waiting == MAX_AT_WORK:
            self.full.set()
        await self.released.wait()
        return await super().step(origin, change)


async def test_more_than_can_be_at_work_are_told_to_come_back(tmp_path: Path) -> None:
    store = SlowStore(tmp_path / "witness.db")
    await store.open()
    log = GrowingLog()
    async with opened(store) as doors:
        await doors.enrol(log)
        waiting = [asyncio.create_task(doors.add(log.request(0, 1))) for _ in range(MAX_AT_WORK)]
        await store.full.wait()
        late = await doors.add(log.request(0, 1))
        store.released.set()
        answers = await asyncio.gather(*waiting)
    assert (late.status_code, late.headers["retry-after"]) == (503, "1")
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * (MAX_AT_WORK - 1)
    await store.close()


# -- the operator's door ------------------------------------------------------------------------------------------------


async def test_logs_are_enrolled_again_without_effect_and_further_ones_are_added(doors: Doors) -> None:
    log, restored = GrowingLog(), GrowingLog(origin="folkmoot/restored")
    for _ in range(2):
        answer = await doors.enrol(log)
        assert answer.json() == {"origin": log.origin, "vkeys": [key.vkey() for key in log.keys]}
    await doors.cosign(log, 0, 5)
    await doors.enrol(log)
    await doors.enrol(restored)
    assert [known.size for known in await doors.store.logs(TENANT)] == [5, 0]


async def test_another_key_needs_the_rotation_note_of_both(doors: Doors) -> None:
    log, renewed = GrowingLog(), GrowingLog(seed=b"n" * 32)
    await doors.enrol(log)
    await doors.cosign(log, 0, 5)
    refused = await doors.enrol(renewed)
    assert (refused.status_code, refused.json()["type"]) == (409, "KeyConflict")
    alone = note.sign("\n".join([rotation.HEADER, log.origin, *(key.vkey() for key in renewed.keys)]) + "\n", [renewed.signer])
    assert (await doors.enrol(renewed, rotation=alone.decode())).status_code == 409
    assert isinstance(await doors.cosign(log, 5, 6), Cosignatures)
    made = rotation.make(log.signer, renewed.signer, renewed.keys)
    for _ in range(2):  # the second time it is known
        assert (await doors.enrol(renewed, rotation=made.decode())).status_code == 200
    assert await doors.cosign(log, 6, 7) == Refused(403, fork=False)
    assert isinstance(await doors.cosign(renewed, 6, 7), Cosignatures)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"origin": "folkmoot/log", "vkeys": []},
        {"origin": "folkmoot/log", "vkeys": ["nonsense"]},
        {"origin": "folkmoot/other", "vkeys": [GrowingLog().keys[0].vkey()]},
        {"origin": "folkmoot/log", "vkeys": [GrowingLog().keys[1].vkey()]},
        {"origin": "witness.example/1", "vkeys": [WITNESS_KEYS[0].vkey()]},
        {"origin": "folkmoot/log", "vkeys": [GrowingLog().keys[0].vkey()], "more": 1},
    ],
)
async def test_what_is_no_registration_is_refused(doors: Doors, body: dict[str, Any]) -> None:
    assert (await doors.operator.put(f"/operator/v1/logs/{TENANT}", json=body)).status_code == 400
    assert await doors.store.logs(TENANT) == []


async def test_a_path_that_names_no_tenant_is_refused(doors: Doors) -> None:
    body = {"origin": "folkmoot/log", "vkeys": [GrowingLog().keys[0].vkey()]}
    for uid in ("a b", "a" * 65, "ü"):
        assert (await doors.operator.put(f"/operator/v1/logs/{uid}", json=body)).status_code == 400


async def test_the_witness_says_its_keys_and_the_doors_keep_apart(doors: Doors) -> None:
    assert (await doors.operator.get("/operator/v1/vkeys")).json() == {"vkeys": [key.vkey() for key in WITNESS_KEYS]}
    assert (await doors.public.get("/operator/v1/vkeys")).status_code == 404
    assert (await doors.operator.post("/add-checkpoint", content=b"")).status_code == 404
    for client in (doors.public, doors.operator):
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
