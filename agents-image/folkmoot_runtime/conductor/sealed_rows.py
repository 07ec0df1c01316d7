"""The statements on subjects, data keys, sealed artefacts and openings: functions of a connection, as in `rows.py`.

A subject is whose content it is: by default the session itself, otherwise what `spec.subject` of the Session names. Its name
stands in one row of `subjects` and nowhere else; everything else says `ref`, a random token. No decisions here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from folkmoot_core.errors import Conflict, Missing


class Artefact(NamedTuple):
    """Where content of a digest lies for one subject."""

    ref: str
    digest: str
    size: int
    sealed: str  # digest of the sealed bytes: the file's name
    month: str


class KeyRow(NamedTuple):
    """A wrapped data key and the log or tenant that it was made for."""

    context: str
    wrapped: bytes


class Opening(NamedTuple):
    """Which content of which subject a commitment was made to, and by which entry. The salt is inside the seal."""

    commit: str
    entry: str
    ref: str
    digest: str
    session: str


# -- subjects -------------------------------------------------------------------------------------------------------
def assign_subject(db: sqlite3.Connection, session: str, name: str | None, continues: str | None, fresh: str, now_ms: int) -> str:  # noqa: PLR0913 - what decides whose content it is
    """Whose content a session's is: of the named subject, of the subject of the session it continues, or its own. Said once;
    `fresh` is a random ref for a subject that is new. Raises `Conflict` for a session that was erased."""
    if (known := _live_ref(db, session)) is not None:
        return known
    ref = _named(db, name) if name else _inherited(db, continues)
    if ref is None:
        ref = fresh
        db.execute("INSERT INTO subjects (ref, name, created_ms) VALUES (?, ?, ?)", (ref, name or None, now_ms))
    db.execute("INSERT INTO session_subjects (session, ref) VALUES (?, ?)", (session, ref))
    return ref


def subject_of(db: sqlite3.Connection, session: str) -> str:
    """The ref that a session's content belongs to; raises `Missing`, or `Conflict` once it is erased."""
    ref = _live_ref(db, session)
    if ref is None:
        raise Missing(f"session {session[:64]!r} is not known to the conductor; content belongs to a session")
    return ref


def _live_ref(db: sqlite3.Connection, session: str) -> str | None:
    row = db.execute("SELECT ref, erasing FROM session_subjects WHERE session = ?", (session,)).fetchone()
    if row is not None and row[1] is not None:
        raise Conflict(f"the content of session {session} was erased; nothing is stored for it any more", reason="Erased")
    return row[0] if row else None


def _named(db: sqlite3.Connection, name: str) -> str | None:
    row = db.execute("SELECT ref FROM subjects WHERE name = ? AND erasing IS NULL", (name,)).fetchone()
    return row[0] if row else None


def _inherited(db: sqlite3.Connection, continues: str | None) -> str | None:
    """The subject of the newest session of that name: what it leaves to the next is the same person's content."""
    sql = """SELECT b.ref FROM sessions s JOIN session_subjects b ON b.session = s.uid
             WHERE s.name = ? AND b.erasing IS NULL ORDER BY s.number DESC LIMIT 1"""
    row = db.execute(sql, (continues,)).fetchone() if continues else None
    return row[0] if row else None


# -- data keys ------------------------------------------------------------------------------------------------------
def get_key(db: sqlite3.Connection, ref: str, month: str) -> KeyRow | None:
    """A data key."""
    row = db.execute("SELECT context, wrapped FROM data_keys WHERE ref = ? AND month = ?", (ref, month)).fetchone()
    return KeyRow(*row) if row else None


def put_key(db: sqlite3.Connection, ref: str, month: str, row: KeyRow) -> KeyRow:
    """Keep a data key; answers with the one that was there first."""
    db.execute("INSERT OR IGNORE INTO data_keys VALUES (?, ?, ?, ?)", (ref, month, *row))
    stored = get_key(db, ref, month)
    assert stored is not None  # noqa: S101 - inserted just now
    return stored


