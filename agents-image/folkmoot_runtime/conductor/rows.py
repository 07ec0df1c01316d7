"""The statements on the conductor's tables: functions of a connection, run by `Store.run` in a transaction each or together.

No decisions here; what is written and when is said by the callers. JSON columns hold the pydantic models named beside them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter

from folkmoot_core.deliberation import CheckResult, Need, ProbeResult
from folkmoot_core.document import SessionOrder, TenantDocument
from folkmoot_core.entries import EntryRequest
from folkmoot_core.messages import InputRef, TaskResult
from folkmoot_core.sessions import ClosingNote, Ending, SessionEvent
from folkmoot_runtime.conductor.sealed_rows import Opening, put_opening

NEED: TypeAdapter[Need] = TypeAdapter(Need)
ANSWERS: dict[str, type[TaskResult | CheckResult | ProbeResult]] = {
    "ask": TaskResult,
    "check": CheckResult,
    "probes": ProbeResult,
}
StoredAnswer = TaskResult | CheckResult | ProbeResult | None


class Inputs(BaseModel):
    """What became of an order's inputs: artefacts, and at most one workspace manifest."""

    model_config = ConfigDict(frozen=True)

    refs: tuple[InputRef, ...] = ()
    workspace: str | None = None


class SessionRow(NamedTuple):
    """What is kept of one session beside its events."""

    number: int
    order: SessionOrder
    origin: str
    inputs: Inputs
    accepted_ms: int
    deadline_ms: int
    document: str | None
    previous: str
    previous_commit: str
    cancelled: str | None
    ending: Ending | None
    note: ClosingNote | None
    note_commit: str | None
    finished_ms: int | None
    reported: int


class NeedRow(NamedTuple):
    """A need that was asked, and its answer where there is one."""

    need: Need
    asked_ms: int
    deadline_ms: int
    tokens: int
    sent: bool = False
    answered: bool = False
    answer: StoredAnswer = None


# -- meta ---------------------------------------------------------------------------------------------------------
def get_meta(db: sqlite3.Connection, key: str) -> str | None:
    """A single value."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def set_meta(db: sqlite3.Connection, key: str, value: str) -> None:
    """Replace a single value."""
    db.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value))


def first_seed(db: sqlite3.Connection, agent: str, bound: str) -> str:
    """The seed that an agent's name was first bound to, '' while it never was. `bound`: one that it has bound now, or ''."""
    known = get_meta(db, f"seed/{agent}")
    if known is None and bound:
        set_meta(db, f"seed/{agent}", bound)
    return known or bound


def next_number(db: sqlite3.Connection, key: str) -> int:
    """A counter that rises by one with every call, also over restarts."""
    value = int(get_meta(db, key) or "0") + 1
    set_meta(db, key, str(value))
    return value


# -- tenant document ------------------------------------------------------------------------------------------------
def put_document(db: sqlite3.Connection, document: TenantDocument, now_ms: int) -> bool:
    """Make a document the current one; False when it already was (its generation is kept up all the same)."""
    digest, known = document.digest(), get_meta(db, "document")
    body = document.model_dump_json(by_alias=True, exclude_none=True)
    db.execute(
        "INSERT INTO documents VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET body = excluded.body", (digest, body, now_ms)
    )
    set_meta(db, "document", digest)
    db.execute(  # a document is kept while a session was decided under it
        "DELETE FROM documents WHERE digest <> ? AND digest NOT IN (SELECT document FROM sessions WHERE document IS NOT NULL)",
        (digest,),
    )
    return digest != known


def get_document(db: sqlite3.Connection, digest: str | None = None) -> TenantDocument | None:
    """A document by digest, or the current one."""
    row = db.execute("SELECT body FROM documents WHERE digest = ?", (digest or get_meta(db, "document"),)).fetchone()
    return TenantDocument.model_validate_json(row[0]) if row else None


