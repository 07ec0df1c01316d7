"""`folkmoot verify`: the reader's memory (--state), policies and pinned authorities as words, and several processes at once."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest
import timestamps
from logs import ORIGIN, TestLog, story

from folkmoot_cli import state, workers
from folkmoot_cli.main import main
from folkmoot_cli.sources import open_source
from folkmoot_cli.verify import verify_source
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.audit import Trust, verify_log
from folkmoot_core.ledger.policy import Log, Policy


@pytest.fixture
def log() -> TestLog:
    made = TestLog(second_key=True)
    story(made)
    return made.publish()


def verified(log: TestLog, directory: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["verify", str(log.write(directory)), *words])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_what_was_verified_is_remembered_and_must_only_grow(
    log: TestLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remembered = tmp_path / "state.json"
    words = ["--key", log.vkey, "--state", str(remembered)]
    assert verified(log, tmp_path / "a", capsys, *words)[0] == 0
    first = json.loads(remembered.read_text())
    assert (first["origin"], first["size"], first["root"]) == (ORIGIN, 8, log.rows().root().hex())
    log.fill(400)
    code, said = verified(log.publish(), tmp_path / "b", capsys, *words)
    assert code == 0
    assert "the log extends what was verified earlier, 8 entries" in said
    assert json.loads(remembered.read_text())["size"] == 408
    kept = remembered.read_bytes()

    log.entries[3] = log.entries[3].replace(b"claude", b"clouds")
    code, said = verified(log.publish(), tmp_path / "c", capsys, *words)
    assert code == 1
    assert "forked or rewritten: its first 408 entries" in said
    short = TestLog(second_key=True)
    code, said = verified(short.publish(), tmp_path / "d", capsys, *words)
    assert code == 1
    assert "the log has shrunk: 408 entries were verified earlier, now there are 1" in said
    assert remembered.read_bytes() == kept


def test_only_a_log_that_verifies_is_remembered(log: TestLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.files["tile/0/000.p/8"] = bytes(256)
    assert verified(log, tmp_path / "a", capsys, "--state", str(tmp_path / "state"))[0] == 1
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"checkpoint": 5}', b"\xff", b"[" * 60_000, b'{"checkpoint": "x"}'])
def test_a_file_that_is_no_state_is_not_overwritten(
    log: TestLog, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "precious"
    file.write_bytes(content)
    code, said = verified(log, tmp_path / "a", capsys, "--state", str(file))
    assert code == 3
    assert "is no state of" in said
    assert file.read_bytes() == content


def test_a_state_that_was_changed_by_hand(log: TestLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "state"
    assert verified(log, tmp_path / "a", capsys, "--state", str(file))[0] == 0
    file.write_text(file.read_text().replace('"size": 8', '"size": 1'))
    assert "changed by hand" in verified(log, tmp_path / "a", capsys, "--state", str(file))[1]


def test_a_state_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot write"):
        state.replace(tmp_path / "no" / "state", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(Invalid, match="cannot write"):
        state.replace(tmp_path / "folder", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_policy_file(log: TestLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "policy"
    policy.write_text(Policy((Log(log.key.verifier()),)).text())
    code, said = verified(log, tmp_path / "a", capsys, "--policy", str(policy))
    assert code == 0
    assert "not whose it is" not in said
    policy.write_text("witness\nquorum none\n")
    code, said = verified(log, tmp_path / "a", capsys, "--policy", str(policy))
    assert code == 3
    assert f"{policy}: policy, line 1" in said


def test_pinned_authorities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, authority = TestLog(), timestamps.forger()
    signed = log.publish().files["checkpoint"]
    stamp, files = timestamps.stamped(authority, signed)
    del files[stamp.pem]
    log.add("anchor", by="core/ledger", data=stamp.data())
    log.publish().files |= files
    pem, other = tmp_path / "tsa.pem", tmp_path / "other.pem"
    pem.write_text(timestamps.pem(authority.chain))
    other.write_text(timestamps.pem(timestamps.rogue().chain))
    for words in (["--tsa-ca", str(pem)], ["--tsa-ca", f"honest={pem}", "--tsa-ca", str(other)]):
        code, said = verified(log, tmp_path / "a", capsys, *words)
        assert code == 0
        assert "the first 1 entries existed at 2026-11-27T12:00:00Z, as honest signed" in said
        assert "pin yours" not in said
    assert verified(log, tmp_path / "a", capsys, "--tsa-ca", str(other))[0] == 1
    assert verified(log, tmp_path / "a", capsys)[0] == 1


def test_a_link_out_of_the_directory_is_not_followed(log: TestLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = log.write(tmp_path / "a")
    (tmp_path / "outside").write_bytes((directory / "checkpoint").read_bytes())
    (directory / "checkpoint").unlink()
    (directory / "checkpoint").symlink_to(tmp_path / "outside")
    assert main(["verify", str(directory)]) == 3
    assert "leads out of" in capsys.readouterr().err


def test_nor_is_one_beside_files_that_were_read(log: TestLog, tmp_path: Path) -> None:
    directory = log.write(tmp_path / "a")
    with open_source(str(directory)) as read:
        assert read("log.vkey") is not None
        assert read("absent") is None
        (directory / "out").symlink_to(log.write(tmp_path / "b") / "log.vkey")
        with pytest.raises(Invalid, match="leads out of"):
            read("out")
        (directory / "in").symlink_to(directory / "log.vkey")
        assert read("in") == read("log.vkey")
        assert read("tile") is None
        os.mkfifo(directory / "pipe")
        assert not read("pipe")


# -- several processes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_log() -> TestLog:
    made = TestLog()
    made.fill((workers.ALONE + 40) * 256)
    return made.publish()


@pytest.fixture
def directory(long_log: TestLog, tmp_path: Path) -> Path:
    return long_log.write(tmp_path / "long")


def test_processes_find_what_one_finds(directory: Path, long_log: TestLog) -> None:
    """Above the size from which they are used: a wrong link, an id that came before, a bundle that is gone."""
    with open_source(str(directory)) as read:
        whole = verify_log(read, Trust(long_log.vkey), run=workers.runner(str(directory))).report
    assert whole.ok
    assert whole.types["heartbeat"] == (workers.ALONE + 40) * 256
    late = directory / f"tile/entries/{workers.ALONE + 20:03d}"
    data = late.read_bytes()
    late.write_bytes(data.replace(b"heartbeat/0216", b"heartbeat/0016", 1))
    with open_source(str(directory)) as read:
        several = verify_log(read, run=workers.runner(str(directory))).report
    with open_source(str(directory)) as read:
        one = verify_log(read).report
    assert several.as_json() == one.as_json()
    assert {check.name for check in several.checks if not check.ok} == {"links", "ids", "tiles", "root"}
    late.unlink()
    with open_source(str(directory)) as read:
        gone = verify_log(read, run=workers.runner(str(directory))).report
    assert "entries" in {check.name for check in gone.checks if not check.ok}


def test_processes_read_a_tar(directory: Path, long_log: TestLog, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "log.tar", "w") as archive:
        archive.add(directory, ".")
    report = verify_source(str(tmp_path / "log.tar"), Trust(long_log.vkey))
    assert report.ok
    assert report.types["heartbeat"] == (workers.ALONE + 40) * 256


def test_what_a_process_cannot_read_is_said_here(directory: Path, tmp_path: Path) -> None:
    late = directory / f"tile/entries/{workers.ALONE + 20:03d}"
    late.rename(tmp_path / "outside")
    late.symlink_to(tmp_path / "outside")
    with pytest.raises(Invalid, match="leads out of"):
        verify_source(str(directory), Trust())
