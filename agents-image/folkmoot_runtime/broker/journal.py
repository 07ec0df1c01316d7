"""The call journal: what was asked, what left, what was answered, on the broker's volume. runtime.md §6.2.

    PREPARED → SENT → DONE | FAILED | IN_DOUBT        (FAILED and IN_DOUBT → PREPARED when the call is asked again)

An answer is stored before anyone may use it; a row still SENT when the process starts is a call whose fate nobody knows.
Entries wait here until the ledger has them, and the openings of their commitments stay here: they are content, and content
never leaves the tenant. Of a session that is erased the entries alone stay, as the log has them: key, digests, cost, and no
content; it is remembered, so that nothing of it is stored or paid for again. Synchronous; the engine runs it in one thread. What an attacker who holds this file can do: read the
tenant's prompts and answers, and make a stored answer be called for again; it holds no key.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from folkmoot_core.calls import CallAnswer, CallEnvelope
from folkmoot_core.entries import EntryRequest
from folkmoot_runtime.rewriting import fresh_of, rewrite

State = Literal["PREPARED", "SENT", "DONE", "FAILED", "IN_DOUBT"]
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
  key TEXT PRIMARY KEY, agent TEXT NOT NULL, call BLOB NOT NULL, state TEXT NOT NULL, run INTEGER NOT NULL,
  attempts INTEGER NOT NULL, doubts INTEGER NOT NULL, answer BLOB, reason TEXT NOT NULL DEFAULT '',
  message TEXT NOT NULL DEFAULT '', updated REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL, due INTEGER NOT NULL, body TEXT NOT NULL,
  receipt INTEGER, salt BLOB, content BLOB
) STRICT;
CREATE INDEX IF NOT EXISTS entries_due ON entries (number) WHERE due = 1 AND receipt IS NULL;
CREATE TABLE IF NOT EXISTS erased (session TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Call:
    """One row. `run` counts the intents, `attempts` what left in all runs, `doubts` the runs whose fate is unknown."""

    key: str
    agent: str
    envelope: CallEnvelope
    state: State
    run: int = 1
    attempts: int = 0
    doubts: int = 0
    answer: CallAnswer | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Opening:
    """What opens an entry's commitment: the salt and the bytes it was made from."""

    salt: bytes
    content: bytes


@dataclass(frozen=True)
class Record:
    """An entry for the ledger with the opening of its commitment."""

    entry: EntryRequest
    opening: Opening | None = None


