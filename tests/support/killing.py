"""The ledger killed again and again under load, and what must hold then. For tests/runtime/ledger and bench/ledger-kills.

Producers append without pause over the real process's socket and send again under the same id what got no receipt. SIGKILL comes
at any moment: while batches are written, while the log is read back, before that. After each start every receipt given since
the last look must stand in the tree; at the end the whole log is verified entry by entry against all of them.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ledger_process import Connection, Gone, Process

from folkmoot_core.entries import Actor, new_entry
from folkmoot_core.ledger import tiles
from folkmoot_core.ledger.audit import Trust, verify_log
from folkmoot_core.ledger.findings import Report
from folkmoot_core.ledger.scan import Entry
from folkmoot_core.ledger.tree import HASH_SIZE
from folkmoot_runtime.ledger.export import write_directory

PRODUCERS = 6
MOST_IN_BATCH = 12
EARLY = 0.25  # of the kills do not wait for a receipt, or for the log to open
ACTOR = Actor(kind="service", id="conductor")


@dataclass
class Outcome:
    """What became of it all."""

    kills: int = 0
    early: int = 0
    """Of these, before the log was open."""
    receipts: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Of each id, index and leaf hash."""
    lost: list[str] = field(default_factory=list)
    """What does not hold, in words."""
    sizes: list[int] = field(default_factory=list)
    """Of the checkpoint after each start."""
    seconds: float = 0.0
    report: Report | None = None

    def say(self) -> str:
        """One line."""
        return (
            f"kills={self.kills} (before the log was open: {self.early}) receipts={len(self.receipts)} "
            f"lost={len(self.lost)} checkpoints={len(self.sizes)} seconds={self.seconds:.1f}"
        )


class Killing:
    """One log, its producers, and whoever kills it."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.process = Process(directory)
        self.outcome = Outcome()
        self._rng = random.Random(seed)
        self._unseen: list[str] = []  # receipts that no look has confirmed yet
        self._target = 1
        self._enough = asyncio.Event()
        self._over = False
        self._connection = Connection(self.process.conductor)

    async def run(self, kills: int, export: Path, progress: Callable[[Outcome], None] = lambda outcome: None) -> Outcome:
        """Kill it so many times, then stop it, verify all, and leave the log as a static directory."""
        begun = time.monotonic()
        try:
            startup = await self._start()
            async with asyncio.TaskGroup() as group:
                for number in range(PRODUCERS):
                    group.create_task(self._produce(number))
                while self.outcome.kills < kills:
                    await self._kill_once(startup)
                    self.outcome.seconds = time.monotonic() - begun
                    progress(self.outcome)
                self._over = True
        except BaseException:
            await self.process.end(signal.SIGKILL)
            raise
        finally:
            self._connection.close()
        await self._finish(export)
        self.outcome.seconds = time.monotonic() - begun
        return self.outcome

    async def _start(self) -> float:
        begun = time.monotonic()
        await self.process.start()
        await self.process.wait_open()
        return time.monotonic() - begun

    async def _kill_once(self, startup: float) -> None:
        early = self._rng.random() < EARLY
        if early:  # the process has been killed before, or is: start it, and let it not come far
            await self._kill()
            await self.process.start()
            await asyncio.sleep(self._rng.random() * startup)  # not a wait for anything: the moment itself is what is tried
            self.outcome.early += not self.process.opened.is_set()
        else:
            self._target = len(self.outcome.receipts) + self._rng.randrange(1, 150)
            self._enough.clear()
            await self._enough.wait()
            await asyncio.sleep(self._rng.random() * 0.004)
        await self._kill()
        await self._start()
        try:
            await self._look()
        except Gone:
            code, said = await self.process.end(signal.SIGKILL)
            raise AssertionError(f"the ledger ended by itself with {code}: {said[-4000:]}") from None

    async def _kill(self) -> None:
        code, said = await self.process.end(signal.SIGKILL)
        assert code == -signal.SIGKILL, said
        self.outcome.kills += 1

    async def _produce(self, producer: int) -> None:
        rng = random.Random(self._rng.random())
        connection = Connection(self.process.conductor)
        number = 0
        while not self._over:
            count = rng.randrange(1, MOST_IN_BATCH)
            names = [f"fact-{producer}-{number + i}" for i in range(count)]
            number += count
            await self._append(connection, names, ["x" * rng.randrange(2000) for _ in names])
        connection.close()

    async def _append(self, connection: Connection, names: list[str], pads: list[str]) -> None:
        """The same request until there is a receipt."""
        bodies = [
            new_entry("session.start", ACTOR, id=name, data={"pad": pad}, now=1.0).model_dump(mode="json")
            for name, pad in zip(names, pads, strict=True)
        ]
        receipts = None
        while receipts is None:
            await self.process.opened.wait()
            try:
                receipts = await connection.append(bodies)
            except Gone:
                await asyncio.sleep(0)  # refused at once: let whoever starts the next process go on
        for name, receipt in zip(names, receipts, strict=True):
            self.outcome.receipts[name] = (receipt["index"], receipt["leaf"])
            self._unseen.append(name)
        if len(self.outcome.receipts) >= self._target:
            self._enough.set()

    async def _look(self) -> None:
        """Every receipt since the last look stands in the tree that was read back; no checkpoint was taken back."""
        self._connection.close()  # to the process before
        names, self._unseen = self._unseen, []
        _, signed = await self._connection.ask("GET", "/checkpoint")
        size = int(signed.split(b"\n")[1])
        if self.outcome.sizes and size < self.outcome.sizes[-1]:
            self.outcome.lost.append(f"checkpoint over {self.outcome.sizes[-1]} entries, then one over {size}")
        self.outcome.sizes.append(size)
        by_tile: dict[int, list[str]] = {}
        for name in names:
            by_tile.setdefault(self.outcome.receipts[name][0] // tiles.WIDTH, []).append(name)
        for number, members in by_tile.items():
            width = max(self.outcome.receipts[name][0] for name in members) % tiles.WIDTH + 1
            status, data = await self._connection.ask("GET", f"/{tiles.Tile(0, number, width).path()}")
            for name in members:
                index, leaf = self.outcome.receipts[name]
                at = index % tiles.WIDTH * HASH_SIZE
                if status != 200 or data[at : at + HASH_SIZE].hex() != leaf:
                    self.outcome.lost.append(f"{name}: its receipt says entry {index}, which is not there")

    async def _finish(self, export: Path) -> None:
        """Stop it as it should be stopped, start it once more, copy the log out and hold it against every receipt."""
        code, said = await self.process.end(signal.SIGTERM)
        assert code == 0, said
        await self._start()
        client = self.process.client()
        await write_directory(client.read, export)
        await client.aclose()
        await self.process.end(signal.SIGTERM)
        where: dict[str, tuple[int, str]] = {}

        def watch(position: int, entry: Entry, leaf: bytes) -> None:
            where[entry.ce.id] = (position, leaf.hex())

        self.outcome.report = verify_log(lambda path: _read(export / path), Trust(), watch=watch).report
        if not self.outcome.report.ok:
            self.outcome.lost += [f"{check.name}: {check.findings[:3]}" for check in self.outcome.report.checks if not check.ok]
        for name, receipt in self.outcome.receipts.items():
            if where.get(name) != receipt:
                self.outcome.lost.append(f"{name}: receipt {receipt}, log {where.get(name)}")
        unknown = {name for name in where if name.startswith("fact-")} - self.outcome.receipts.keys()
        self.outcome.lost += [f"{name}: in the log, and nobody had a receipt in the end" for name in unknown]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
