"""The conductor's database: SQLite in one writer thread, every transaction durable before it is answered.

Used by every part of the conductor; `rows.py` has the statements. A caller passes a function of the connection to `run`;
it is executed in a transaction, all or nothing, in the order of the calls. A database that cannot be written (a full disk)
ends the process: nothing could go on honestly, and the next start goes on from what is stored. What an attacker who can
write this file could do: invent answers that agents never gave; the ledger's entries would contradict them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from folkmoot_core.errors import Unavailable
from folkmoot_runtime.rewriting import fresh_of, rewrite

P = ParamSpec("P")
T = TypeVar("T")
SCHEMA_VERSION: Final = 3  # 1: artefacts in plain files; never released, and refused. 2: no word of the broker in erasures
FROM_2: Final = "ALTER TABLE erasures ADD COLUMN broker INTEGER NOT NULL DEFAULT 0;"
SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE documents (digest TEXT PRIMARY KEY, body TEXT NOT NULL, received_ms INTEGER NOT NULL) STRICT;
CREATE TABLE sessions (
  number INTEGER PRIMARY KEY AUTOINCREMENT,      -- order of acceptance
  uid TEXT NOT NULL UNIQUE, name TEXT NOT NULL, origin TEXT NOT NULL,  -- origin: operator | owner
  body TEXT NOT NULL,                            -- SessionOrder without the content of its inputs
  inputs TEXT NOT NULL,                          -- Inputs: what became of that content
  accepted_ms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL,
  document TEXT, previous TEXT, previous_commit TEXT,  -- set when it is opened; frozen from then on
  cancelled TEXT,                                -- why, once asked for
  ending TEXT,                                   -- Ending, decided but perhaps not yet on record
  note TEXT, note_commit TEXT,                   -- closing note and its commitment
  finished_ms INTEGER, reported INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX sessions_by_name ON sessions (name, number);
CREATE TABLE events (
  session TEXT NOT NULL, n INTEGER NOT NULL, time_ms INTEGER NOT NULL, type TEXT NOT NULL, data TEXT NOT NULL,
  PRIMARY KEY (session, n)) STRICT, WITHOUT ROWID;
CREATE TABLE needs (
  session TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, asked_ms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL,
  tokens INTEGER NOT NULL,                       -- what this task may use at most
  sent_ms INTEGER, answer TEXT, answered_ms INTEGER, PRIMARY KEY (session, id)) STRICT;
CREATE TABLE entries (id TEXT PRIMARY KEY, session TEXT NOT NULL, body TEXT NOT NULL, position INTEGER) STRICT;
CREATE INDEX entries_waiting ON entries (id) WHERE position IS NULL;
CREATE TABLE subjects (                          -- whose content it is; the one place that knows its name
  ref TEXT PRIMARY KEY, name TEXT, created_ms INTEGER NOT NULL,
  erasing TEXT) STRICT;                          -- erasure that is at work on it
CREATE UNIQUE INDEX subjects_by_name ON subjects (name) WHERE name IS NOT NULL AND erasing IS NULL;
CREATE TABLE session_subjects (session TEXT PRIMARY KEY, ref TEXT NOT NULL, erasing TEXT) STRICT;  -- erasing: stays for ever
CREATE INDEX session_subjects_by_ref ON session_subjects (ref);
CREATE TABLE data_keys (
  ref TEXT NOT NULL, month TEXT NOT NULL, context TEXT NOT NULL, wrapped BLOB NOT NULL, PRIMARY KEY (ref, month)) STRICT;
CREATE TABLE openings (                          -- the salt lies in the sealed file of the content
  commitment TEXT PRIMARY KEY, entry TEXT NOT NULL, ref TEXT NOT NULL, digest TEXT NOT NULL, session TEXT NOT NULL) STRICT;
CREATE INDEX openings_by_content ON openings (ref, digest);
CREATE TABLE artefacts (                         -- one row for each sealed file; equal content of two subjects has two
  sealed TEXT PRIMARY KEY, ref TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, month TEXT NOT NULL,
  created_ms INTEGER NOT NULL, erasing TEXT) STRICT;
CREATE UNIQUE INDEX artefacts_by_content ON artefacts (digest, ref) WHERE erasing IS NULL;
CREATE INDEX artefacts_by_key ON artefacts (ref, month);
CREATE TABLE artefact_refs (session TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (session, digest)) STRICT, WITHOUT ROWID;
CREATE INDEX artefact_refs_by_digest ON artefact_refs (digest);
CREATE TABLE holds (
  id TEXT PRIMARY KEY, scope TEXT NOT NULL, ref TEXT NOT NULL, session TEXT NOT NULL, reason TEXT NOT NULL, by TEXT NOT NULL,
  placed_ms INTEGER NOT NULL, placed INTEGER,    -- position of legal.hold
  releasing TEXT,                                -- who releases it; in force until that is on record
  released INTEGER) STRICT;                      -- position of legal.hold.released
CREATE TABLE erasures (
  id TEXT PRIMARY KEY, ref TEXT NOT NULL, session TEXT NOT NULL, whole INTEGER NOT NULL, basis TEXT NOT NULL, by TEXT NOT NULL,
  asked_ms INTEGER NOT NULL, state TEXT NOT NULL,  -- intended | recorded | destroyed | done
  sessions TEXT NOT NULL, sealed TEXT NOT NULL,  -- JSON lists: what goes, settled when it was asked for
  count INTEGER NOT NULL, digest TEXT NOT NULL, ranges TEXT NOT NULL,
  intent INTEGER, outcome INTEGER,               -- positions of its two entries
  broker INTEGER NOT NULL DEFAULT 0) STRICT;     -- whether the broker said that it erased, too
CREATE TABLE erased (commitment TEXT PRIMARY KEY, position INTEGER, erasure TEXT NOT NULL) STRICT;
CREATE TABLE steps (
  session TEXT NOT NULL, task TEXT NOT NULL, step INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (task, step)) STRICT;
CREATE TABLE leases (
  sandbox TEXT PRIMARY KEY, fence INTEGER NOT NULL, session TEXT NOT NULL, nonce TEXT NOT NULL) STRICT;
"""