# -- sessions -------------------------------------------------------------------------------------------------------
def insert_session(  # noqa: PLR0913 - the columns of a row
    db: sqlite3.Connection, order: SessionOrder, inputs: Inputs, origin: str, accepted_ms: int, deadline_ms: int
) -> bool:
    """Accept a session; False when its uid is known."""
    values = (order.uid, order.name, origin, order_json(order), inputs.model_dump_json(), accepted_ms, deadline_ms)
    sql = (
        "INSERT OR IGNORE INTO sessions (uid, name, origin, body, inputs, accepted_ms, deadline_ms) VALUES (?, ?, ?, ?, ?, ?, ?)"
    )
    return db.execute(sql, values).rowcount == 1


_COLUMNS = frozenset(
    {
        "body",
        "inputs",
        "document",
        "previous",
        "previous_commit",
        "cancelled",
        "ending",
        "note",
        "note_commit",
        "finished_ms",
        "reported",
    }
)


def update_session(db: sqlite3.Connection, uid: str, **values: str | int | None) -> None:
    """Set columns of one session."""
    assert set(values) <= _COLUMNS  # noqa: S101 - names come from our own calls, never from outside
    assignments = ", ".join(f"{column} = :{column}" for column in values)
    db.execute(f"UPDATE sessions SET {assignments} WHERE uid = :uid", {**values, "uid": uid})  # noqa: S608 - checked above


def get_session(db: sqlite3.Connection, uid: str) -> SessionRow | None:
    """One session by uid."""
    row = db.execute(f"{_SESSION} WHERE uid = ?", (uid,)).fetchone()
    return _session(row) if row else None


def find_session(db: sqlite3.Connection, name: str) -> SessionRow | None:
    """The newest session of a name, or the one with that uid."""
    row = db.execute(f"{_SESSION} WHERE name = ? OR uid = ? ORDER BY number DESC LIMIT 1", (name, name)).fetchone()
    return _session(row) if row else None


def unfinished_sessions(db: sqlite3.Connection) -> list[SessionRow]:
    """Sessions that have not ended, in the order of acceptance."""
    return [_session(row) for row in db.execute(f"{_SESSION} WHERE finished_ms IS NULL ORDER BY number")]


def recent_sessions(db: sqlite3.Connection, limit: int) -> list[SessionRow]:
    """The newest sessions, newest first."""
    return [_session(row) for row in db.execute(f"{_SESSION} ORDER BY number DESC LIMIT ?", (limit,))]


def unreported_sessions(db: sqlite3.Connection) -> list[str]:
    """Uids of the operator's sessions with an event that no acknowledged report covers."""
    sql = """SELECT uid FROM sessions WHERE origin = 'operator'
             AND reported < (SELECT COALESCE(MAX(n), 0) FROM events WHERE session = uid) ORDER BY number"""
    return [row[0] for row in db.execute(sql)]


_SESSION = """SELECT number, body, origin, inputs, accepted_ms, deadline_ms, document, COALESCE(previous, ''),
              COALESCE(previous_commit, ''), cancelled, ending, note, note_commit, finished_ms, reported FROM sessions"""


def _session(row: Sequence[Any]) -> SessionRow:
    (
        number,
        body,
        origin,
        inputs,
        accepted,
        deadline,
        document,
        previous,
        previous_commit,
        cancelled,
        ending,
        note,
        commit,
        *rest,
    ) = row
    finished, reported = rest
    return SessionRow(
        number=number, order=SessionOrder.model_validate_json(body), origin=origin, inputs=Inputs.model_validate_json(inputs),
        accepted_ms=accepted, deadline_ms=deadline, document=document, previous=previous, previous_commit=previous_commit,
        cancelled=cancelled, ending=Ending.model_validate_json(ending) if ending else None,
        note=ClosingNote.model_validate_json(note) if note else None, note_commit=commit, finished_ms=finished, reported=reported,
    )  # fmt: skip