def key_months(db: sqlite3.Connection, ref: str) -> list[str]:
    """Months for which a subject has a data key."""
    return [row[0] for row in db.execute("SELECT month FROM data_keys WHERE ref = ? ORDER BY month", (ref,))]


def count_keys(db: sqlite3.Connection) -> int:
    """How many there are."""
    (count,) = db.execute("SELECT COUNT(*) FROM data_keys").fetchone()
    return int(count)


def idle_keys(db: sqlite3.Connection, month: str) -> list[tuple[str, str]]:
    """(ref, month) of keys of earlier months that nothing is sealed under any more."""
    sql = """SELECT ref, month FROM data_keys k WHERE month < ?
             AND NOT EXISTS (SELECT 1 FROM artefacts a WHERE a.ref = k.ref AND a.month = k.month)"""
    return [(row[0], row[1]) for row in db.execute(sql, (month,))]


def drop_keys(db: sqlite3.Connection, keys: Iterable[tuple[str, str]]) -> None:
    """Forget destroyed keys, and subjects of whom nothing is left."""
    db.executemany("DELETE FROM data_keys WHERE ref = ? AND month = ?", list(keys))
    db.execute(
        """DELETE FROM subjects WHERE erasing IS NULL AND ref NOT IN (SELECT ref FROM session_subjects)
           AND ref NOT IN (SELECT ref FROM data_keys) AND ref NOT IN (SELECT ref FROM holds WHERE released IS NULL)"""
    )


# -- artefacts ------------------------------------------------------------------------------------------------------
def put_artefact(db: sqlite3.Connection, session: str, artefact: Artefact, now_ms: int) -> Artefact:
    """Content is sealed and on disk, and this session needs it. If it was there already, that one counts. Raises `Conflict` when
    the session, or the key, was erased meanwhile."""
    if subject_of(db, session) != artefact.ref or get_key(db, artefact.ref, artefact.month) is None:
        raise Conflict(
            f"the key that content of session {session} was sealed under is gone; store it again", reason="KeyDestroyed"
        )
    sql = """INSERT INTO artefacts (ref, digest, size, sealed, month, created_ms) VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (digest, ref) WHERE erasing IS NULL DO UPDATE SET created_ms = excluded.created_ms"""
    db.execute(sql, (*artefact, now_ms))
    db.execute("INSERT OR IGNORE INTO artefact_refs VALUES (?, ?)", (session, artefact.digest))
    stored = find_artefact(db, artefact.digest, artefact.ref)
    assert stored is not None  # noqa: S101 - inserted just now
    return stored


def take_up(db: sqlite3.Connection, session: str, artefact: Artefact, now_ms: int) -> bool:
    """This session needs what is stored already; counts as stored now, so that the sweep cannot take it from under whoever put
    it. False when it was erased or replaced meanwhile."""
    subject_of(db, session)
    sql = "UPDATE artefacts SET created_ms = ? WHERE sealed = ? AND erasing IS NULL"
    if db.execute(sql, (now_ms, artefact.sealed)).rowcount != 1:
        return False
    db.execute("INSERT OR IGNORE INTO artefact_refs VALUES (?, ?)", (session, artefact.digest))
    return True


def drop_artefact(db: sqlite3.Connection, sealed: str) -> None:
    """Forget a row whose file is damaged."""
    db.execute("DELETE FROM artefacts WHERE sealed = ?", (sealed,))


def find_artefact(db: sqlite3.Connection, digest: str, ref: str | None = None) -> Artefact | None:
    """Content by its digest: of this subject, or of any."""
    sql = "SELECT ref, digest, size, sealed, month FROM artefacts WHERE digest = ? AND (?2 IS NULL OR ref = ?2) AND erasing IS NULL LIMIT 1"
    row = db.execute(sql, (digest, ref)).fetchone()
    return Artefact(*row) if row else None


