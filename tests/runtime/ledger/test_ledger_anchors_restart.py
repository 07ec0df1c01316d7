"""A log that is timestamped, and is stopped, started again, or has no room: a token on disk is put on record, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from anchoring import World

from folkmoot_core.errors import Unavailable
from folkmoot_runtime.durable import RealOs
from folkmoot_runtime.ledger.faults import ENOSPC, FaultyOs


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(tmp_path).open()
    yield made
    await made.log.aclose()


async def test_a_token_that_has_no_entry_yet_is_put_on_record_at_the_next_start(world: World) -> None:
    world.ledger.error = Unavailable("full", reason="VolumeFull")
    await world.look()
    assert await world.recorded("anchor") == []
    await world.record()
    await world.look(60)
    assert len(world.transport.asked) == 1  # what is owed first
    world.ledger.error = None
    world.restart()
    await world.look()
    assert [said["size"] for said in await world.recorded("anchor")] == [1, 2]
    size = world.log.size
    world.restart()
    await world.look()
    assert world.log.size == size  # the log knows the entry
    assert (await world.verified()).ok


async def test_a_restart_asks_no_sooner_than_the_cadence_says(world: World) -> None:
    await world.look()
    await world.record()
    await world.look(30)
    world.restart()
    await world.look(29)
    assert len(world.transport.asked) == 1
    await world.look(1)
    assert len(world.transport.asked) == 2


class Crash(BaseException):
    """The machine stops."""


@dataclass
class Crashing(RealOs):
    """The machine stops at this call."""

    left: int

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Crash

    def write(self, fd: int, data: bytes) -> int:
        self._count()
        return super().write(fd, data)

    def fsync(self, fd: int) -> None:
        self._count()
        super().fsync(fd)

    def replace(self, src: str, dst: str) -> None:
        self._count()
        super().replace(src, dst)


async def test_wherever_it_stops_the_next_start_ends_with_one_token_on_record(world: World) -> None:
    await world.look()
    for stop in range(20):
        await world.record()
        size = world.log.size
        world.restart(Crashing(stop))
        try:
            await world.look(60)
        except Crash:
            finished = False
        else:
            finished = True
        await world.log.publish()
        world.restart()
        await world.look(60)
        assert world.log.status().anchored_size in (size, world.log.size - 1)
        assert all(path.endswith((".tsr", ".tsq", ".pem")) or path.startswith("checkpoints/") for path in world.files())
        report = await world.verified()
        assert report.ok, [check.findings for check in report.checks]
        if finished:
            return
    pytest.fail("it never ran to its end")


async def test_a_full_volume_keeps_nothing_and_the_log_goes_on(tmp_path: Path) -> None:
    world = await World(tmp_path).open(full := FaultyOs(fail={"write": ENOSPC}))
    await world.look()
    assert world.files() == []
    assert "the token cannot be kept: No space left" in world.log.status().unanchored
    await world.record()
    for later in (1, 2):  # room for some of the files
        full.after["write"] = later
        await world.look(900)
        assert not [path for path in world.files() if path.endswith((".tsr", ".new"))]
    full.fail.clear()
    await world.look(900)
    assert world.log.status().anchored_size == world.log.size - 1
    assert (await world.verified()).ok
    assert [said["reason"] for said in await world.recorded("anchor.failed")] == ["NotKept"]
    await world.log.aclose()
