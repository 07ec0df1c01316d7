"""The law map against logs: each machine check finds what it must and is silent where nothing is wrong."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from logs import CONFIG, NOW, TestLog, story

from folkmoot_core.entries import rfc3339
from folkmoot_core.ledger import law
from folkmoot_core.ledger.audit import verify_log
from folkmoot_core.ledger.coverage import Answer, Coverage, Setting, moment


def answers(log: TestLog, setting: Setting | None = None) -> dict[str, Answer]:
    collector = Coverage(setting or Setting())
    report = verify_log(log.publish().read, watch=collector.see).report
    return {one.clause.id: one for one in collector.answers(report)}


def told() -> TestLog:
    log = TestLog()
    story(log)
    return log


def gaps(log: TestLog, clause: str, setting: Setting | None = None) -> str:
    """The gaps that the log has, without what stays open whatever it holds."""
    found = answers(log, setting)[clause]
    return "; ".join(gap for gap in found.gaps if gap != found.clause.open)


def test_a_log_with_a_story_supports_what_it_can() -> None:
    found = answers(told())
    assert found["12(2)(c)"].status == "supported"
    assert (found["12(1)"].evidence["log.opened"].count, found["12(1)"].evidence["log.opened"].first) == (1, 0)
    assert found["12(2)(c)"].evidence["session.end"].last == 7
    assert "6 actions under a configuration" in " ".join(found["12(2)(a)"].found)
    assert {one.status for one in found.values()} == {"supported", "gap", "not applicable"}
    assert all(one.gaps for one in found.values() if one.status == "gap")


def test_only_remote_biometric_identification_is_asked_for_12_3() -> None:
    ids = {"12(3)(a)", "12(3)(b)", "12(3)(c)", "12(3)(d)"}
    assert {clause for clause, one in answers(told()).items() if one.status == "not applicable"} == ids
    asked = answers(told(), Setting(biometric=True))
    assert asked["12(3)(a)"].status == "supported"
    assert asked["12(3)(c)"].evidence["model.call.intent"].count == 1
    assert "no entry of a decision by a person" in " ".join(asked["12(3)(d)"].gaps)


def test_silence_is_a_gap_and_a_heartbeat_ends_it() -> None:
    log = told()
    log.add("heartbeat", by="core/ledger", after=899)
    assert gaps(log, "12(1)") == ""
    log.add("heartbeat", by="core/ledger", after=901)
    assert "1 silences longer than 15 min while the log was open: 15 min before entry 9" in gaps(log, "12(1)")
    for _ in range(9):
        log.add("heartbeat", by="core/ledger", after=2000)
    assert "10 silences" in gaps(log, "12(1)")
    assert gaps(log, "12(1)", Setting(silence=3000)) == ""


def test_a_live_log_must_have_spoken_until_now_and_a_closed_one_need_not() -> None:
    log = told()
    later = Setting(until=datetime.fromtimestamp(NOW + 4000, UTC))
    assert "min before entry 8" in gaps(log, "12(1)", later)
    assert gaps(log, "12(1)", Setting(until=datetime.fromtimestamp(NOW + 60, UTC))) == ""
    log.add("log.closed", by="core/ledger")
    assert gaps(log, "12(1)", later) == ""


def test_a_change_without_an_entry_is_a_gap() -> None:
    log = told()
    log.add("gate.verdict", session="uid-1", config="sha256:" + "d" * 64)
    assert "1 actions carry a configuration that no config.changed entry before them introduced, the first in entry 8" in gaps(
        log, "12(2)(a)"
    )
    log.add("config.changed", config="", data={"document": "sha256:" + "e" * 64})
    log.add("gate.verdict", session="uid-1", config="sha256:" + "e" * 64)
    assert "1 actions" in gaps(log, "12(2)(a)")


def test_actions_without_a_configuration_are_named_by_kind() -> None:
    log = told()
    log.add("tool.call.intent", by="agents/builder", config="")
    assert "1 actions carry no configuration, the first in entry 8: tool.call.intent (1)" in gaps(log, "12(2)(a)")


def test_sessions_are_paired() -> None:
    log = told()
    log.add("session.start", session="uid-2")
    log.add("session.end", session="uid-3")
    said = gaps(log, "12(2)(c)")
    assert "1 sessions have no end (they may still run), begun in entries 8" in said
    assert "1 sessions have an end and no start, the first in entry 9" in said
    log.add("session.cancelled", session="uid-2")
    assert "no end" not in gaps(log, "12(2)(c)")


def test_calls_are_paired() -> None:
    log = told()
    log.add("model.call.intent", by="broker", data={"folkmoot.call_key": "k1", "folkmoot.run": 2})
    log.add("tool.call.intent", by="agents/a", data={"task": "t", "call": 1, "gen_ai.tool.call.id": "c"})
    assert "2 calls have no outcome, announced in entries 8, 9" in gaps(log, "12(2)(b)")
    log.add("tool.call.outcome", by="agents/a", data={"task": "t", "call": 1, "gen_ai.tool.call.id": "c", "state": "done"})
    log.add("model.call.outcome", by="broker", data={"folkmoot.call_key": "k1", "folkmoot.run": 2, "folkmoot.outcome": "refused"})
    found = answers(log)
    assert "3 of 3 announced calls have an outcome" in found["12(2)(b)"].found
    assert "1 refusals" in found["26(5)"].found


@pytest.mark.parametrize(("days", "says"), [(None, "does not say how long"), (183, "kept for 183 days"), (184, ""), (366, "")])
def test_retention_has_a_floor(days: int | None, says: str) -> None:
    for clause in ("19(1)", "26(6)"):
        assert says in gaps(told(), clause, Setting(retention_days=days))
        assert bool(says) == bool(gaps(told(), clause, Setting(retention_days=days)))


def test_pruning_is_said() -> None:
    log = TestLog()
    log.fill(300)
    log.add("retention.pruned", by="core/ledger", data={"minimum": 256})
    found = answers(log)
    assert "entries below 256 are pruned, as an entry says" in found["19(1)"].found
    assert "positions 256 to 301 without a gap" in found["12(1)"].found
    log.publish().files.pop("tile/entries/000")
    collector = Coverage()
    report = verify_log(log.read, watch=collector.see).report
    (keys,) = [one for one in collector.answers(report) if one.clause.id == "18"]
    assert any("entry 0, which names the log's keys, is not here" in gap for gap in keys.gaps)


def test_keys_and_timestamps() -> None:
    log = told()
    assert "no timestamp by a third party" in gaps(log, "73")
    log.rotate("next")
    log.add("anchor", by="core/ledger", data={"size": 5}, after=30)
    log.add("anchor", by="core/ledger", data={"size": 9}, after=120)
    found = answers(log)
    assert "keys changed 1 times" in found["18"].found
    assert "2 timestamps, at most 120 s apart; 0 verified here" in found["73"].found
    assert "none of the timestamps was verified here" in found["73"].gaps


def test_holds_reads_and_exports_are_counted() -> None:
    log = told()
    log.add("legal.hold", data={"hold": "h"})
    log.add("evidence.read", by="core/ledger", data={"reader": "folkmoot-auditor"})
    found = answers(log)
    assert "1 legal holds, 0 released" in found["73"].found
    assert "1 minutes with reads, 0 exports" in found["20, 21(2)"].found


def test_what_does_not_verify_or_cannot_be_read_is_no_evidence() -> None:
    log = told()
    log.entries[3] = b"not an entry"
    said = gaps(log, "12(1)")
    assert "does not verify" in said
    assert "could not be read at 1 places" in said


def test_an_empty_story_lacks_what_is_expected_and_not_what_need_never_be() -> None:
    log = TestLog()
    assert "no entry of any of these kinds: config.changed" in gaps(log, "12(2)(a)")
    assert "no entry of any" not in gaps(log, "19(1)")
    assert "no entry of any" not in gaps(log, "13(3)(f)")


def test_times_that_are_none_stop_no_clock() -> None:
    log = told()
    log.entries[-1] = log.entries[-1].replace(rfc3339(log.time).encode(), b"yesterday")
    assert "silences" not in gaps(log, "12(1)")
    assert moment("2026-01-01T00:00:00") is None


def test_an_answer_for_programs() -> None:
    value = answers(told())["12(1)"].as_json()
    assert value["evidence"]["log.opened"] == {"count": 1, "first": 0, "last": 0}
    assert (value["clause"], value["status"], len(value["gaps"])) == ("12(1)", "gap", 1)


def test_the_map_speaks_with_care() -> None:
    said = " ".join([*law.CARE, *(f"{c.asks} {c.supports} {c.says} {c.open}" for c in law.CLAUSES)]).lower()
    assert "complies" not in said
    assert "compliant" not in said
    assert "immutable" not in said
    for needed in ("2026/1744", "2 december 2027", "2 august 2028", "official journal", "a lawyer must confirm", "drafts", "184"):
        assert needed in said or needed == "184"
    assert law.FLOOR_DAYS == 184
    assert len({clause.id for clause in law.CLAUSES}) == len(law.CLAUSES)
    assert CONFIG