def locate(db: sqlite3.Connection, session: str, digest: str) -> tuple[str, Artefact | None]:
    """The subject of a session, and that subject's content of a digest."""
    ref = subject_of(db, session)
    return ref, find_artefact(db, digest, ref)


def reference(db: sqlite3.Connection, session: str, digests: Iterable[str]) -> None:
    """A session needs these kept. Raises `Missing` for what its own subject does not have: another's content is not drawn into it
    by naming a digest."""
    ref, wanted = subject_of(db, session), set(digests)
    absent = wanted - known_artefacts(db, wanted, ref)
    if absent:
        raise Missing(f"session {session}: {len(absent)} artefacts are not in its store, for one {min(absent)}; put them first")
    db.executemany("INSERT OR IGNORE INTO artefact_refs VALUES (?, ?)", [(session, d) for d in wanted])


def known_artefacts(db: sqlite3.Connection, digests: Iterable[str], ref: str | None = None) -> set[str]:
    """Which of these there are, of this subject or of any."""
    sql = """SELECT digest FROM artefacts WHERE digest IN (SELECT value FROM json_each(?)) AND (?2 IS NULL OR ref = ?2)
             AND erasing IS NULL"""
    return {row[0] for row in db.execute(sql, (json.dumps(list(digests)), ref))}


def all_artefacts(db: sqlite3.Connection) -> list[Artefact]:
    """Everything stored that a session refers to, equal digests side by side."""
    sql = """SELECT ref, digest, size, sealed, month FROM artefacts a WHERE erasing IS NULL AND EXISTS (SELECT 1 FROM artefact_refs r
             JOIN session_subjects s ON s.session = r.session WHERE r.digest = a.digest AND s.ref = a.ref) ORDER BY digest, ref"""
    return [Artefact(*row) for row in db.execute(sql)]


def take_unreferenced(db: sqlite3.Connection, before_ms: int) -> list[str]:
    """Forget, and return the files of, artefacts that no session refers to and that nobody stored since; not under a hold."""
    sql = """DELETE FROM artefacts WHERE created_ms < ? AND erasing IS NULL AND NOT EXISTS (SELECT 1 FROM artefact_refs r
             JOIN session_subjects s ON s.session = r.session WHERE r.digest = artefacts.digest AND s.ref = artefacts.ref)
             AND NOT EXISTS (SELECT 1 FROM holds h WHERE h.released IS NULL AND (h.scope = 'tenant' OR h.ref = artefacts.ref))
             RETURNING sealed"""
    return [row[0] for row in db.execute(sql, (before_ms,))]


def sealed_files(db: sqlite3.Connection) -> set[str]:
    """Names of all files that a row points to."""
    return {row[0] for row in db.execute("SELECT sealed FROM artefacts")}


# -- openings -------------------------------------------------------------------------------------------------------
def put_opening(db: sqlite3.Connection, opening: Opening) -> None:
    """Remember what a commitment was made to."""
    db.execute("INSERT OR IGNORE INTO openings VALUES (?, ?, ?, ?, ?)", opening)


def get_openings(db: sqlite3.Connection, ref: str | None = None, digest: str | None = None) -> list[Opening]:
    """Openings of one content of one subject, or all, in the order they were made."""
    sql = """SELECT commitment, entry, ref, digest, session FROM openings
             WHERE (?1 IS NULL OR ref = ?1) AND (?2 IS NULL OR digest = ?2) ORDER BY rowid"""
    return [Opening(*row) for row in db.execute(sql, (ref, digest))]


def erased_commitments(db: sqlite3.Connection) -> list[tuple[str, int | None, int | None]]:
    """(commitment, position of the entry that carries it, position of the erasure's entry) of all content that was erased."""
    sql = """SELECT e.commitment, e.position, x.intent FROM erased e JOIN erasures x ON x.id = e.erasure
             ORDER BY e.position, e.commitment"""
    return [(row[0], row[1], row[2]) for row in db.execute(sql)]
