"""One batch behind another: no receipt before its own sync, nothing written behind what was not, and every receipt true at the end."""

from __future__ import annotations

import asyncio
import errno
import json
import random
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from folkmoot_core.entries import Actor, Producer, new_entry
from folkmoot_core.errors import FolkmootError, Unavailable
from folkmoot_core.ledger.envelope import Prepared, prepare
from folkmoot_core.ledger.sequence import Sequence as State
from folkmoot_core.ledger.tiles import Rows
from folkmoot_core.ledger.tree import leaf_hash
from folkmoot_runtime.durable import RealOs
from folkmoot_runtime.ledger.columns import Columns
from folkmoot_runtime.ledger.segments import SMALLEST_SEGMENT
from folkmoot_runtime.ledger.waiting import Admission, Lot, Waiting, durable_lot
from folkmoot_runtime.ledger.wal import Wal
from folkmoot_runtime.ledger.writer import Writer

LIMIT = 4  # entries of a batch, and so many are worth one behind another
NAMES = iter(range(1 << 30))


def some(count: int, pad: int = 10) -> list[Prepared]:
    actor, producer = Actor(kind="service", id="conductor"), Producer(id="core/conductor")
    requests = [
        new_entry("task.sent", actor, id=f"request-{next(NAMES)}", data={"pad": "x" * pad}, now=1.0) for _ in range(count)
    ]
    return [prepare(request, origin="folkmoot/x", producer=producer) for request in requests]


class Gate(RealOs):
    """Each sync waits until it is let through, and fails with what is set."""

    def __init__(self) -> None:
        self.through = threading.Event()
        self.through.set()
        self.reached = threading.Event()
        self.sync_fails = self.write_fails = 0
        self.writes = 0

    def pwritev(self, fd: int, buffers: Sequence[bytes], offset: int) -> int:
        self.writes += 1
        if self.write_fails:
            self.reached.set()
            assert self.through.wait(60)
            failing, self.write_fails = self.write_fails, 0
            raise OSError(failing, "as the test wants")
        return super().pwritev(fd, buffers, offset)

    def fdatasync(self, fd: int) -> None:
        self.reached.set()
        assert self.through.wait(60)
        if self.sync_fails:
            raise OSError(self.sync_fails, "as the test wants")
        super().fdatasync(fd)

    def close_gate(self) -> None:
        self.reached.clear()
        self.through.clear()


@dataclass
class Bench:
    """A writer over a real log, without the rest of a ledger."""

    directory: Path
    calls: Gate = field(default_factory=Gate)
    refused: int = 0
    failure: str = ""

    def __post_init__(self) -> None:
        self.wal = Wal(self.calls, self.directory, Columns(self.calls, self.directory), SMALLEST_SEGMENT)
        self.wal.open()
        self.state = State(Rows(self.wal.columns.row), self.wal.columns.store())
        self.wal.recover(self.state.accept)
        self.waiting = Waiting()
        self.writer = Writer(self.wal, self.state, self.waiting, self, clock=lambda: 1.0, limit=LIMIT)
        self.running = asyncio.create_task(self.writer.run())

    def append(self, prepared: Sequence[Prepared]) -> Admission:
        admission = self.waiting.resolve(prepared, self)
        self.writer.admit(admission.fresh)
        return admission

    def suspects(self, keys: Sequence[bytes]) -> list[int]:
        return self.state.suspects(keys)

    def find(self, key: bytes) -> Lot | None:
        found = self.state.find(key, lambda position: self.wal.read(position, 1)[0])
        return None if found is None else durable_lot(found[1], found[0], self.state.rows.leaf(found[0]))

    def written(self) -> None:
        pass

    def full(self, refused: int) -> None:
        self.refused += refused

    def failed(self, why: str) -> None:
        self.failure = why
        self.writer.stop(Unavailable("it failed", reason="SyncFailed"))

    async def blocked(self, count: int = LIMIT) -> Admission:
        """A batch whose sync is under way."""
        self.calls.close_gate()
        first = self.append(some(count))
        assert await asyncio.to_thread(self.calls.reached.wait, 60)
        return first

    async def end(self) -> None:
        self.calls.through.set()
        self.writer.close()
        await self.running
        self.writer.shutdown()
        self.wal.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    await made.append(some(1)).durable()
    yield made
    await made.end()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def outcome(admission: Admission) -> list[int] | str:
    try:
        return [receipt.index for receipt in await admission.receipts()]
    except FolkmootError as error:
        return error.reason


