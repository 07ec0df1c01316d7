"""The real process: killed at any moment, asked to stop, started twice. Time passes only in waiting for its answers."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from folkmoot_core.entries import Actor, EntryRequest, Receipt, new_entry
from folkmoot_core.errors import Unavailable
from folkmoot_core.ledger import bundle, checkpoint, note, tiles, tree
from folkmoot_runtime.ledger.client import LedgerClient

KILLS = int(os.environ.get("FOLKMOOT_LEDGER_KILLS", "30"))
PRODUCERS = 8
ROOT = Path(__file__).parents[3]


class Process:
    """One ledger process after the other over one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.conductor = directory / "c.sock"
        self.router = directory / "r.sock"
        self.running: asyncio.subprocess.Process | None = None

    async def start(self) -> asyncio.subprocess.Process:
        paths = os.pathsep.join(str(ROOT / part) for part in ("core", "agents-image"))
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": paths,
            "FOLKMOOT_TENANT": "acme",
            "FOLKMOOT_NAMESPACE": "folkmoot-acme",
            "FOLKMOOT_DATA": str(self.directory / "data"),
            "FOLKMOOT_RUN": str(self.directory / "run"),
            "FOLKMOOT_TOKENS": str(self.directory / "none"),
            "FOLKMOOT_TRUST": str(self.directory / "none"),
            "FOLKMOOT_LISTEN_HOST": "127.0.0.1",
            "FOLKMOOT_LEDGER_SOCKETS": f"{self.conductor}=core/conductor,{self.router}=core/router",
        }
        self.running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "folkmoot_runtime.ledger", env=env, stderr=asyncio.subprocess.PIPE
        )
        return self.running

    async def end(self, number: signal.Signals) -> tuple[int, str]:
        """Exit code and what it said."""
        assert self.running is not None
        if self.running.returncode is None:
            self.running.send_signal(number)
        _, said = await self.running.communicate()
        assert self.running.returncode is not None
        return self.running.returncode, said.decode()

    def client(self, timeout: float = 60.0) -> LedgerClient:
        return LedgerClient(f"unix://{self.conductor}", None, None, timeout)


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


@pytest.mark.timeout(300)
async def test_no_receipt_is_lost_and_nothing_is_recorded_twice_whenever_it_is_killed(process: Process) -> None:
    """Producers append without pause while the process is killed again and again; every receipt must hold afterwards."""
    rng = random.Random(20)
    receipts: dict[str, Receipt] = {}
    enough = asyncio.Event()
    target = 0
    over = False

    async def produce(producer: int) -> None:
        number = 0
        while not over:
            name = f"{producer}-{number}"
            receipts[name] = await client.append(fact(name))
            number += 1
            if len(receipts) >= target:
                enough.set()

    client = process.client()
    await process.start()
    producers = [asyncio.create_task(produce(n)) for n in range(PRODUCERS)]
    sizes = [0]
    for _ in range(KILLS):
        target = len(receipts) + rng.randrange(1, 60)
        enough.clear()
        await enough.wait()
        code, said = await process.end(signal.SIGKILL)
        assert code == -signal.SIGKILL, said
        await process.start()
        signed = await client.read("checkpoint")  # waits for the recovery
        assert signed is not None
        sizes.append(int(signed.split(b"\n")[1]))
    over = True
    await asyncio.gather(*producers)
    code, said = await process.end(signal.SIGTERM)
    assert code == 0, said
    await process.start()
    entries = await whole_log(client)
    ids = [json.loads(entry)["ce"]["id"] for entry in entries]
    assert len(set(ids)) == len(ids)
    assert set(ids) == {f"request-{name}" for name in receipts} | {"log.opened"}
    for name, receipt in receipts.items():
        assert ids[receipt.index] == f"request-{name}"
        assert receipt.leaf == tree.leaf_hash(entries[receipt.index]).hex()
    assert sizes == sorted(sizes)  # no published checkpoint was ever taken back
    previous = "0" * 64
    for position, entry in enumerate(entries):
        value = json.loads(entry)
        assert (value["seq"], value["prev"]) == (position, previous)
        previous = tree.leaf_hash(entry).hex()
    await client.aclose()


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
    second = await other.start()
    _, said = await second.communicate()
    assert second.returncode == 1
    assert "is being written by another process" in said.decode()
    assert (await client.append(fact("2"))).index == 2
    await client.aclose()


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
    code, said = await (await process.start()).wait(), ""
    _, said = await process.end(signal.SIGTERM)
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