class Journal:
    """One SQLite file; every method is one transaction, durable when it returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._db = self._open()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def get(self, key: str) -> Call | None:
        """The row of a call key."""
        row = self._db.execute(f"{_SELECT} WHERE key = ?", (key,)).fetchone()
        return _call(row) if row else None

    def in_flight(self) -> list[Call]:
        """Rows that were SENT when the last process ended."""
        return [_call(row) for row in self._db.execute(f"{_SELECT} WHERE state = 'SENT' ORDER BY key").fetchall()]

    def put(self, call: Call, now: float, record: Record | None = None, *, due: bool = False) -> None:
        """Write a row and, with it, an entry. `due` entries are appended by whoever flushes; an intent is not due: without
        the call that it announces it means nothing."""
        answer = zlib.compress(call.answer.model_dump_json().encode()) if call.answer is not None else None
        envelope = zlib.compress(call.envelope.model_dump_json().encode())
        with self._transaction():
            self._db.execute(
                "INSERT INTO calls (key, agent, call, state, run, attempts, doubts, answer, reason, message, updated)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET state = excluded.state,"
                " run = excluded.run, attempts = excluded.attempts, doubts = excluded.doubts, answer = excluded.answer,"
                " reason = excluded.reason, message = excluded.message, updated = excluded.updated",
                (call.key, call.agent, envelope, call.state, call.run, call.attempts, call.doubts, answer, call.reason,
                 call.message, now),
            )  # fmt: skip
            if record is not None:
                self._insert(call.key, record, due)

    def move(self, key: str, state: State, attempts: int, now: float) -> None:
        """Change state and count alone: what happens around each attempt."""
        with self._transaction():
            self._db.execute("UPDATE calls SET state = ?, attempts = ?, updated = ? WHERE key = ?", (state, attempts, now, key))

    def note(self, record: Record, key: str) -> None:
        """Queue an entry that belongs to no row (a refusal); the same id is queued once."""
        with self._transaction():
            self._insert(key, record, True)

    def entry(self, entry_id: str) -> EntryRequest | None:
        """A stored entry, exactly as it was made: time and salt must not change when it is sent again."""
        row = self._db.execute("SELECT body FROM entries WHERE id = ?", (entry_id,)).fetchone()
        return EntryRequest.model_validate_json(row[0]) if row else None

    def due(self, limit: int = 100) -> list[EntryRequest]:
        """Entries that the ledger does not have yet, in the order they were made."""
        rows = self._db.execute("SELECT body FROM entries WHERE due = 1 AND receipt IS NULL ORDER BY number LIMIT ?", (limit,))
        return [EntryRequest.model_validate_json(row[0]) for row in rows.fetchall()]

    def received(self, entry_id: str, index: int) -> None:
        """The ledger has it at `index`."""
        with self._transaction():
            self._db.execute("UPDATE entries SET receipt = ? WHERE id = ?", (index, entry_id))

    def owing(self, key: str) -> list[EntryRequest]:
        """Due entries of one call that the ledger does not have yet."""
        rows = self._db.execute("SELECT body FROM entries WHERE key = ? AND due = 1 AND receipt IS NULL ORDER BY number", (key,))
        return [EntryRequest.model_validate_json(row[0]) for row in rows.fetchall()]

    def opening(self, entry_id: str) -> Opening | None:
        """What opens the commitment of an entry, for whoever may see content."""
        row = self._db.execute("SELECT salt, content FROM entries WHERE id = ? AND salt IS NOT NULL", (entry_id,)).fetchone()
        return Opening(row[0], zlib.decompress(row[1])) if row else None

    def next_number(self, name: str) -> int:
        """A counter that rises for ever, kept on the volume."""
        with self._transaction():
            row = self._db.execute(
                "INSERT INTO facts (name, value) VALUES (?, '1')"
                " ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + 1 RETURNING value",
                (name,),
            ).fetchone()
        return int(row[0])

    def refuse(self, sessions: Iterable[str]) -> None:
        """Nothing more is stored for these sessions."""
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO erased VALUES (?)", [(session,) for session in sessions])

    def refused(self, session: str) -> bool:
        """Whether the session was erased."""
        return self._db.execute("SELECT 1 FROM erased WHERE session = ?", (session,)).fetchone() is not None

    def erase(self, sessions: Iterable[str]) -> int:
        """Destroy the calls of these sessions and the openings of their entries, in every page; how many calls there were. May be
        repeated: a crash in between leaves pages for the next time."""
        wanted = json.dumps(sorted(set(sessions)))
        mine = "json_extract(body, '$.session') IN (SELECT value FROM json_each(?))"
        with self._transaction():
            gone = self._db.execute(f"DELETE FROM calls WHERE key IN (SELECT key FROM entries WHERE {mine})", (wanted,)).rowcount  # noqa: S608
            self._db.execute(f"UPDATE entries SET salt = NULL, content = NULL WHERE {mine}", (wanted,))  # noqa: S608
        rewrite(self._db, self._path)
        self._db = self._open()
        return gone

    def _open(self) -> sqlite3.Connection:
        fresh_of(self._path).unlink(missing_ok=True)
        opened = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
        opened.execute("PRAGMA journal_mode = WAL")
        opened.execute("PRAGMA synchronous = FULL")
        opened.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten with zeros; `erase` sees to copies
        opened.executescript(_SCHEMA)
        return opened

    def _insert(self, key: str, record: Record, due: bool) -> None:
        opening = record.opening
        self._db.execute(
            "INSERT INTO entries (id, key, due, body, salt, content) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            (record.entry.id, key, int(due), record.entry.model_dump_json(), opening.salt if opening else None,
             zlib.compress(opening.content) if opening else None),
        )  # fmt: skip

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


_SELECT = "SELECT key, agent, call, state, run, attempts, doubts, answer, reason, message FROM calls"


def _call(row: tuple[str, str, bytes, State, int, int, int, bytes | None, str, str]) -> Call:
    key, agent, envelope, state, run, attempts, doubts, answer, reason, message = row
    return Call(
        key=key, agent=agent, envelope=CallEnvelope.model_validate_json(zlib.decompress(envelope)), state=state, run=run,
        attempts=attempts, doubts=doubts, reason=reason, message=message,
        answer=CallAnswer.model_validate_json(zlib.decompress(answer)) if answer else None,
    )  # fmt: skip
