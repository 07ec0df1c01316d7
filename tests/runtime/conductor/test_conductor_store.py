"""Database and artefact files: all or nothing, durable, and honest about damage. With real threads."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from folkmoot_core.canonical import digest
from folkmoot_core.errors import Invalid, LimitReached, Missing, Unavailable
from folkmoot_core.messages import WorkspaceManifest
from folkmoot_runtime.conductor import rows, sealed_rows
from folkmoot_runtime.conductor.blobs import Artefacts, File
from folkmoot_runtime.conductor.store import Store
from folkmoot_runtime.conductor.vault import Vault, VaultOptions


async def opened(directory: Path) -> Store:
    store = Store(directory / "sub" / "c.sqlite")
    await store.open()
    return store


async def artefact_store(store: Store, directory: Path, clock: Callable[[], float] = lambda: 1000.0) -> Artefacts:
    """One with two sessions, `s` and `t`, each its own subject."""
    vault = Vault(store, VaultOptions(directory / "keys", clock, lambda: "tenant/t"))
    await vault.open()
    for session in ("s", "t"):
        await store.run(sealed_rows.assign_subject, session, None, None, f"ref-{session}", 0)
    return Artefacts(store, vault, directory / "blobs", clock)


async def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    store = await opened(tmp_path)

    def half(db: sqlite3.Connection) -> None:
        rows.set_meta(db, "a", "1")
        raise Invalid("no")

    with pytest.raises(Invalid):
        await store.run(half)
    assert await store.run(rows.get_meta, "a") is None
    await store.close()


async def test_counters_and_fences_rise_over_restarts(tmp_path: Path) -> None:
    seen = []
    for _ in range(3):
        store = await opened(tmp_path)
        seen.append((await store.run(rows.next_number, "n"), await store.run(rows.grant_lease, "sandbox-a", "s", "nonce")))
        await store.close()
    assert seen == [(1, 1), (2, 2), (3, 3)]


async def test_calls_are_executed_in_their_order(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    assert await asyncio.gather(*(store.run(rows.next_number, "n") for _ in range(50))) == list(range(1, 51))
    await store.close()


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    store = await opened(tmp_path)

    def pragmas(db: sqlite3.Connection) -> tuple[Any, ...]:
        return tuple(db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode"))

    assert await store.run(pragmas) == (2, "wal")
    await store.close()


async def test_a_newer_database_and_a_closed_one_are_refused(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.run(lambda db: db.execute("PRAGMA user_version=99"))
    await store.close()
    with pytest.raises(Unavailable, match="newer version"):
        await opened(tmp_path)
    with pytest.raises(RuntimeError):
        await store.run(rows.get_meta, "a")


async def test_blobs(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    artefacts = await artefact_store(store, tmp_path)
    names = await asyncio.gather(*(artefacts.put("s", b"same") for _ in range(5)))
    assert set(names) == {digest(b"same")}
    assert await artefacts.get(names[0]) == b"same"
    (file,) = [p for p in (tmp_path / "blobs").rglob("*") if p.is_file()]
    assert digest(file.read_bytes()) == f"sha256:{file.name}" != names[0]
    assert b"same" not in file.read_bytes()
    with pytest.raises(Missing):
        await artefacts.get(digest(b"other"))
    with pytest.raises(LimitReached):
        await artefacts.put("s", b"x" * (10 * 1024 * 1024 + 1))
    for bad in ("sha256:../../etc/passwd", "", "sha256:", "sha256:" + "G" * 64):
        with pytest.raises(Invalid):
            await artefacts.get(bad)
    file.write_bytes(b"evil")
    with pytest.raises(Unavailable):
        await artefacts.get(names[0])
    await artefacts.put("s", b"same")
    assert await artefacts.get(names[0]) == b"same"
    await store.close()


async def test_workspaces_are_whole_or_refused(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    artefacts = await artefact_store(store, tmp_path)
    files = {"b": File(b"2", False), "a/x": File(b"1", True)}
    name, manifest = await artefacts.put_workspace("s", files)
    assert name == digest(manifest.canonical())
    assert await artefacts.files(name) == files
    assert await artefacts.files(None) == {}
    with pytest.raises(Invalid):
        await artefacts.manifest(await artefacts.put("s", b"no manifest"))
    absent = WorkspaceManifest.model_validate({"files": [{"path": "a", "digest": digest(b"never"), "size": 5}]})
    with pytest.raises(Missing):
        await artefacts.manifest(await artefacts.put("s", absent.canonical()))
    twice = WorkspaceManifest(files=(manifest.files[0], manifest.files[0]))
    with pytest.raises(Invalid):
        await artefacts.manifest(await artefacts.put("s", twice.canonical()))
    huge = WorkspaceManifest(files=(manifest.files[0].model_copy(update={"size": 10**9}),))
    with pytest.raises(LimitReached):
        await artefacts.files(await artefacts.put("s", huge.canonical()))
    await store.close()


async def test_the_sweep_takes_only_what_nobody_needs(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    now = [1000.0]
    artefacts = await artefact_store(store, tmp_path, lambda: now[0])
    kept, stray, again = [await artefacts.put("s", c) for c in (b"kept", b"stray", b"again")]
    await store.run(lambda db: db.execute("DELETE FROM artefact_refs WHERE digest <> ?", (kept,)))
    now[0] = 2000.0
    await artefacts.put("s", b"again")
    await store.run(lambda db: db.execute("DELETE FROM artefact_refs WHERE digest <> ?", (kept,)))
    assert await artefacts.sweep(1500.0) == 1
    assert await artefacts.get(kept) == b"kept"
    assert await artefacts.get(again) == b"again"
    with pytest.raises(Missing):
        await artefacts.get(stray)
    assert len([p for p in (tmp_path / "blobs").rglob("*") if p.is_file()]) == 2
    await store.close()


async def test_a_volume_of_the_version_before_sealing_is_refused(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.run(lambda db: db.execute("PRAGMA user_version=1"))
    await store.close()
    with pytest.raises(Unavailable, match="unreleased version"):
        await opened(tmp_path)


async def test_content_of_one_subject_is_not_drawn_into_another_by_its_digest(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    artefacts = await artefact_store(store, tmp_path)
    name = await artefacts.put("s", b"of s")
    with pytest.raises(Missing):
        await artefacts.keep("t", [name])
    with pytest.raises(Missing):
        await artefacts.opened_for("t", name)
    assert await artefacts.put("t", b"of s") == name
    assert len([p for p in (tmp_path / "blobs").rglob("*") if p.is_file()]) == 2
    with pytest.raises(Missing):
        await artefacts.put("nobody", b"x")
    await store.close()


async def test_what_a_crash_left_behind_is_removed(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    artefacts = await artefact_store(store, tmp_path)
    name = await artefacts.put("s", b"kept")
    (tmp_path / "blobs" / "ff").mkdir(exist_ok=True)
    (tmp_path / "blobs" / "ff" / ("f" * 64)).write_bytes(b"stray")
    assert await artefacts.remove_strays() == 1
    assert await artefacts.get(name) == b"kept"
    await store.close()
