"""The witness's directory: born once, one process, keys and memory together or not at all."""

from __future__ import annotations

import itertools
import sqlite3
import stat
from pathlib import Path

import pytest
from witnessing import GrowingLog

from folkmoot_core.errors import Conflict, Unavailable
from folkmoot_core.ledger.witness import Known
from folkmoot_runtime.durable import RealOs
from folkmoot_runtime.witness.store import SqliteStore
from folkmoot_runtime.witness.volume import DATABASE, KEY, NAME, Birth, WitnessDamaged, open_volume

_numbers = itertools.count(1)
BIRTH = Birth(name=lambda: f"folkmoot-witness/{next(_numbers)}", seed=lambda: next(_numbers).to_bytes(32, "big"))


async def born(directory: Path) -> list[str]:
    volume = await open_volume(directory, BIRTH)
    await volume.close()
    return volume.identity.vkeys()


async def remember(directory: Path) -> None:
    """One log, as the operator's door would enrol it."""
    volume = await open_volume(directory, BIRTH)

    def change(_: Known | None) -> tuple[Known, None]:
        return GrowingLog().known, None

    await volume.store.enrol("tenant", GrowingLog().origin, change)
    await volume.close()


async def test_a_witness_keeps_its_name_and_its_keys(tmp_path: Path) -> None:
    first = await born(tmp_path / "w")
    assert await born(tmp_path / "w") == first
    assert first[0].startswith("folkmoot-witness/")
    assert len(set(first)) == 2
    key = (tmp_path / "w" / KEY).read_bytes()
    assert len(key) == 64
    assert key[:32] != key[32:]
    assert stat.S_IMODE((tmp_path / "w" / KEY).stat().st_mode) == 0o600
    assert await born(tmp_path / "other") != first


async def test_a_second_process_exits(tmp_path: Path) -> None:
    volume = await open_volume(tmp_path, BIRTH)
    with pytest.raises(Conflict, match="in use by another process"):
        await open_volume(tmp_path, BIRTH)
    await volume.close()
    await born(tmp_path)


async def test_keys_without_their_memory_sign_nothing(tmp_path: Path) -> None:
    await remember(tmp_path)
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(WitnessDamaged, match=r"witness\.db is missing.*Never put an older copy back"):
        await open_volume(tmp_path, BIRTH)


async def test_memory_without_its_keys_gets_no_others(tmp_path: Path) -> None:
    await remember(tmp_path)
    (tmp_path / KEY).unlink()
    with pytest.raises(WitnessDamaged, match=r"1 logs were witnessed, but witness\.key is missing"):
        await open_volume(tmp_path, BIRTH)


async def test_damaged_identities_are_refused(tmp_path: Path) -> None:
    await remember(tmp_path)
    name = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).unlink()
    with pytest.raises(WitnessDamaged, match=r"and witness\.name beside it"):
        await open_volume(tmp_path, BIRTH)
    (tmp_path / NAME).write_bytes(name)
    (tmp_path / KEY).chmod(0o604)
    with pytest.raises(WitnessDamaged, match="everybody"):
        await open_volume(tmp_path, BIRTH)
    (tmp_path / KEY).write_bytes(b"short")
    with pytest.raises(WitnessDamaged, match="64 bytes"):
        await open_volume(tmp_path, BIRTH)


class Dying(RealOs):
    """Stops the birth before one of its renames."""

    def __init__(self, after: int) -> None:
        self.left = after

    def replace(self, src: str, dst: str) -> None:
        if not self.left:
            raise OSError("the machine stopped")
        self.left -= 1
        super().replace(src, dst)


@pytest.mark.parametrize("renames", [0, 1])
async def test_a_birth_that_was_cut_short_is_gone_on_with(tmp_path: Path, renames: int) -> None:
    with pytest.raises(OSError, match="stopped"):
        await open_volume(tmp_path, BIRTH, Dying(renames))
    first = await born(tmp_path)
    assert await born(tmp_path) == first


async def test_a_newer_database_and_a_closed_one_are_not_touched(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "w.db")
    with pytest.raises(Unavailable, match="is closed"):
        await store.find("0" * 64)
    await store.open()
    await store.close()
    with pytest.raises(Unavailable, match="stopping"):
        await store.find("0" * 64)
    connection = sqlite3.connect(tmp_path / "w.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    newer = SqliteStore(tmp_path / "w.db")
    with pytest.raises(Unavailable, match="newer version"):
        await newer.open()
    await newer.close()
