"""Verification beyond a plain log: keys that changed, two signatures, witnesses, pruned bundles, what was seen before."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import NOW, ORIGIN, TestLog, seeded, story

from folkmoot_core.errors import Invalid, Missing
from folkmoot_core.ledger import chain, tiles
from folkmoot_core.ledger.audit import Seen, Trust, verify_log
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.cosignature import Ed25519Cosigner, MlDsaSigner
from folkmoot_core.ledger.findings import Report
from folkmoot_core.ledger.look import Read, Task, look_at
from folkmoot_core.ledger.note import Ed25519Signer
from folkmoot_core.ledger.policy import Group, Log, Policy, Witness
from folkmoot_core.ledger.tiles import Tile

ANYTHING = Trust()


def checked(log: TestLog, trust: Trust = ANYTHING, **how: Any) -> Report:
    return verify_log(log.read, trust, **how).report


def failing(report: Report) -> dict[str, str]:
    return {check.name: check.findings[0] for check in report.checks if not check.ok}


# -- keys ---------------------------------------------------------------------------------------------------------------


def rotated(*, second_key: bool = False) -> tuple[TestLog, str]:
    log = TestLog(second_key=second_key)
    first = log.vkey
    log.fill(3)
    log.rotate("next")
    log.fill(3)
    log.rotate("third")
    return log.publish(), first


@pytest.mark.parametrize("second_key", [False, True])
def test_keys_are_followed_from_the_first_to_the_one_that_signs(second_key: bool) -> None:
    log, first = rotated(second_key=second_key)
    for trusted in (None, first, log.vkey):
        report = checked(log, Trust(trusted))
        assert failing(report) == {}
        assert report.key_given == (trusted is not None)
        assert any("changed 2 times, last in entry 8" in note for note in report.notes)


def test_a_key_that_the_log_never_had_is_not_led_to_the_one_that_signs() -> None:
    log, _ = rotated()
    other = Ed25519Signer.from_seed(ORIGIN, seeded("other")).verifier().vkey()
    assert "none that the log ever had" in failing(checked(log, Trust(other)))["opening"]


def test_a_rotation_that_the_key_before_did_not_sign() -> None:
    """Somebody without the old key writes the entry and signs with a key of their own."""
    log = TestLog()
    log.fill(2)
    first = log.vkey
    log.rotate("thief", old=Ed25519Signer.from_seed(ORIGIN, seeded("another")))
    found = failing(checked(log.publish(), Trust(first)))
    assert "its keys are not the log's" in found["opening"]


@pytest.mark.parametrize("data", [{}, {"statement": 5}, {"vkey": "x"}])
def test_a_rotation_that_is_none(data: dict[str, Any]) -> None:
    log = TestLog()
    log.add("log.key.rotated", by="core/ledger", data=data)
    assert set(failing(checked(log.publish()))) == {"opening"}


def test_a_checkpoint_by_a_key_that_no_rotation_introduced() -> None:
    log, first = rotated()
    log.key = Ed25519Signer.from_seed(ORIGIN, seeded("stolen name"))
    assert "entry 8 introduced another key" in failing(checked(log.publish(), Trust(first)))["opening"]


def test_the_second_signature_is_asked_for() -> None:
    log = TestLog(second_key=True)
    log.fill(4)
    assert failing(checked(log.publish())) == {}
    assert len(checked(log).signers) == 2
    alone = Checkpoint(ORIGIN, 5, log.rows().root()).sign([log.key])
    log.files[tiles.CHECKPOINT] = alone
    assert "lacks the signature" in failing(checked(log))["checkpoint"]
    del log.files[tiles.MLDSA_VKEY]  # entry 0 still says that there is one
    assert set(failing(checked(log))) == {"opening"}
    log.publish()
    del log.files[tiles.MLDSA_VKEY]  # and where it signed, its file is not needed
    assert failing(checked(log)) == {}


def test_a_wrong_line_of_a_known_key_refuses_the_checkpoint() -> None:
    log = TestLog(second_key=True)
    forged = MlDsaSigner.from_seed(ORIGIN, seeded("second")).at(NOW).line(Checkpoint(ORIGIN, 7, bytes(32)).body())
    plain = Checkpoint(ORIGIN, 1, log.rows().root()).sign([log.key])
    log.publish().files[tiles.CHECKPOINT] = plain + forged.encode()
    assert "does not verify" in failing(checked(log))["checkpoint"]


@pytest.mark.parametrize("name", [tiles.VKEY, tiles.MLDSA_VKEY])
def test_key_files_that_hold_no_key(name: str) -> None:
    log = TestLog().publish()
    log.files[name] = b"nonsense"
    with pytest.raises(Invalid, match=name):
        checked(log)


def test_what_is_no_key_of_a_log() -> None:
    log = TestLog().publish()
    with pytest.raises(Invalid, match="Ed25519 key"):
        checked(log, Trust(MlDsaSigner.from_seed(ORIGIN, seeded("x")).verifier().vkey()))
    del log.files[tiles.VKEY]
    with pytest.raises(Missing, match="no key"):
        checked(log)


def test_another_origin_than_the_one_asked_for() -> None:
    assert "expected 'folkmoot/other'" in failing(checked(TestLog().publish(), Trust(origin="folkmoot/other")))["checkpoint"]


# -- witnesses ----------------------------------------------------------------------------------------------------------

WITNESS = Ed25519Cosigner.from_seed("witness.example/w1", seeded("witness"))


def rules(log: TestLog, quorum: str = "w1") -> Policy:
    return Policy((Log(log.key.verifier()),), (Witness("w1", WITNESS.verifier()),), quorum=quorum)


def test_a_given_policy_is_a_key_and_a_quorum() -> None:
    log = TestLog()
    log.fill(2)
    report = checked(log.publish(WITNESS.at(NOW)), Trust(policy=rules(log)))
    assert failing(report) == {}
    assert report.key_given
    assert any(
        "witness.example/w1 Ed25519 cosignature" in signer and "2027-01-15T08:00:00" in signer for signer in report.signers
    )
    assert "cosigned by no witness" in failing(checked(log.publish(), Trust(policy=rules(log))))["witnesses"]


def test_the_logs_own_policy_is_checked_and_said_to_be_its_own() -> None:
    log = TestLog()
    log.publish(WITNESS.at(NOW)).files[tiles.POLICY] = rules(log).text().encode()
    report = checked(log)
    assert failing(report) == {}
    assert any("those that the log itself names" in note for note in report.notes)
    log.publish().files[tiles.POLICY] = rules(log).text().encode()
    assert set(failing(checked(log))) == {"witnesses"}
    log.files[tiles.POLICY] = b"quorum"
    assert "cannot be read" in failing(checked(log))["checkpoint"]


def test_a_policy_without_witnesses_is_no_check_of_its_own() -> None:
    log = TestLog().publish()
    log.files[tiles.POLICY] = Policy((Log(log.key.verifier()),)).text().encode()
    assert "witnesses" not in [check.name for check in checked(log).checks]
    group = Policy((Log(log.key.verifier()),), (Witness("w1", WITNESS.verifier()),), (Group("g", 1, ("w1",)),), "g")
    assert set(failing(checked(log, Trust(policy=group)))) == {"witnesses"}


# -- pruning ------------------------------------------------------------------------------------------------------------


def pruned(minimum: int, *, by: str = "core/ledger") -> TestLog:
    log = TestLog()
    log.fill(600)
    log.add("retention.pruned", by=by, data={"minimum": minimum})
    log.publish()
    for index in range(minimum // 256):
        del log.files[f"tile/entries/{index:03d}"]
    return log


def test_a_pruned_log_still_verifies() -> None:
    log = pruned(512)
    report = checked(log, Trust(log.vkey))
    assert failing(report) == {}
    assert report.pruned == 512
    assert report.types == {"heartbeat": 89, "retention.pruned": 1}
    assert any("entry 0, which names" in note for note in report.notes)


def test_keys_are_followed_in_a_pruned_log() -> None:
    log = TestLog()
    log.fill(300)
    before = log.vkey
    log.rotate("next")
    log.add("retention.pruned", by="core/ledger", data={"minimum": 256})
    log.publish()
    del log.files["tile/entries/000"]
    assert failing(checked(log, Trust(before))) == {}
    other = Ed25519Signer.from_seed(ORIGIN, seeded("other")).verifier().vkey()
    assert set(failing(checked(log, Trust(other)))) == {"opening"}


def test_the_given_key_must_sign_where_nothing_hands_over() -> None:
    log = pruned(256)
    other = Ed25519Signer.from_seed(ORIGIN, seeded("other")).verifier().vkey()
    assert "hand over" in failing(checked(log, Trust(other)))["opening"]


@pytest.mark.parametrize(
    "change",
    [
        lambda log: log.files.pop("tile/entries/001"),  # above the minimum
        lambda log: log.files.pop("tile/entries/002.p/90"),  # the last, which holds the entry about it
        lambda log: log.files.pop("tile/0/000"),  # the hashes must stay
        lambda log: log.files.update({"tile/0/000": bytes(8192)}),
        lambda log: log.files.update({"tile/0/000": b""}),
    ],
)
def test_what_pruning_does_not_excuse(change: Callable[[TestLog], Any]) -> None:
    log = pruned(256)
    assert failing(checked(log)) == {}
    change(log)
    assert failing(checked(log)) != {}


def test_nobody_but_the_ledger_prunes() -> None:
    assert "no retention.pruned entry" in failing(checked(pruned(256, by="broker")))["entries"]
    log = TestLog()
    log.fill(300)
    log.publish().files.pop("tile/entries/000")
    assert "entries" in failing(checked(log))


# -- what was seen before -------------------------------------------------------------------------------------------------


def test_history() -> None:
    log = TestLog()
    log.fill(40)
    seen = Seen(ORIGIN, 41, log.rows().root())
    log.fill(400)
    assert failing(checked(log.publish(), Trust(seen=seen))) == {}
    assert "forked or rewritten" in failing(checked(log, Trust(seen=Seen(ORIGIN, 41, bytes(32)))))["history"]
    assert "has shrunk: 900" in failing(checked(log, Trust(seen=Seen(ORIGIN, 900, bytes(32)))))["history"]
    assert "is of log 'folkmoot/b'" in failing(checked(log, Trust(seen=Seen("folkmoot/b", 41, seen.root))))["history"]


# -- entries --------------------------------------------------------------------------------------------------------------


def test_an_id_that_comes_again_a_bundle_later_is_found_and_named() -> None:
    log = TestLog()
    log.add("heartbeat", id="same-id-01")
    log.fill(300)
    log.add("heartbeat", id="same-id-01")
    found = failing(checked(log.publish()))
    assert found == {"ids": "entry 302: /x/core/conductor recorded id 'same-id-01' before"}


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3), max_size=60), st.integers(1, 100))
def test_identities_are_sifted_in_slices(hashes: list[int], sifted: int) -> None:
    assert chain.repeated(array("q", hashes), sifted) == {one for one in hashes if hashes.count(one) > 1}


def test_commitments_that_are_asked_for_are_found_with_their_entry() -> None:
    log = TestLog()
    story(log)
    assert checked(log.publish(), wanted={"2" * 64, "9" * 64}).opened == {"2" * 64: 4}


def test_everybody_who_watches_is_told_each_entry_in_order() -> None:
    log = TestLog()
    log.fill(300)
    told: list[int] = []
    done: list[tuple[int, int]] = []
    report = checked(log.publish(), watch=lambda index, entry, leaf: told.append(index), progress=lambda *at: done.append(at))
    assert failing(report) == {}
    assert told == list(range(301))
    assert done == [(256, 301), (301, 301)]


def test_a_runner_that_looks_ahead_changes_nothing() -> None:
    """As processes do: several bundles under way, results in order."""

    def ahead(read: Read, task: Task, bundles: Iterable[Tile]) -> Iterator[Any]:
        yield from [look_at(read, task, tile) for tile in list(bundles)]

    log = pruned(256)
    assert failing(checked(log, run=ahead)) == {}
    log.files["tile/entries/001"] = b"\0"
    assert "tile/entries/001" in failing(checked(log, run=ahead))["entries"]


def test_kinds_and_producers_without_end_are_counted_together() -> None:
    log = TestLog()
    for number in range(400):
        log.add(f"made.up.{number}", by=f"agents/a{number}")
    report = checked(log.publish())
    assert report.ok
    assert len(report.types) == chain.MAX_KINDS + 1
    assert report.types["(others)"] + chain.MAX_KINDS == 401
    assert sum(report.producers.values()) == 401


def test_erasures_are_collected() -> None:
    log = TestLog()
    at = log.add("erasure", data={"count": 2})
    assert checked(log.publish()).erasures == {at}


def test_a_report_for_programs() -> None:
    log = TestLog()
    story(log)
    value = checked(log.publish(), Trust(log.vkey)).as_json()
    assert (value["ok"], value["keyGiven"], value["size"], value["types"]["gate.verdict"]) == (True, True, 8, 1)
    assert [check["name"] for check in value["checks"]] == ["checkpoint", "entries", "links", "ids", "opening", "tiles", "root"]