# -- events ---------------------------------------------------------------------------------------------------------
def append_events(
    db: sqlite3.Connection, session: str, now_ms: int, drafts: Iterable[tuple[str, dict[str, Any]]]
) -> list[SessionEvent]:
    """Number and store events of one session."""
    (last,) = db.execute("SELECT COALESCE(MAX(n), 0) FROM events WHERE session = ?", (session,)).fetchone()
    events = [SessionEvent(n=last + i, time_ms=now_ms, type=t, data=data) for i, (t, data) in enumerate(drafts, 1)]
    rows = [(session, e.n, e.time_ms, e.type, json.dumps(e.data)) for e in events]
    db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
    return events


def get_events(db: sqlite3.Connection, session: str, after: int = 0, limit: int = -1) -> list[SessionEvent]:
    """Events with a number above `after`, in order."""
    sql = "SELECT n, time_ms, type, data FROM events WHERE session = ? AND n > ? ORDER BY n LIMIT ?"
    rows = db.execute(sql, (session, after, limit))
    return [SessionEvent(n=n, time_ms=time_ms, type=kind, data=json.loads(data)) for n, time_ms, kind, data in rows]


# -- needs and answers ----------------------------------------------------------------------------------------------
def insert_need(db: sqlite3.Connection, session: str, row: NeedRow) -> None:
    """Remember that a need is being asked, before anybody is asked."""
    sql = "INSERT OR IGNORE INTO needs (session, id, body, asked_ms, deadline_ms, tokens) VALUES (?, ?, ?, ?, ?, ?)"
    db.execute(sql, (session, row.need.id, row.need.model_dump_json(), row.asked_ms, row.deadline_ms, row.tokens))


def mark_sent(db: sqlite3.Connection, session: str, need: str, now_ms: int) -> None:
    """The task is on the bus."""
    db.execute("UPDATE needs SET sent_ms = COALESCE(sent_ms, ?) WHERE session = ? AND id = ?", (now_ms, session, need))


def put_answer(db: sqlite3.Connection, session: str, need: str, answer: StoredAnswer, now_ms: int) -> bool:
    """Store an answer; False when there is one already: the first wins."""
    body = answer.model_dump_json() if answer is not None else "null"
    sql = "UPDATE needs SET answer = ?, answered_ms = ? WHERE session = ? AND id = ? AND answer IS NULL"
    return db.execute(sql, (body, now_ms, session, need)).rowcount == 1


def get_needs(db: sqlite3.Connection, session: str) -> dict[str, NeedRow]:
    """All needs of a session by id."""
    sql = "SELECT id, body, asked_ms, deadline_ms, tokens, sent_ms, answer FROM needs WHERE session = ?"
    return {row[0]: _need(row[1:]) for row in db.execute(sql, (session,))}


def get_need(db: sqlite3.Connection, session: str, need: str) -> NeedRow | None:
    """One need."""
    sql = "SELECT body, asked_ms, deadline_ms, tokens, sent_ms, answer FROM needs WHERE session = ? AND id = ?"
    row = db.execute(sql, (session, need)).fetchone()
    return _need(row) if row else None


def was_asked(db: sqlite3.Connection, session: str, agent: str) -> bool:
    """Whether the agent was ever given a task in this session."""
    sql = "SELECT 1 FROM needs WHERE session = ? AND json_extract(body, '$.kind') = 'ask' AND json_extract(body, '$.agent') = ?"
    return db.execute(sql, (session, agent)).fetchone() is not None


def _need(row: Sequence[Any]) -> NeedRow:
    body, asked, deadline, tokens, sent, answer = row
    need = NEED.validate_json(body)
    model = ANSWERS.get(need.kind)
    value = model.model_validate_json(answer) if answer is not None and model is not None else None
    return NeedRow(need, asked, deadline, tokens, sent is not None, answer is not None, value)


# -- ledger entries -------------------------------------------------------------------------------------------------
def put_entry(db: sqlite3.Connection, request: EntryRequest, opening: Opening | None) -> None:
    """Keep an entry, with what opens it, before it is sent: the same one is sent again after a crash."""
    sql = "INSERT OR IGNORE INTO entries (id, session, body) VALUES (?, ?, ?)"
    if db.execute(sql, (request.id, request.session, request.model_dump_json())).rowcount and opening is not None:
        put_opening(db, opening)


