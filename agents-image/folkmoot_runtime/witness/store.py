"""The witness's memory: SQLite in one writer thread, every step one transaction that is on disk before it is answered.

synchronous=FULL with a write-ahead log syncs at each commit: a machine that stops loses no cosigned size. What an attacker who
can write this file could do: make the witness forget a history and cosign another one. So it lies on another volume, in another
namespace, than any log. An older copy of it must never be put back; `volume.py` says what to do instead.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from folkmoot_core.errors import Unavailable
from folkmoot_core.ledger.note import parse_vkey
from folkmoot_core.ledger.witness import Known, origin_hash
from folkmoot_runtime.witness.interface import MAX_LOGS, Step, check_room

T = TypeVar("T")
SCHEMA_VERSION: Final = 1
SCHEMA: Final = """
CREATE TABLE logs (
  origin TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE,  -- SHA-256 of the origin, in hex: the monitoring path
  vkeys TEXT NOT NULL,                                   -- one a line
  size INTEGER NOT NULL, root BLOB NOT NULL, seconds INTEGER NOT NULL,
  note BLOB NOT NULL,                                    -- the checkpoint last cosigned, with our lines; empty: none yet
  fork BLOB NOT NULL                                     -- a checkpoint that contradicts it; empty: none seen
) STRICT;
CREATE TABLE tenants (tenant TEXT NOT NULL, origin TEXT NOT NULL, PRIMARY KEY (tenant, origin)) STRICT, WITHOUT ROWID;
"""
_COLUMNS: Final = "origin, vkeys, size, root, seconds, note, fork"


class SqliteStore:
    """`Store` on a disk. `open` before use; SIGKILL at any moment loses no step that was answered."""

    def __init__(self, path: Path, most: int = MAX_LOGS, executor: Executor | None = None) -> None:
        self._path = path
        self._most = most
        self._executor = executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="witness-store")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> int:
        """Create or read the file; how many logs it knows. A database of a newer version is refused."""
        return await self._submit(self._open)

    async def step(self, origin: str, change: Step[T]) -> T:
        """See `Store.step`."""
        return await self._submit(self._transact, lambda connection: _step(connection, origin, change))

    async def enrol(self, tenant: str, origin: str, change: Step[T]) -> T:
        """See `Store.enrol`."""

        def work(connection: sqlite3.Connection) -> T:
            answer = _step(connection, origin, change)
            self._bring(connection, tenant, origin)
            return answer

        return await self._submit(self._transact, work)

    async def logs(self, tenant: str) -> list[Known]:
        """See `Store.logs`."""
        query = f"SELECT {_COLUMNS} FROM logs JOIN tenants USING (origin) WHERE tenant = ? ORDER BY origin"  # noqa: S608 - constants
        rows = await self._submit(self._transact, lambda connection: connection.execute(query, (tenant,)).fetchall())
        return [_known(row) for row in rows]

    async def find(self, digest: str) -> Known | None:
        """See `Store.find`."""
        return await self._submit(self._transact, lambda connection: _select(connection, "digest", digest))

    async def close(self) -> None:
        """Close the file; later calls fail."""
        await self._submit(self._close)
        self._executor.shutdown(wait=False)

    def _bring(self, connection: sqlite3.Connection, tenant: str, origin: str) -> None:
        if connection.execute("SELECT 1 FROM tenants WHERE tenant = ? AND origin = ?", (tenant, origin)).fetchone():
            return
        (of_tenant,) = connection.execute("SELECT count(*) FROM tenants WHERE tenant = ?", (tenant,)).fetchone()
        (of_all,) = connection.execute("SELECT count(*) FROM tenants").fetchone()
        check_room(of_tenant, of_all, self._most)
        connection.execute("INSERT INTO tenants (tenant, origin) VALUES (?, ?)", (tenant, origin))

    async def _submit(self, work: Callable[..., T], *args: Any) -> T:
        try:
            future = self._executor.submit(work, *args)
        except RuntimeError as error:
            raise Unavailable(f"{self._path}: the witness is stopping") from error
        # A caller that goes away must not leave a step half done: the thread finishes it, whoever still waits.
        return await asyncio.shield(asyncio.wrap_future(future))

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
            connection.execute(f"PRAGMA {pragma}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise Unavailable(f"{self._path}: written by a newer version (schema {version}); this one knows {SCHEMA_VERSION}")
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        self._connection = connection
        (count,) = connection.execute("SELECT count(*) FROM logs").fetchone()
        return int(count)

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection
        if connection is None:
            raise Unavailable(f"{self._path}: the database is closed")
        connection.execute("BEGIN IMMEDIATE")
        try:
            value = work(connection)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return value

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _step(connection: sqlite3.Connection, origin: str, change: Step[T]) -> T:
    changed, answer = change(_select(connection, "origin", origin))
    if changed is not None:
        vkeys = "\n".join(key.vkey() for key in changed.keys)
        connection.execute(
            "INSERT OR REPLACE INTO logs (origin, digest, vkeys, size, root, seconds, note, fork) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (origin, origin_hash(origin), vkeys, changed.size, changed.root, changed.seconds, changed.note, changed.fork),
        )
    return answer


def _select(connection: sqlite3.Connection, column: str, value: str) -> Known | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM logs WHERE {column} = ?", (value,)).fetchone()  # noqa: S608 - constants
    return None if row is None else _known(row)


def _known(row: tuple[Any, ...]) -> Known:
    origin, vkeys, size, root, seconds, signed, fork = row
    return Known(origin, tuple(parse_vkey(vkey) for vkey in vkeys.split("\n")), size, root, seconds, signed, fork)
