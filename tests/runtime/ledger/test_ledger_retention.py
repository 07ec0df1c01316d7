"""The end of reading: on record first, derived from the log alone, and every proof still works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from folkmoot_core.document import AuditEntry
from folkmoot_core.entries import Actor, Producer, new_entry
from folkmoot_core.errors import FolkmootError, Unavailable
from folkmoot_core.ledger import bundle, retention
from folkmoot_core.ledger.retention import State
from folkmoot_runtime.ledger.log import Options, open_log
from folkmoot_runtime.ledger.retention import Retention
from folkmoot_runtime.ledger.twin import MemoryLog

CONDUCTOR = Producer(id="core/conductor")
YEAR = 400 * 86_400.0
START = 1_790_000_000.0


class World:
    def __init__(self, path: Path) -> None:
        self.now = START
        self.path = path
        self.terms: AuditEntry | None = AuditEntry(retention_days=1)
        self.log = MemoryLog("acme", lambda: self.now)

    def retention(self) -> Retention:
        return Retention(self.log, self.path, lambda: self.terms, lambda: self.now)

    async def write(self, count: int, kind: Any = "session.start", **data: Any) -> None:
        size = self.log.size
        requests = [
            new_entry(kind, Actor(kind="service", id="conductor"), id=f"entry-{size + n:08d}", data=data, now=self.now)
            for n in range(count)
        ]
        await self.log.append(requests, CONDUCTOR)
        await self.log.publish()

    async def prunings(self) -> list[dict[str, Any]]:
        """What the log says, from the bundles that are still given out."""
        import json

        found = []
        for index in range(self.log.minimum // 256, -(-self.log.size // 256)):
            width = min(256, self.log.size - index * 256)
            data = await self.log.read(f"tile/entries/{index:03d}" + ("" if width == 256 else f".p/{width}"))
            assert data is not None
            found += [json.loads(raw) for raw in bundle.decode(data)]
        return [e["data"] for e in found if e["ce"]["type"] == retention.PRUNED]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "retention.json")


async def test_old_bundles_are_denied_after_it_is_on_record(world: World) -> None:
    await world.write(700)
    world.now += 183 * 86_400.0
    assert await world.retention().look() == 0  # the floor, though the document says one day
    world.now += 2 * 86_400.0
    await world.write(10)
    assert await world.retention().look() == 512
    (said,) = await world.prunings()
    assert (said["first"], said["minimum"], said["days"], said["before"]) == (512, 512, 184, 0)
    for index, there in ((0, False), (1, False), (2, True)):
        assert (await world.log.read(f"tile/entries/{index:03d}.p/100") is not None) == there
    assert await world.log.read("tile/entries/000") is None
    assert await world.log.read("tile/0/000") is not None
    assert await world.log.read("tile/0/001") is not None
    assert await world.retention().look() == 512
    assert len(await world.prunings()) == 1


async def test_without_terms_or_under_a_hold_nothing_moves(world: World) -> None:
    await world.write(600)
    await world.write(1, "legal.hold", hold="h1", scope="tenant")
    world.now += YEAR
    world.terms = None
    await world.write(1)
    assert await world.retention().look() == 0
    world.terms = AuditEntry()
    assert await world.retention().look() == 0
    await world.write(1, "legal.hold.released", hold="h1")
    assert await world.retention().look() == 512


async def test_what_it_knows_it_has_from_the_log(world: World) -> None:
    """The file is lost, or is nonsense, or the process died between the entry and the file."""
    await world.write(600)
    world.now += YEAR
    await world.write(1)
    before = world.path
    first = world.retention()
    assert await first.look() == 512
    for content in (None, b"", b"{}", b'{"scanned":3,"minimum":9,"holds":[]}', b'{"scanned":600,"minimum":0,"holds":[]}'):
        world.log.minimum = 0
        before.unlink(missing_ok=True)
        if content is not None:
            before.write_bytes(content)
        await world.log.publish()
        again = world.retention()
        assert await again.look() == 512
        assert again.state.scanned == world.log.size
    assert len(await world.prunings()) == 1


async def test_a_closed_log_is_not_pruned(world: World) -> None:
    await world.write(600)
    world.now += YEAR
    await world.log.close_log()
    assert await world.retention().look() == 0


async def test_a_log_that_does_not_answer_ends_nothing(world: World) -> None:
    await world.write(600)
    world.now += YEAR
    await world.write(1)

    class Away:
        minimum = 0

        def __init__(self) -> None:
            self.read = world.log.read

        async def append(self, *_: Any) -> Any:
            raise Unavailable("full")

    away = Away()
    task = Retention(away, world.path, lambda: world.terms, lambda: world.now)
    with pytest.raises(FolkmootError):
        await task.look()
    assert away.minimum == 0
    world.log._published = None
    assert await Retention(world.log, world.path.with_name("other"), lambda: None, lambda: world.now).look() == 0


async def test_the_log_on_a_volume_denies_the_same(tmp_path: Path) -> None:
    now = [START]
    log = await open_log(tmp_path / "ledger", Options(tenant="acme", clock=lambda: now[0]))
    actor = Actor(kind="service", id="conductor")
    for n in range(2):
        batch = [new_entry("session.start", actor, id=f"entry-{n}-{i:05d}", data={}, now=now[0]) for i in range(300)]
        await log.append(batch, CONDUCTOR)
    now[0] += YEAR
    await log.append([new_entry("session.end", actor, id="entry-last", data={}, now=now[0])], CONDUCTOR)
    await log.publish()
    task = Retention(log, tmp_path / "retention.json", AuditEntry, lambda: now[0])
    assert await task.look() == 512
    assert await log.read("tile/entries/001") is None
    assert await log.read("tile/0/001") is not None
    await log.aclose()
    again = await open_log(tmp_path / "ledger", Options(tenant="acme", clock=lambda: now[0]))
    await Retention(again, tmp_path / "retention.json", AuditEntry, lambda: now[0]).look()
    assert await again.read("tile/entries/001") is None
    assert task.state._replace(scanned=0) == State(0, 512)
    await again.aclose()
