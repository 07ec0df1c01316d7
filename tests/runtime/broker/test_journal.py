"""The journal by itself: what is durable, in which order, and that half a transaction never shows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from folkmoot_core.calls import CallAnswer, CallEnvelope, ModelResult, TextPart, Usage
from folkmoot_core.entries import Actor, new_entry
from folkmoot_runtime.broker import asks
from folkmoot_runtime.broker.journal import Call, Journal, Opening, Record


def entry(name: str) -> Record:
    made = new_entry("model.call.outcome", Actor(kind="agent", id="ana"), id=f"entry-{name}", data={"n": name}, now=1.0)
    return Record(made, Opening(b"s" * 32, b"content of " + name.encode()))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "calls.db")


def reopened(journal: Journal, tmp_path: Path) -> Journal:
    journal.close()
    return Journal(tmp_path / "calls.db")


def test_a_row_comes_back_as_it_was_put(journal: Journal, tmp_path: Path, call: Callable[..., CallEnvelope]) -> None:
    result = ModelResult(parts=(TextPart(text="ü"),), stop="end", usage=Usage(input_tokens=3), model_observed="m")
    answer = CallAnswer(call_key="k", result=result, family="claude", provider="p", cost="0.1", currency="EUR")
    row = Call("k", "ana", call(), "DONE", run=2, attempts=5, doubts=1, answer=answer)
    journal.put(row, 1.0)
    assert reopened(journal, tmp_path).get("k") == row
    assert Journal(tmp_path / "calls.db").get("other") is None


def test_only_what_is_sent_is_in_flight(journal: Journal, call: Callable[..., CallEnvelope]) -> None:
    for key, state in (("a", "PREPARED"), ("b", "SENT"), ("c", "DONE"), ("d", "FAILED"), ("e", "IN_DOUBT")):
        journal.put(Call(key, "ana", call(), state), 1.0)  # type: ignore[arg-type]
    assert [row.key for row in journal.in_flight()] == ["b"]
    journal.move("b", "PREPARED", 1, 2.0)
    assert journal.in_flight() == []


def test_entries_are_due_in_order_until_received(journal: Journal, tmp_path: Path, call: Callable[..., CallEnvelope]) -> None:
    row = Call("k", "ana", call(), "PREPARED")
    journal.put(row, 1.0, entry("intent"))
    journal.put(row, 1.0, entry("first"), due=True)
    journal.put(row, 1.0, entry("second"), due=True)
    journal.note(entry("note"), "other")
    assert [e.id for e in journal.due()] == ["entry-first", "entry-second", "entry-note"]
    assert [e.id for e in journal.owing("k")] == ["entry-first", "entry-second"]
    journal.received("entry-first", 7)
    assert [e.id for e in reopened(journal, tmp_path).due()] == ["entry-second", "entry-note"]


def test_an_entry_is_kept_as_it_was_made_first(journal: Journal, call: Callable[..., CallEnvelope]) -> None:
    row = Call("k", "ana", call(), "PREPARED")
    journal.put(row, 1.0, entry("one"))
    changed = new_entry("model.call.outcome", Actor(kind="agent", id="eve"), id="entry-one", data={}, now=2.0)
    journal.put(row, 1.0, Record(changed))
    kept = journal.entry("entry-one")
    assert kept is not None
    assert kept.actor.id == "ana"
    assert journal.opening("entry-one") == Opening(b"s" * 32, b"content of one")
    assert journal.opening("entry-none") is None


def test_row_and_entry_are_written_together_or_not_at_all(journal: Journal, call: Callable[..., CallEnvelope]) -> None:
    journal._db.execute("DROP TABLE entries")  # the second half of the transaction fails
    with pytest.raises(sqlite3.OperationalError):
        journal.put(Call("k", "ana", call(), "DONE"), 1.0, entry("lost"), due=True)
    assert journal.get("k") is None


def test_it_is_durable_by_its_settings(journal: Journal, tmp_path: Path) -> None:
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_content_is_not_readable_text_in_the_file_but_opens(
    journal: Journal, tmp_path: Path, call: Callable[..., CallEnvelope]
) -> None:
    """Compressed, not encrypted: this says that a search of the volume for a prompt finds nothing by accident."""
    journal.put(Call("k", "ana", call(text="canary " * 50), "PREPARED"), 1.0)
    journal.close()
    with sqlite3.connect(tmp_path / "calls.db") as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    assert b"canary canary canary" not in (tmp_path / "calls.db").read_bytes()


def test_what_is_done_with_each_state(call: Callable[..., CallEnvelope]) -> None:
    row = Call("k", "ana", call(), "PREPARED", run=3)
    assert asks.decide(None) == asks.Run(1, prepared=False)
    assert asks.decide(row) == asks.Run(3, prepared=True)
    for state in ("FAILED", "IN_DOUBT"):
        ended = Call("k", "ana", call(), state, run=3, doubts=1)  # type: ignore[arg-type]
        assert asks.decide(ended) == asks.Run(4, prepared=False)
        assert asks.decide(Call("k", "ana", call(), state, run=3, doubts=2)) == asks.Stay()  # type: ignore[arg-type]