class InlineExecutor(Executor):
    """Runs at once in the caller's thread: for tests under virtual time, where a thread's real time means nothing."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `Executor.submit`; the future is already done."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - handed to whoever asks the future, as every executor does
            future.set_exception(error)
        return future


class Store:
    """One database file. `open` before use, `close` at the end; a SIGKILL in between loses no answered transaction."""

    def __init__(self, path: Path, executor: Executor | None = None) -> None:
        self._path = path
        self._executor = executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Create or read the file. A database of a newer version than this program knows is refused."""
        await self._submit(self._open)

    async def run(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Execute `work(connection, …)` in one transaction; it is on disk when this returns."""
        return await self._submit(self._transact, work, *args, **kwargs)

    async def compact(self) -> None:
        """Write the database anew, so that no page keeps a copy of what was deleted. Raises `Unavailable` as `rewrite` does."""
        await self._submit(self._compact)

    async def close(self) -> None:
        """Close the file; later calls fail."""
        await self._submit(self._close)
        self._executor.shutdown(wait=False)

    async def _submit(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await asyncio.wrap_future(self._executor.submit(work, *args, **kwargs))

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh_of(self._path).unlink(missing_ok=True)
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten with zeros; `compact` sees to copies
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 1:
            raise Unavailable(
                f"{self._path}: written by an unreleased version that kept content in plain files; this one has no way to take it "
                "over. Export its evidence with that version and start with an empty volume"
            )
        if version > SCHEMA_VERSION:
            raise Unavailable(f"{self._path}: written by a newer version (schema {version}); this one knows {SCHEMA_VERSION}")
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        if version == 2:
            connection.executescript(f"BEGIN IMMEDIATE; {FROM_2} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        self._connection = connection

    def _transact(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        connection = self._connection
        if connection is None:
            raise Unavailable(f"{self._path}: the database is closed")
        connection.execute("BEGIN IMMEDIATE")
        try:
            value = work(connection, *args, **kwargs)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return value

    def _compact(self) -> None:
        connection = self._connection
        if connection is None:
            raise Unavailable(f"{self._path}: the database is closed")
        rewrite(connection, self._path)
        self._connection = None
        self._open()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