async def test_the_next_batch_is_made_while_one_syncs_and_a_third_is_not(bench: Bench) -> None:
    first = await bench.blocked()
    second, third = bench.append(some(LIMIT)), bench.append(some(LIMIT))
    await turns()
    assert (bench.state.sealed, len(bench.state)) == (1 + 2 * LIMIT, 1)
    assert first.then(lambda: None)  # nothing has its receipt
    bench.calls.through.set()
    assert [await outcome(one) for one in (first, second, third)] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]


async def test_few_entries_wait_for_the_sync_and_become_more(bench: Bench) -> None:
    first = await bench.blocked()
    others = [bench.append(some(1)) for _ in range(LIMIT - 1)]
    await turns()
    assert bench.state.sealed == 1 + LIMIT
    bench.calls.through.set()
    assert [await outcome(one) for one in (first, *others)] == [[1, 2, 3, 4], [5], [6], [7]]


async def test_behind_a_batch_that_found_no_room_nothing_is_written(bench: Bench) -> None:
    bench.calls.write_fails = errno.ENOSPC
    first = await bench.blocked()
    second, third = bench.append(some(LIMIT)), bench.append(some(1))
    await turns()
    bench.calls.through.set()
    assert [await outcome(one) for one in (first, second, third)] == ["VolumeFull", "VolumeFull", [1]]
    assert (bench.refused, bench.failure) == (2 * LIMIT, "")
    again = bench.append([*first.fresh.prepared, *second.fresh.prepared])
    assert await outcome(again) == list(range(2, 2 + 2 * LIMIT))


@pytest.mark.parametrize("kind", ["sync_fails", "write_fails"])
async def test_behind_a_failed_batch_nothing_is_written_ever(bench: Bench, kind: str) -> None:
    setattr(bench.calls, kind, errno.EIO)
    first = await bench.blocked()
    second, third = bench.append(some(LIMIT)), bench.append(some(LIMIT))
    await turns()
    writes = bench.calls.writes
    bench.calls.through.set()
    assert {await outcome(one) for one in (first, second, third)} == {"SyncFailed"}
    assert "failed" in bench.failure
    await bench.running
    bench.writer.shutdown()
    assert bench.calls.writes == writes
    assert bench.wal.size == 1


async def test_what_is_in_flight_is_known_and_its_receipt_is_the_same(bench: Bench) -> None:
    first = await bench.blocked()
    again = bench.append([first.fresh.prepared[2], *some(1), first.fresh.prepared[0]])
    bench.calls.through.set()
    assert await outcome(again) == [3, 5, 1]
    assert [receipt.duplicate for receipt in await again.receipts()] == [True, False, True]


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_refused_every_receipt_holds_and_every_entry_has_one(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    bench = Bench(tmp_path)
    admissions: list[Admission] = []
    for _ in range(120):
        if rng.random() < 0.15:
            bench.calls.write_fails = errno.ENOSPC
        old = [one for admission in rng.sample(admissions, min(len(admissions), 2)) for one in admission.fresh.prepared[:2]]
        admissions.append(bench.append([*(old if rng.random() < 0.3 else []), *some(rng.randrange(1, 11), rng.randrange(2000))]))
        if rng.random() < 0.4:
            await asyncio.sleep(0)
        if rng.random() < 0.2:
            await outcome(rng.choice(admissions))
    found = [await outcome(one) for one in admissions]
    await bench.end()
    assert not bench.failure
    again = Bench(tmp_path, Gate())
    entries = again.wal.read(0, again.wal.size) if again.wal.size else []
    previous = "0" * 64
    for position, entry in enumerate(entries):
        value = json.loads(entry)
        assert (value["seq"], value["prev"]) == (position, previous)
        previous = leaf_hash(entry).hex()
    ids = [json.loads(entry)["ce"]["id"] for entry in entries]
    assert len(set(ids)) == len(ids)
    receipts = [index for one in found if not isinstance(one, str) for index in one]
    refused = {one.id for admission in admissions if admission.error is not None for one in admission.fresh.prepared}
    assert {ids[index] for index in receipts} | (refused & set(ids)) == set(ids)
    for admission, one in zip(admissions, found, strict=True):
        if not isinstance(one, str):
            assert [leaf for _, leaf, _ in admission.results()] == [leaf_hash(entries[index]) for index in one]
    await again.end()
