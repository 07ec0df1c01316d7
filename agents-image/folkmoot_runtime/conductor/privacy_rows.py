"""The statements on legal holds and erasures: functions of a connection, as in `rows.py`. What must hold together is decided in
one transaction here: whether a hold forbids an erasure, what exactly is erased, that nothing more is stored for it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from folkmoot_core import privacy
from folkmoot_core.entries import rfc3339
from folkmoot_core.errors import Conflict, Missing
from folkmoot_core.privacy import BROKER, NOT_REACHED, Erasure, ErasureRequest, Hold, HoldRequest
from folkmoot_core.sessions import SessionEvent
from folkmoot_runtime.conductor import rows

_LISTED = 1000


class Scope(NamedTuple):
    """Whose content, and of which of its sessions. `whole`: all that the subject has."""

    ref: str
    sessions: tuple[str, ...]
    whole: bool


class ErasureRow(NamedTuple):
    """An erasure with what was settled when it was asked for."""

    view: Erasure
    whole: bool
    sessions: tuple[str, ...]
    sealed: tuple[str, ...]
    ranges: list[list[int]]


# -- whom it is about -----------------------------------------------------------------------------------------------
def subject_scope(db: sqlite3.Connection, name: str) -> Scope:
    """All of a subject; raises `Missing`."""
    row = db.execute("SELECT ref FROM subjects WHERE name = ? AND erasing IS NULL", (name,)).fetchone()
    if row is None:
        raise Missing("nothing is kept of a subject of this name: it never had a session here, or it was erased before")
    return Scope(row[0], _sessions_of(db, row[0]), True)


def session_scope(db: sqlite3.Connection, name: str) -> Scope:
    """One session by name (the newest of it) or uid; raises `Missing`."""
    row = rows.find_session(db, name)
    bound = db.execute("SELECT ref FROM session_subjects WHERE session = ?", (row.order.uid,)).fetchone() if row else None
    if row is None or bound is None:
        raise Missing(f"session {name[:64]!r} is not known to the conductor")
    return Scope(bound[0], (row.order.uid,), _sessions_of(db, bound[0]) in ((row.order.uid,), ()))


def _sessions_of(db: sqlite3.Connection, ref: str) -> tuple[str, ...]:
    sql = "SELECT session FROM session_subjects WHERE ref = ? AND erasing IS NULL ORDER BY session"
    return tuple(row[0] for row in db.execute(sql, (ref,)))


# -- holds ----------------------------------------------------------------------------------------------------------
def place_hold(db: sqlite3.Connection, request: HoldRequest, hold_id: str, by: str, now_ms: int) -> Hold:
    """A hold in force from here on; the same id again is the same hold. Raises `Conflict` when what it is on is being erased."""
    if (known := get_hold(db, hold_id)) is not None:
        return known
    ref, session = "", ""
    if request.subject is not None:
        ref = subject_scope(db, request.subject).ref
    if request.session is not None:
        scope = session_scope(db, request.session)
        ref, session = scope.ref, scope.sessions[0]
    sql = """SELECT id FROM erasures WHERE state <> 'done' AND (?1 = '' OR ref = ?1)
             UNION SELECT erasing FROM session_subjects WHERE session = ?2 AND erasing IS NOT NULL"""
    if (found := db.execute(sql, (ref, session)).fetchone()) is not None:
        raise Conflict(f"erasure {found[0]} is under way or done: a hold comes too late for what it is on", reason="BeingErased")
    db.execute(
        "INSERT INTO holds (id, scope, ref, session, reason, by, placed_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (hold_id, request.scope, ref, session, request.reason, by, now_ms),
    )
    placed = get_hold(db, hold_id)
    assert placed is not None  # noqa: S101 - inserted just now
    return placed


_HOLD = "SELECT id, scope, ref, session, reason, by, placed_ms, placed, released FROM holds"


def get_hold(db: sqlite3.Connection, hold_id: str) -> Hold | None:
    """One hold."""
    row = db.execute(f"{_HOLD} WHERE id = ?", (hold_id,)).fetchone()
    return _hold(row) if row else None


def list_holds(db: sqlite3.Connection) -> list[Hold]:
    """The newest first."""
    return [_hold(row) for row in db.execute(f"{_HOLD} ORDER BY placed_ms DESC, id LIMIT {_LISTED}")]


def owed_holds(db: sqlite3.Connection) -> list[tuple[str, str]]:
    """(id, who releases it or '') of holds with an entry that is not durable yet."""
    sql = "SELECT id, COALESCE(releasing, '') FROM holds WHERE placed IS NULL OR (releasing IS NOT NULL AND released IS NULL)"
    return [(row[0], row[1]) for row in db.execute(sql)]


def mark_placed(db: sqlite3.Connection, hold_id: str, position: int) -> None:
    """`legal.hold` is durable."""
    db.execute("UPDATE holds SET placed = ? WHERE id = ?", (position, hold_id))


def begin_release(db: sqlite3.Connection, hold_id: str, by: str) -> Hold:
    """Somebody releases it; it stays in force until that is on record. Raises `Missing`."""
    db.execute("UPDATE holds SET releasing = COALESCE(releasing, ?) WHERE id = ?", (by, hold_id))
    hold = get_hold(db, hold_id)
    if hold is None:
        raise Missing(f"there is no hold {hold_id[:40]!r}; list them: GET /v1/holds")
    return hold


def mark_released(db: sqlite3.Connection, hold_id: str, position: int) -> None:
    """`legal.hold.released` is durable: it is not in force any more."""
    db.execute("UPDATE holds SET released = ? WHERE id = ?", (position, hold_id))


def _hold(row: Sequence[Any]) -> Hold:
    hold_id, scope, ref, session, reason, by, placed_ms, placed, released = row
    return Hold(id=hold_id, scope=scope, subject_ref=ref, session=session, reason=reason, by=by, placed=rfc3339(placed_ms / 1000),
                entry=placed, released=released)  # fmt: skip


# -- erasures -------------------------------------------------------------------------------------------------------
def begin_erasure(db: sqlite3.Connection, request: ErasureRequest, erasure_id: str, by: str, now_ms: int) -> ErasureRow:
    """Settle what is erased, and that nothing more is stored for it. The same id, or a session that was erased, is the erasure
    that there is. Raises `Missing`, or `Conflict` for a hold or a session that has not ended."""
    if (known := get_erasure(db, erasure_id)) is not None:
        return known
    if request.session is not None and (known := _erasure_of(db, request.session)) is not None:
        return known
    scope = subject_scope(db, request.subject) if request.subject is not None else session_scope(db, request.session or "")
    _refuse_held(db, scope)
    _refuse_open(db, scope)
    uids = json.dumps(scope.sessions)
    sealed = _mark(db, scope, uids, erasure_id)
    sql = """SELECT e.position FROM openings o LEFT JOIN entries e ON e.id = o.entry
             WHERE o.session IN (SELECT value FROM json_each(?))"""
    positions = [row[0] for row in db.execute(sql, (uids,))]
    spans = privacy.ranges(p for p in positions if p is not None)
    db.execute(
        "INSERT INTO erasures VALUES (?, ?, ?, ?, ?, ?, ?, 'intended', ?, ?, ?, ?, ?, NULL, NULL, 0)",
        (erasure_id, scope.ref, "" if scope.whole else scope.sessions[0], int(scope.whole), request.basis, by, now_ms, uids,
         json.dumps(sealed), len(positions), privacy.list_digest(sealed), json.dumps(spans)),
    )  # fmt: skip
    begun = get_erasure(db, erasure_id)
    assert begun is not None  # noqa: S101 - inserted just now
    return begun


def _mark(db: sqlite3.Connection, scope: Scope, uids: str, erasure_id: str) -> list[str]:
    """Take the content out of every list at once, and refuse more for these sessions; names of the files that go."""
    if scope.whole:
        db.execute("UPDATE subjects SET erasing = ? WHERE ref = ?", (erasure_id, scope.ref))
    db.execute("UPDATE session_subjects SET erasing = ? WHERE session IN (SELECT value FROM json_each(?))", (erasure_id, uids))
    # What another session of the same subject refers to stays for that one.
    sql = """UPDATE artefacts SET erasing = ?1 WHERE ref = ?2 AND erasing IS NULL AND (?3 OR NOT EXISTS (
               SELECT 1 FROM artefact_refs r JOIN session_subjects s ON s.session = r.session
               WHERE r.digest = artefacts.digest AND s.ref = ?2 AND s.erasing IS NULL)) RETURNING sealed"""
    return [row[0] for row in db.execute(sql, (erasure_id, scope.ref, int(scope.whole)))]


def _erasure_of(db: sqlite3.Connection, name: str) -> ErasureRow | None:
    row = rows.find_session(db, name)
    uid = row.order.uid if row is not None else name
    found = db.execute("SELECT erasing FROM session_subjects WHERE session = ?", (uid,)).fetchone()
    return get_erasure(db, found[0]) if found and found[0] else None


def _refuse_held(db: sqlite3.Connection, scope: Scope) -> None:
    sql = """SELECT id, scope FROM holds WHERE released IS NULL AND (scope = 'tenant' OR (scope = 'subject' AND ref = ?)
             OR session IN (SELECT value FROM json_each(?))) ORDER BY placed_ms LIMIT 1"""
    row = db.execute(sql, (scope.ref, json.dumps(scope.sessions))).fetchone()
    if row is not None:
        raise Conflict(
            f"legal hold {row[0]} (scope {row[1]}) forbids erasing this; release it first, if you may", reason="LegalHold"
        )


def _refuse_open(db: sqlite3.Connection, scope: Scope) -> None:
    sql = """SELECT name FROM sessions WHERE finished_ms IS NULL AND uid IN (SELECT value FROM json_each(?))
             ORDER BY number LIMIT 1"""
    row = db.execute(sql, (json.dumps(scope.sessions),)).fetchone()
    if row is not None:
        raise Conflict(f"session {row[0]} has not ended; cancel it, or wait for its end, and erase then", reason="SessionOpen")


def withdraw_erasure(db: sqlite3.Connection, erasure: ErasureRow) -> None:
    """Nothing was destroyed and nothing will be: its entry was refused for good."""
    mine = (erasure.view.id,)
    db.execute("UPDATE subjects SET erasing = NULL WHERE erasing = ?", mine)
    db.execute("UPDATE session_subjects SET erasing = NULL WHERE erasing = ?", mine)
    db.execute("UPDATE OR IGNORE artefacts SET erasing = NULL WHERE erasing = ?", mine)
    db.execute("DELETE FROM erasures WHERE id = ?", mine)


_ERASURE = """SELECT id, ref, session, whole, basis, by, asked_ms, state, sessions, sealed, count, digest, ranges, intent, outcome,
              broker FROM erasures"""


def get_erasure(db: sqlite3.Connection, erasure_id: str) -> ErasureRow | None:
    """One erasure."""
    row = db.execute(f"{_ERASURE} WHERE id = ?", (erasure_id,)).fetchone()
    return _erasure(row) if row else None


def list_erasures(db: sqlite3.Connection) -> list[Erasure]:
    """The newest first."""
    return [_erasure(row).view for row in db.execute(f"{_ERASURE} ORDER BY asked_ms DESC, id LIMIT {_LISTED}")]


def unfinished_erasures(db: sqlite3.Connection) -> list[ErasureRow]:
    """Oldest first."""
    return [_erasure(row) for row in db.execute(f"{_ERASURE} WHERE state <> 'done' ORDER BY asked_ms, id")]


def advance(
    db: sqlite3.Connection, erasure_id: str, state: str, *, intent: int | None = None, outcome: int | None = None
) -> None:
    """The next state, with the position of an entry that is durable now."""
    sql = "UPDATE erasures SET state = ?, intent = COALESCE(?, intent), outcome = COALESCE(?, outcome) WHERE id = ?"
    db.execute(sql, (state, intent, outcome, erasure_id))


def mark_broker(db: sqlite3.Connection, erasure_id: str) -> None:
    """The broker said that it erased its part."""
    db.execute("UPDATE erasures SET broker = 1 WHERE id = ?", (erasure_id,))


def destroy_rows(db: sqlite3.Connection, erasure: ErasureRow, now_ms: int) -> None:
    """Remove whatever the tables hold of the content, all at once, and leave what says that there was something."""
    mine, uids = erasure.view.id, [(uid,) for uid in erasure.sessions]
    sql = """INSERT OR IGNORE INTO erased SELECT o.commitment, e.position, ? FROM openings o LEFT JOIN entries e ON e.id = o.entry
             WHERE o.session = ?"""
    db.executemany(sql, [(mine, uid) for uid in erasure.sessions])
    for table in ("needs", "steps", "openings", "artefact_refs", "entries"):
        db.executemany(f"DELETE FROM {table} WHERE session = ?", uids)  # noqa: S608 - names from the line above
    db.execute("DELETE FROM artefacts WHERE erasing = ?", (mine,))
    if erasure.whole:
        db.execute("DELETE FROM data_keys WHERE ref = ?", (erasure.view.subject_ref,))
        db.execute("DELETE FROM subjects WHERE ref = ?", (erasure.view.subject_ref,))
    for uid in erasure.sessions:
        _scrub_session(db, uid, mine, now_ms)
    advance(db, mine, "destroyed")


def _scrub_session(db: sqlite3.Connection, uid: str, erasure_id: str, now_ms: int) -> None:
    """Keep the row, so that the same order is not taken for a new one, and the numbers of its report; no words."""
    row = rows.get_session(db, uid)
    if row is None:  # accepted halfway; there is nothing but what was stored for it
        return
    rows.update_session(
        db, uid, body=rows.order_json(privacy.scrubbed_order(row.order)), inputs=rows.Inputs().model_dump_json(), previous="",
        ending=privacy.scrubbed_ending(row.ending).model_dump_json() if row.ending else None,
        note=privacy.scrubbed_note(row.note).model_dump_json() if row.note else None,
    )  # fmt: skip
    for event in rows.get_events(db, uid):
        _put_event(db, uid, privacy.scrubbed_event(event))
    rows.append_events(db, uid, now_ms, [("session.erased", {"erasure": erasure_id})])


def _put_event(db: sqlite3.Connection, uid: str, event: SessionEvent) -> None:
    db.execute("UPDATE events SET data = ? WHERE session = ? AND n = ?", (json.dumps(event.data), uid, event.n))


def _erasure(row: Sequence[Any]) -> ErasureRow:
    key, ref, session, whole, basis, by, asked_ms, state, sessions, sealed, count, digest, spans, intent, outcome, broker = row
    uids = tuple(json.loads(sessions))
    view = Erasure(
        id=key, subject_ref=ref, session=session, basis=basis, by=by, asked=rfc3339(asked_ms / 1000), state=state,
        sessions=len(uids), count=count, digest=digest, intent=intent, outcome=outcome,
        not_reached=tuple(one for one in NOT_REACHED if not (broker and one == BROKER)),
    )  # fmt: skip
    return ErasureRow(view, bool(whole), uids, tuple(json.loads(sealed)), json.loads(spans))