def get_entry(db: sqlite3.Connection, entry_id: str) -> tuple[EntryRequest, int | None] | None:
    """An entry and its index in the ledger, where it has one."""
    row = db.execute("SELECT body, position FROM entries WHERE id = ?", (entry_id,)).fetchone()
    return (EntryRequest.model_validate_json(row[0]), row[1]) if row else None


def set_position(db: sqlite3.Connection, entry_id: str, index: int) -> None:
    """The entry is durable in the ledger."""
    db.execute("UPDATE entries SET position = ? WHERE id = ?", (index, entry_id))


def waiting_entries(db: sqlite3.Connection, kind: str) -> list[str]:
    """Ids, beginning with `kind`, of entries that have no receipt yet."""
    rows = db.execute("SELECT id FROM entries WHERE position IS NULL AND id GLOB ? ORDER BY rowid", (f"{kind}*",))
    return [row[0] for row in rows]


# -- housekeeping ---------------------------------------------------------------------------------------------------
def forget_sessions(db: sqlite3.Connection, finished_before_ms: int) -> int:
    """Remove sessions that ended before, with all they held, unless a legal hold or an erasure is on them. Their entries in the
    ledger stay."""
    sql = """SELECT s.uid FROM sessions s LEFT JOIN session_subjects b ON b.session = s.uid
             WHERE s.finished_ms < ? AND b.erasing IS NULL AND NOT EXISTS (SELECT 1 FROM holds h WHERE h.released IS NULL
             AND (h.scope = 'tenant' OR h.session = s.uid OR (h.session = '' AND h.ref = b.ref)))"""
    old = [(row[0],) for row in db.execute(sql, (finished_before_ms,))]
    for table in ("events", "needs", "entries", "openings", "artefact_refs", "steps", "session_subjects"):
        db.executemany(f"DELETE FROM {table} WHERE session = ?", old)  # noqa: S608 - names from the line above
    db.executemany("DELETE FROM sessions WHERE uid = ?", old)
    return len(old)


# -- step journal and leases ------------------------------------------------------------------------------------------
def get_step(db: sqlite3.Connection, task: str, step: int) -> str | None:
    """One StepRecord as JSON."""
    row = db.execute("SELECT body FROM steps WHERE task = ? AND step = ?", (task, step)).fetchone()
    return row[0] if row else None


def put_step(db: sqlite3.Connection, session: str, task: str, step: int, body: str) -> None:
    """Write or replace one StepRecord."""
    sql = "INSERT INTO steps VALUES (?, ?, ?, ?) ON CONFLICT (task, step) DO UPDATE SET body = excluded.body"
    db.execute(sql, (session, task, step, body))


def get_steps(db: sqlite3.Connection, task: str) -> list[str]:
    """All StepRecords of a task as JSON, in order."""
    return [row[0] for row in db.execute("SELECT body FROM steps WHERE task = ? ORDER BY step", (task,))]


def lease_holder(db: sqlite3.Connection, sandbox: str) -> str | None:
    """Session that was granted this sandbox last."""
    row = db.execute("SELECT session FROM leases WHERE sandbox = ?", (sandbox,)).fetchone()
    return row[0] if row else None


def grant_lease(db: sqlite3.Connection, sandbox: str, session: str, nonce: str) -> int:
    """A new lease; its fence is higher than any before it on this sandbox."""
    sql = """INSERT INTO leases VALUES (?, 1, ?, ?)
             ON CONFLICT (sandbox) DO UPDATE SET fence = fence + 1, session = excluded.session, nonce = excluded.nonce
             RETURNING fence"""
    (fence,) = db.execute(sql, (sandbox, session, nonce)).fetchone()
    return int(fence)


def order_json(order: SessionOrder) -> str:
    """An order as it is kept: what its inputs contained lives in the artefact store."""
    return order.model_copy(update={"inputs": {}}).model_dump_json(by_alias=True, exclude_none=True)
