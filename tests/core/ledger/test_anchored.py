"""Timestamps beside a log: what holds, and each way in which one does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import timestamps
from logs import ORIGIN, TestLog, seeded
from timestamps import Leaf

from folkmoot_core.ledger import anchor, anchored, tiles, timestamp
from folkmoot_core.ledger.anchor import Stamp
from folkmoot_core.ledger.anchored import check_anchors
from folkmoot_core.ledger.audit import verify_log
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.findings import Report
from folkmoot_core.ledger.note import Ed25519Signer
from folkmoot_core.ledger.tiles import Rows
from folkmoot_core.ledger.tree import leaf_hash

SIZE = 5


def archived(log: TestLog, size: int = SIZE) -> bytes:
    rows = Rows()
    rows.extend([leaf_hash(entry) for entry in log.entries[:size]])
    return Checkpoint(ORIGIN, size, rows.root()).sign([log.key])


def timestamped(signer: Any = None, **data: Any) -> TestLog:
    log = TestLog()
    log.fill(SIZE - 1)
    stamp, files = timestamps.stamped(signer or timestamps.forger(), archived(log))
    log.add("anchor", by="core/ledger", data={**stamp.data(), **data})
    log.publish().files |= files
    return log


def stamp_of(log: TestLog) -> Stamp:
    return anchor.read(json.loads(log.entries[-1])["data"])


def checked(log: TestLog, pinned: dict[str, str] | None = None, newest: int = anchored.NEWEST) -> Report:
    found = verify_log(log.read)
    check_anchors(found, log.read, pinned or {}, newest)
    return found.report


def sentence(log: TestLog, pinned: dict[str, str] | None = None) -> str:
    (check,) = [check for check in checked(log, pinned).checks if not check.ok]
    assert check.name == "timestamps"
    return check.findings[0]


def test_a_timestamp_holds() -> None:
    report = checked(timestamped())
    assert report.ok
    (anchor,) = report.anchors
    assert (anchor.size, anchor.authority, anchor.pinned) == (SIZE, "honest", False)
    assert datetime.fromisoformat(anchor.time) == timestamps.NOW.astimezone(UTC)
    assert any(f"the first {SIZE} entries existed at" in note for note in report.notes)
    assert any("beside the log" in note for note in report.notes)


def test_pinned_certificates_are_what_counts() -> None:
    log = timestamped()
    beside = stamp_of(log).pem
    pem = log.files.pop(beside).decode()
    assert checked(log, {"honest": pem}).anchors[0].pinned
    assert checked(log, {"": pem}).ok
    other = timestamps.pem(timestamps.rogue().chain)
    assert "honest" in sentence(log, {"": other})
    assert f"{beside} is missing" in sentence(log)


def test_a_retired_certificate_is_known_by_the_root_that_is_pinned() -> None:
    log = timestamped()
    renewed = timestamps.forger(Leaf(serial=78), timestamps.key(3))
    report = checked(log, {"honest": timestamps.pem(renewed.chain)})
    assert report.ok
    assert report.anchors[0].pinned
    log.files.pop(stamp_of(log).pem)
    assert "another certificate than the pinned one" in sentence(log, {"honest": timestamps.pem(renewed.chain)})


def test_a_foreign_authority_beside_the_log_is_not_believed_over_the_pinned_one() -> None:
    log = timestamped(timestamps.rogue())
    assert checked(log).anchors[0].pinned is False
    honest = {"honest": timestamps.pem(timestamps.forger().chain)}
    assert "another certificate than the pinned one" in sentence(log, honest)
    mimicked = timestamped(timestamps.mimic())
    assert sentence(mimicked, honest)


def test_a_log_without_timestamps_is_asked_for_none() -> None:
    assert [check.name for check in checked(TestLog().publish()).checks][-1] == "root"


def test_a_query_is_not_needed_and_is_believed_where_it_is() -> None:
    log = timestamped()
    log.files.pop(f"anchors/{SIZE}.honest.tsq")
    assert checked(log).ok
    log.files[f"anchors/{SIZE}.honest.tsq"] = timestamp.query(b"x", timestamps.NONCE + 1)
    assert "nonce" in sentence(log)


def other_root(log: TestLog) -> None:
    log.files[f"checkpoints/{SIZE}"] = Checkpoint(ORIGIN, SIZE, bytes(32)).sign([log.key])


def other_key(log: TestLog) -> None:
    stranger = Ed25519Signer.from_seed(ORIGIN, seeded("stranger"))
    log.files[f"checkpoints/{SIZE}"] = Checkpoint(ORIGIN, SIZE, log.rows().root(SIZE)).sign([stranger])


def other_size(log: TestLog) -> None:
    log.files[f"checkpoints/{SIZE}"] = archived(log, 3)


def other_token(log: TestLog) -> None:
    log.files[f"anchors/{SIZE}.honest.tsr"] = timestamps.respond(timestamps.forger())


def no_token(log: TestLog) -> None:
    del log.files[f"anchors/{SIZE}.honest.tsr"]


def no_checkpoint(log: TestLog) -> None:
    del log.files[f"checkpoints/{SIZE}"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_root, "forked or rewritten"), (other_key, "none of the known keys"), (other_size, "is of 3 entries"),
        (other_token, "is not the token"), (no_token, "tsr is missing"), (no_checkpoint, "checkpoints/5 is missing"),
    ],
)  # fmt: skip
def test_what_is_refused(change: Callable[[TestLog], None], says: str) -> None:
    log = timestamped()
    change(log)
    assert says in sentence(log)


def test_a_token_over_other_bytes() -> None:
    log = timestamped(token=anchor.digest_of(timestamps.respond(timestamps.forger())))
    other_token(log)
    assert sentence(log)


def test_certificates_that_are_not_those_of_then() -> None:
    log = timestamped()
    log.files[stamp_of(log).pem] = timestamps.pem(timestamps.rogue().chain).encode()
    assert "is not the file whose SHA-256 the entry has" in sentence(log)


@pytest.mark.parametrize(
    "data",
    [
        {"size": 99}, {"size": "5"}, {"size": 0}, {"size": True}, {"authority": "../x"}, {"authority": 5}, {"token": ""}, {"root": "0" * 63},
        {"root": "0" * 64}, {"certificates": "sha256:.."}, {"time": "2026-11-27T12:00:01Z"}, {"time": "noon"}, {"time": "2026-02-30T00:00:00Z"}, {"policy": "1.2.3"},
    ],
)  # fmt: skip
def test_entries_that_say_something_else_than_the_files(data: dict[str, Any]) -> None:
    assert sentence(timestamped(**data)).startswith(f"entry {SIZE}: ")


def test_a_closed_logs_end_is_timestamped_without_an_entry() -> None:
    log = TestLog()
    log.fill(SIZE - 1)
    stamp, files = timestamps.stamped(timestamps.forger(), archived(log))
    log.publish().files |= {**files, anchor.CLOSING: anchor.write_closing([stamp])}
    report = checked(log)
    assert report.ok
    assert [found.size for found in report.anchors] == [SIZE]
    log.files.pop(stamp.response)
    assert sentence(log) == f"{anchor.CLOSING}: {stamp.response} is missing"
    log.files[anchor.CLOSING] = b'{"anchors":5}'
    assert "is not what a closed log writes" in sentence(log)


def test_only_the_newest_are_checked_and_that_is_said() -> None:
    log = timestamped()
    files = {path: data for path, data in log.files.items() if path.startswith(("checkpoints", "anchors"))}
    log.add("anchor", by="core/ledger", data=stamp_of(log).data())
    log.publish().files |= files
    report = checked(log, newest=1)
    assert report.ok
    assert len(report.anchors) == 1
    assert any("of 2 timestamps the newest 1" in note for note in report.notes)


def test_keys_before_a_rotation_signed_what_was_archived_then() -> None:
    log = timestamped()
    files = {path: data for path, data in log.files.items() if path.startswith(("checkpoints", "anchors"))}
    log.rotate("next")
    log.publish().files |= files
    assert checked(log).ok
    assert tiles.CHECKPOINT in log.files
