"""One suite for every store of a witness: SQLite on a disk and its twin in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from witnessing import GrowingLog, after

from folkmoot_core.errors import Invalid, LimitReached
from folkmoot_core.ledger import witness
from folkmoot_core.ledger.witness import Known
from folkmoot_runtime.witness.interface import MAX_LOGS_PER_TENANT, MemoryStore, Store
from folkmoot_runtime.witness.store import SqliteStore

pytestmark = pytest.mark.contract
LOG = GrowingLog().grow(9)
MOST = 20


@pytest.fixture(params=["sqlite", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore(MOST)
        return
    opened = SqliteStore(tmp_path / "witness.db", MOST)
    await opened.open()
    yield opened
    await opened.close()


async def look(store: Store, origin: str) -> Known | None:
    def change(known: Known | None) -> tuple[None, Known | None]:
        return None, known

    return await store.step(origin, change)


async def put(store: Store, known: Known) -> None:
    def change(_: Known | None) -> tuple[Known, None]:
        return known, None

    await store.step(known.origin, change)


async def enrol(store: Store, tenant: str, known: Known) -> None:
    def change(before: Known | None) -> tuple[Known | None, None]:
        return (known if before is None else None), None

    await store.enrol(tenant, known.origin, change)


async def test_what_is_stored_comes_back_whole(store: Store) -> None:
    assert await look(store, LOG.origin) is None
    for known in (
        LOG.known,
        after(LOG, 5),
        replace(after(LOG, 7), fork=b"another note", seconds=2**40),
        replace(LOG.known, size=2**63 - 1),
    ):
        await put(store, known)
        assert await look(store, LOG.origin) == known
        assert await store.find(witness.origin_hash(LOG.origin)) == known
    assert await store.find("0" * 64) is None


async def test_a_step_that_fails_changes_nothing(store: Store) -> None:
    await put(store, LOG.known)

    def change(known: Known | None) -> tuple[Known, None]:
        assert known is not None
        raise Invalid("no")

    with pytest.raises(Invalid):
        await store.step(LOG.origin, change)
    with pytest.raises(Invalid):
        await store.enrol("tenant", LOG.origin, change)
    assert await look(store, LOG.origin) == LOG.known
    assert await store.logs("tenant") == []


async def test_steps_on_one_log_never_lose_one_another(store: Store) -> None:
    """Each step adds one to what it finds; if two had found the same, the sum would be short."""
    await put(store, LOG.known)

    def add(known: Known | None) -> tuple[Known, int]:
        assert known is not None
        return replace(known, size=known.size + 1), known.size

    found = await asyncio.gather(*(store.step(LOG.origin, add) for _ in range(50)))
    assert sorted(found) == list(range(50))
    after_all = await look(store, LOG.origin)
    assert after_all is not None
    assert after_all.size == 50


async def test_a_tenants_logs_are_listed_by_origin(store: Store) -> None:
    for origin in ("folkmoot/b", "folkmoot/a"):
        await enrol(store, "acme", GrowingLog(origin=origin).known)
    await enrol(store, "acme", GrowingLog(origin="folkmoot/a").known)
    await enrol(store, "globex", GrowingLog(origin="folkmoot/a").known)
    assert [known.origin for known in await store.logs("acme")] == ["folkmoot/a", "folkmoot/b"]
    assert [known.origin for known in await store.logs("globex")] == ["folkmoot/a"]
    assert await store.logs("nobody") == []


async def test_one_tenants_flood_of_logs_ends(store: Store) -> None:
    for number in range(MAX_LOGS_PER_TENANT):
        await enrol(store, "acme", GrowingLog(origin=f"folkmoot/{number}").known)
    with pytest.raises(LimitReached, match="at most 16"):
        await enrol(store, "acme", GrowingLog(origin="folkmoot/more").known)
    assert await look(store, "folkmoot/more") is None
    await enrol(store, "acme", GrowingLog(origin="folkmoot/3").known)
    for number in range(MOST - MAX_LOGS_PER_TENANT):
        await enrol(store, f"tenant-{number}", GrowingLog(origin=f"folkmoot/of-{number}").known)
    with pytest.raises(LimitReached, match="at most 20"):
        await enrol(store, "last", GrowingLog(origin="folkmoot/last").known)
