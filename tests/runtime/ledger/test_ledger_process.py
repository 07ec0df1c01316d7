"""The real process: killed at any moment, asked to stop, started twice. Time passes only in waiting for its answers."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from killing import Killing
from ledger_process import Connection, Process

from folkmoot_core.entries import Actor, EntryRequest, new_entry
from folkmoot_core.errors import Unavailable
from folkmoot_core.ledger import bundle, checkpoint, note, tiles, tree
from folkmoot_runtime.ledger.client import LedgerClient

KILLS = 100
LANES = 2  # logs at a time: starting a process is most of the work, and there are two cores


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    made = Process(tmp_path)
    yield made
    if made.running is not None:
        await made.end(signal.SIGKILL)


def fact(name: str) -> EntryRequest:
    actor = Actor(kind="service", id="conductor")
    return new_entry("session.start", actor, id=f"request-{name}", data={"pad": "x" * (hash(name) % 500)}, now=1.0)


async def whole_log(client: LedgerClient) -> list[bytes]:
    """Every entry of the published log, held against its checkpoint."""
    signed, vkey = await client.read("checkpoint"), await client.read("log.vkey")
    assert signed is not None
    assert vkey is not None
    point = checkpoint.open_checkpoint(signed, note.parse_vkey(vkey.decode()))
    entries: list[bytes] = []
    for tile in tiles.tiles_of(point.size):
        if tile.level == tiles.ENTRIES:
            data = await client.read(tile.path())
            assert data is not None
            entries += bundle.decode(data, tile.width)
    assert tree.root_of([tree.leaf_hash(entry) for entry in entries]) == point.root
    return entries


@pytest.mark.timeout(600)
async def test_no_receipt_is_lost_and_nothing_is_recorded_twice_whenever_it_is_killed(tmp_path: Path) -> None:
    """`bench/ledger-kills` does the same a thousand times."""
    for lane in range(LANES):
        (tmp_path / str(lane)).mkdir()
    outcomes = await asyncio.gather(
        *(Killing(tmp_path / str(lane), seed=lane).run(KILLS // LANES, tmp_path / f"export{lane}") for lane in range(LANES))
    )
    for outcome in outcomes:
        assert outcome.lost == []
        assert outcome.kills >= KILLS // LANES
        assert outcome.early > 0
        assert len(outcome.receipts) > outcome.kills


async def test_it_stops_when_asked_and_publishes_what_it_took(process: Process) -> None:
    await process.start()
    client = process.client()
    await client.append_many([fact(str(n)) for n in range(20)])
    code, said = await process.end(signal.SIGTERM)
    assert code == 0, said
    assert (process.directory / "data/ledger/checkpoint").read_bytes().split(b"\n")[1] == b"21"
    await client.aclose()


async def test_a_second_process_exits_with_a_sentence(process: Process) -> None:
    await process.start()
    client = process.client()
    await client.append(fact("1"))
    other = Process(process.directory)
    other.conductor, other.router = process.directory / "c2.sock", process.directory / "r2.sock"
    await other.start()
    code, said = await other.ended()
    assert code == 1
    assert "is in use by another process" in said
    assert (await client.append(fact("2"))).index == 2
    await client.aclose()


async def test_a_process_whose_lock_was_removed_exits_when_another_one_writes(process: Process) -> None:
    await process.start()
    await process.wait_open()
    first, second = Connection(process.conductor), Connection(process.directory / "c2.sock")
    assert await first.append([fact("1").model_dump(mode="json")]) is not None
    (process.log / "lock").unlink()
    other = Process(process.directory)
    other.conductor, other.router = process.directory / "c2.sock", process.directory / "r2.sock"
    await other.start()
    await other.wait_open()
    assert await first.append([fact("2").model_dump(mode="json")]) is None
    code, said = await process.ended()
    assert code == 1
    assert "another one has opened the log" in said
    assert "Traceback" not in said
    receipts = await second.append([fact("3").model_dump(mode="json")])
    assert receipts is not None
    assert receipts[0]["index"] == 2
    first.close()
    second.close()
    await other.end(signal.SIGKILL)


async def test_a_damaged_log_is_not_served(process: Process) -> None:
    await process.start()
    client = process.client()
    await client.append(fact("1"))
    await client.append(fact("2"))
    await process.end(signal.SIGTERM)
    segment = process.directory / "data/ledger/wal-000000"
    data = bytearray(segment.read_bytes())
    data[600] ^= 1
    segment.write_bytes(data)
    await process.start()
    code, said = await process.ended()
    assert code == 1
    assert "Repair:" in said
    assert "Traceback" not in said
    await client.aclose()


async def test_each_socket_has_its_producer_and_the_conductors_alone_closes(process: Process) -> None:
    await process.start()
    conductor = process.client()
    router = LedgerClient(f"unix://{process.router}", None, None, 60.0)
    await conductor.append(fact("1"))
    receipt = await router.append(fact("1").model_copy(update={"type": "bus.refused"}))
    assert receipt.index == 2  # another producer, so another fact
    sources = [json.loads(entry)["obs"]["id"] for entry in await settled(conductor, 3)]
    assert sources == ["core/ledger", "core/conductor", "core/router"]
    with pytest.raises(Exception, match="may not close"):
        await router.close_log()
    assert await conductor.close_log() == 4
    await conductor.aclose()
    await router.aclose()


async def settled(client: LedgerClient, size: int) -> list[bytes]:
    """The log once its checkpoint covers `size` entries."""
    while len(entries := await whole_log(client)) < size:
        await asyncio.sleep(0.05)
    return entries


async def test_a_ledger_that_is_not_there_is_unavailable_within_the_clients_time(process: Process) -> None:
    client = process.client(timeout=0.2)
    with pytest.raises(Unavailable, match="no receipt within"):
        await client.append(fact("1"))
    await client.aclose()
