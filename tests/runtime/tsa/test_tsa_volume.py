"""The authority's directory and its door: made once, never started over, and no token that is not remembered first."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from folkmoot_core.errors import Conflict, FolkmootError
from folkmoot_core.ledger import timestamp
from folkmoot_core.ledger.timestamp_token import response_type
from folkmoot_runtime.ledger.faults import ENOSPC, FaultyOs
from folkmoot_runtime.tsa.door import MAX_AT_WORK, Authority
from folkmoot_runtime.tsa.volume import CHAIN, KEY, LAST, AuthorityDamaged, Birth, Volume, open_volume

START = 1_800_000_000.0
DATA = b"a checkpoint"


@dataclass
class World:
    """One authority over one directory; `now` is moved."""

    directory: Path
    now: float = START
    calls: FaultyOs = field(default_factory=FaultyOs)
    volume: Volume | None = None

    def open(self) -> Authority:
        self.close()
        self.volume = open_volume(self.directory, Birth("Of a test", lambda: self.now, lambda bits: bits), self.calls)
        return Authority(self.volume, lambda: self.now, lambda bits: 5)

    def close(self) -> None:
        if self.volume is not None:
            self.volume.close()
        self.volume = None

    def pinned(self) -> timestamp.Authority:
        return timestamp.read_authority("own", (self.directory / CHAIN).read_text())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "tsa")
    yield made
    made.close()


async def token(authority: Authority, world: World, nonce: int = 9) -> timestamp.Token:
    return timestamp.verify(await authority.answer(timestamp.query(DATA, nonce)), DATA, world.pinned(), nonce)


def word(response: bytes) -> set[str]:
    return set(response_type().load(response)["status"]["fail_info"].native)


async def test_numbers_rise_and_times_never_fall_across_restarts(world: World) -> None:
    seen = []
    for _ in range(3):
        authority = world.open()
        for _ in range(2):
            seen.append(await token(authority, world))
            world.now += 0.4
        authority.close()
    serials = [one.serial for one in seen]
    assert serials == [(n << 64) + 5 for n in range(1, 7)]
    assert [one.gen_time for one in seen] == sorted(one.gen_time for one in seen)
    assert stat.S_IMODE((world.directory / KEY).stat().st_mode) == 0o600
    assert seen[0].signer == "CN=Of a test"


async def test_a_clock_that_was_set_back_gives_no_token_until_it_has_passed(world: World) -> None:
    await token(world.open(), world)
    world.now -= 100
    authority = world.open()
    assert word(await authority.answer(timestamp.query(DATA, 1))) == {"time_not_available"}
    world.now += 100
    assert (await token(authority, world)).serial >> 64 == 2


async def test_no_token_is_given_out_that_is_not_remembered(world: World) -> None:
    authority = world.open()
    world.calls.fail["replace"] = ENOSPC
    assert word(await authority.answer(timestamp.query(DATA, 1))) == {"system_failure"}
    world.calls.fail.clear()
    assert (await token(authority, world)).serial >> 64 == 1


async def test_what_is_refused_spends_no_number(world: World) -> None:
    authority = world.open()
    assert word(await authority.answer(b"nonsense")) == {"bad_data_format"}
    assert word(await authority.answer(timestamp.query(DATA, 1, "1.2.3"))) == {"unaccepted_policy"}
    assert json.loads((world.directory / LAST).read_bytes())["number"] == 0


def test_a_second_process_does_not_get_in(world: World) -> None:
    world.open()
    with pytest.raises(Conflict, match="in use by another process"):
        open_volume(world.directory, Birth("x", lambda: START, lambda bits: 1))


def lose(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def write(name: str, data: bytes) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        (directory / name).write_bytes(data)

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lose(KEY), "tokens were given out, but tsa.key is missing"), (lose(CHAIN), "chain.pem is missing"), (lose(LAST), "last.json is missing"),
        (write(KEY, b"x"), "cannot be read"), (write(CHAIN, b"x"), "not readable PEM"), (write(LAST, b"{}"), "last.json cannot be read"),
        (write(LAST, b'{"number":-1,"time":0}'), "below zero"), (lambda directory: (directory / KEY).chmod(0o644), "read by everybody"),
    ],
)  # fmt: skip
async def test_what_is_not_whole_is_not_continued(world: World, change: Callable[[Path], None], sentence: str) -> None:
    await token(world.open(), world)
    world.close()
    change(world.directory)
    with pytest.raises(AuthorityDamaged, match=sentence) as refused:
        world.open()
    assert "start with an empty one" in refused.value.message


def test_a_birth_that_was_cut_short_is_begun_again(world: World) -> None:
    for stop in range(3):
        world.calls.fail, world.calls.after = {"replace": ENOSPC}, {"replace": stop}
        with pytest.raises(OSError, match="No space"):
            world.open()
    world.calls.fail.clear()
    world.open()
    assert world.pinned().leaf.subject.rfc4514_string() == "CN=Of a test"


async def test_the_door_speaks_the_protocol_and_bounds_what_it_takes(world: World) -> None:
    authority = world.open()
    transport = httpx2.ASGITransport(authority.app())
    async with httpx2.AsyncClient(transport=transport, base_url="http://tsa") as client:
        kind = {"Content-Type": "application/timestamp-query"}
        answer = await client.post("/", content=timestamp.query(DATA, 7), headers=kind)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/timestamp-reply")
        chain = (await client.get("/chain.pem")).text
        assert timestamp.verify(answer.content, DATA, timestamp.read_authority("own", chain), 7).nonce == 7
        assert (await client.post("/", content=timestamp.query(DATA, 7))).status_code == 400
        assert (await client.post("/", content=b"x" * 70_000, headers=kind)).status_code == 429
        assert (await client.get("/")).status_code == 405
        many = await asyncio.gather(
            *(client.post("/", content=timestamp.query(DATA, n + 1), headers=kind) for n in range(2 * MAX_AT_WORK))
        )
    codes = [answer.status_code for answer in many]
    assert set(codes) <= {200, 503}
    assert codes.count(200) >= MAX_AT_WORK
    serials = [response_type().load(one.content) for one in many if one.status_code == 200]
    tokens = [timestamp.verify(one.content, DATA, world.pinned(), None).serial for one in many if one.status_code == 200]
    assert len(set(tokens)) == len(tokens) == len(serials)


async def test_who_sends_slowly_takes_nobodys_place(world: World) -> None:
    started = asyncio.Semaphore(0)

    async def slow() -> AsyncIterator[bytes]:
        started.release()
        await asyncio.Event().wait()
        yield b""

    kind = {"Content-Type": timestamp.QUERY_TYPE}
    door = httpx2.ASGITransport(app=world.open().app())
    async with httpx2.AsyncClient(transport=door, base_url="https://tsa") as client:
        crowd = [asyncio.create_task(client.post("/", content=slow(), headers=kind)) for _ in range(MAX_AT_WORK)]
        for _ in crowd:
            await started.acquire()
        assert (await client.post("/", content=timestamp.query(DATA, 9), headers=kind)).status_code == 200
        for one in crowd:
            one.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)


def test_no_error_shows_the_key(world: World) -> None:
    world.open()
    world.close()
    secret = (world.directory / KEY).read_bytes()
    (world.directory / CHAIN).write_bytes(b"x")
    with pytest.raises(FolkmootError) as refused:
        world.open()
    assert secret.hex() not in repr(refused.value)
