"""`folkmoot ledger tail|show|search|proof|export|coverage`, offline and through a kubectl of the test's own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from logs import NOW, ORIGIN, TestLog, seeded, story

from folkmoot_cli import ledger_read, otlp
from folkmoot_cli.ledger_export import event
from folkmoot_cli.logfiles import LogFiles
from folkmoot_cli.main import main
from folkmoot_core.canonical import commit, sha256_hex
from folkmoot_core.errors import FolkmootError, Invalid, Missing, Unavailable
from folkmoot_core.ledger import proof, tiles
from folkmoot_core.ledger.audit import Trust
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.cosignature import Ed25519Cosigner
from folkmoot_core.ledger.note import Ed25519Signer
from folkmoot_core.ledger.policy import Log, Policy, Witness

NAMESPACE = "folkmoot-acme"
Conductor = FakeKubectl = Any  # of conftest.py, which importlib mode lets nobody import
ANYTHING = Trust()


@pytest.fixture
def log() -> TestLog:
    made = TestLog(second_key=True)
    story(made)
    made.fill(600)
    return made.publish()


@pytest.fixture
def source(log: TestLog, tmp_path: Path) -> str:
    return str(log.write(tmp_path / "log"))


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["ledger", *words]) == code
    return capsys.readouterr().out


# -- reading ------------------------------------------------------------------------------------------------------------


def test_tail(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "tail", "--source", source, "-c", "3").splitlines()
    assert lines[0].split() == ["INDEX", "RECORDED", "TYPE", "BY", "WHAT"]
    assert [line.split()[0] for line in lines[1:]] == ["605", "606", "607"]
    found = [json.loads(line) for line in run(capsys, "tail", "--source", source, "-o", "json").splitlines()]
    assert [one["index"] for one in found] == list(range(598, 608))
    assert found[0]["entry"]["seq"] == 598
    assert len(run(capsys, "tail", "--source", source, "-c", "5000").splitlines()) == 609


def test_show(log: TestLog, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "show", "6", "--source", source, "--key", log.vkey)
    assert "proved in a checkpoint over 608 entries" in said
    assert '"verdict": "Approved"' in said
    assert "taken from the log itself" not in said
    assert "taken from the log itself" in run(capsys, "show", "6", "--source", source)
    assert json.loads(run(capsys, "show", "6", "--source", source, "-o", "json"))["entry"]["seq"] == 6
    assert main(["ledger", "show", "608", "--source", source]) == 3
    assert "none at index 608" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["show", "x"], ["show", "-1"], ["tail", "-c", "0"], ["show", "9" * 30], ["nothing"], []])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ledger", *words])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--type", "gate.verdict"], [6]), (["--type", "model.call"], [3, 4]), (["--type", "model"], [3, 4]), (["--type", "mod"], []),
        (["--session", "uid-1"], [2, 3, 4, 5, 6, 7]), (["--actor", "builder"], [3, 4, 5]), (["broker"], [3, 4]), (["council.vote/0000"], [5]),
        (["--session", "uid-1", "--type", "council.vote", "--type", "session"], [2, 5, 7]),
        (["--until", "2027-01-15T08:00:03Z"], [0, 1]), (["--since", "2027-01-15T08:10:07Z"], [606, 607]),
        (["--since", "2027-01-16"], []), (["--type", "heartbeat", "--limit", "2", "--first", "300"], [300, 301]),
    ],
)  # fmt: skip
def test_search(source: str, words: list[str], found: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "search", "--source", source, "-o", "json", *words, code=0 if found else 1)
    assert [json.loads(line)["index"] for line in said.splitlines()] == found


def test_a_time_that_is_none(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "search", "--source", source, "--since", "yesterday"]) == 3
    assert "is no time" in capsys.readouterr().err


def test_a_flipped_bit_is_never_shown(log: TestLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(log.files["tile/entries/001"])
    data[5000] ^= 1
    log.files["tile/entries/001"] = bytes(data)
    source = str(log.write(tmp_path / "bad"))
    assert main(["ledger", "show", "300", "--source", source]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "does not lead to the root" in captured.err
    assert main(["ledger", "show", "600", "--source", source]) == 0


def test_every_entry_of_every_size_is_proved() -> None:
    log = TestLog()
    for size in (1, 2, 3, 255, 256, 257, 511, 512, 513, 700):
        log.fill(size - len(log.entries))
        files = LogFiles(log.publish().read, ANYTHING)
        assert [one.raw for one in files.entries(0, size)] == log.entries
        made = LogFiles(log.read, ANYTHING).one(size - 1)
        assert made.entry is not None
        assert made.entry.seq == size - 1


def test_every_changed_leaf_of_a_bundle_is_refused() -> None:
    log = TestLog()
    log.fill(270)
    for changed in range(0, 271, 9):
        log.publish()
        path = "tile/entries/000" if changed < 256 else "tile/entries/001.p/15"
        log.files[path] = log.files[path].replace(b'"seq":%d,' % changed, b'"seq":%d,' % (changed + 1 if changed else 9))
        with pytest.raises(Invalid):
            list(LogFiles(log.read, ANYTHING).entries(0, 271))


def test_a_log_that_is_followed_must_grow_out_of_itself() -> None:
    log = TestLog()
    log.fill(300)
    files = LogFiles(log.publish().read, ANYTHING)
    assert not files.refresh()
    log.fill(300)
    log.publish()
    assert files.refresh()
    assert files.one(600).index == 600
    log.entries[5] = log.entries[5].replace(b"heartbeat", b"heartbeta")
    log.fill(10)
    log.publish()
    with pytest.raises(Invalid, match="does not lead to both roots"):
        files.refresh()
    log.entries = log.entries[:100]
    log.publish()
    with pytest.raises(Invalid, match="has shrunk"):
        files.refresh()


def test_following_ends_at_its_timeout() -> None:
    log = TestLog()
    files = LogFiles(log.publish().read, ANYTHING)
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] < 5:
            log.fill(2)
            log.publish()

    seen = [list(range(before, files.point.size)) for before in ledger_read.Follow(9, sleep, lambda: now[0]).more(files)]
    assert [index for part in seen for index in part] == [1, 2, 3, 4]


def test_a_checkpoint_that_does_not_hold_is_refused_before_anything_is_read(log: TestLog) -> None:
    with pytest.raises(Invalid, match="checkpoint: "):
        LogFiles(log.read, Trust(origin="folkmoot/other"))
    old = log.vkey
    log.rotate("next")
    with pytest.raises(Invalid, match="has changed since"):
        LogFiles(log.publish().read, Trust(old))
    policy = Policy(
        (Log(log.key.verifier()),), (Witness("w", Ed25519Cosigner.from_seed("w", seeded("w")).verifier()),), quorum="w"
    )
    with pytest.raises(Invalid, match="quorum"):
        LogFiles(log.read, Trust(policy=policy))
    log.files[tiles.CHECKPOINT] = log.files[tiles.CHECKPOINT].replace(b"\n609\n", b"\n608\n")
    with pytest.raises(Invalid):
        LogFiles(log.read, ANYTHING)


def test_tiles_that_are_not_there_or_too_short(log: TestLog) -> None:
    held = log.files.pop("tile/1/000.p/2")
    with pytest.raises(Missing, match=r"tile/1/000\.p/2"):
        LogFiles(log.read, ANYTHING).one(600)
    log.files["tile/1/000.p/2"] = held[:10]
    with pytest.raises(Invalid):
        LogFiles(log.read, ANYTHING).one(600)
    log.files["tile/1/000.p/2"] = held
    log.files["tile/entries/001"] = b""
    with pytest.raises(Invalid, match="holds 0 entries"):
        LogFiles(log.read, ANYTHING).one(300)


def test_pruned_entries_are_left_out_and_leaves_that_are_no_entries_are_said() -> None:
    log = TestLog()
    log.fill(400)
    log.entries[-1] = b"\x1b[2Jhello"
    log.publish().files.pop("tile/entries/000")
    found = list(LogFiles(log.read, ANYTHING).entries(0, 500))
    assert found[0].index == 256
    assert ledger_read.line(found[-1]) == "      400  (no ledger entry, 9 bytes)"
    assert ledger_read.whole_entry(found[-1])["entry"] is None
    assert event(found[-1]) is None


def test_nothing_in_an_entry_reaches_a_terminal_as_it_is() -> None:
    log = TestLog()
    log.add("gate.verdict", data={"verdict": "\x1b[31mApproved", "reason": "x" * 500}, session="u\x07")
    line = ledger_read.line(LogFiles(log.publish().read, ANYTHING).one(1))
    assert "\x1b" not in line
    assert "\x07" not in line
    assert len(line) < 300


# -- proofs -------------------------------------------------------------------------------------------------------------


def test_proof_of_an_entry(log: TestLog, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "verdict.tlog-proof"
    assert log.vkey in run(capsys, "proof", "6", "--source", source, "-w", str(target))
    assert main(["verify", str(target), "--key", log.vkey]) == 0
    said = capsys.readouterr().out
    assert "gate.verdict" in said
    assert '"Approved"' in said
    assert main(["verify", str(target), "--key", log.vkey, "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["index"], found["size"], found["type"], found["session"]) == (
        True,
        6,
        608,
        "gate.verdict",
        "uid-1",
    )


@pytest.mark.parametrize("name", ["fix", "uid-1"])
def test_proofs_of_a_session(
    source: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = json.loads(run(capsys, "proof", "--session", name, "--source", source, "-o", "json"))
    assert [(one["file"], one["type"]) for one in found] == [
        ("entry-6.tlog-proof", "gate.verdict"), ("entry-7.tlog-proof", "session.end")
    ]  # fmt: skip
    assert proof.parse((tmp_path / "entry-7.tlog-proof").read_bytes()).index == 7
    assert main(["ledger", "proof", "--session", name, "--source", source, "-w", "one"]) == 3
    assert "has 2 such entries" in capsys.readouterr().err


def test_proofs_that_cannot_be_made(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--session", "nobody"], [], ["5", "--session", "fix"]):
        assert main(["ledger", "proof", *words, "--source", source]) == 3
        assert capsys.readouterr().err.startswith("folkmoot ledger: ")
    assert main(["ledger", "proof", "5", "--source", source, "-w", "/nonexistent/x"]) == 3


def test_a_proof_with_a_quorum(log: TestLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    witness = Ed25519Cosigner.from_seed("w.example/1", seeded("w"))
    rules = Policy((Log(log.key.verifier()),), (Witness("w1", witness.verifier()),), quorum="w1")
    (tmp_path / "policy").write_text(rules.text())
    log.publish(witness.at(NOW)).files[tiles.POLICY] = rules.text().encode()
    source, target = str(log.write(tmp_path / "seen")), str(tmp_path / "x.tlog-proof")
    run(capsys, "proof", "7", "--source", source, "-w", target)
    assert main(["verify", target, "--policy", str(tmp_path / "policy")]) == 0
    assert "quorum of witnesses: w1, met" in capsys.readouterr().out
    log.publish()
    run(capsys, "proof", "7", "--source", str(log.write(tmp_path / "unseen")), "-w", target, "--key", log.vkey)
    assert main(["verify", target, "--policy", str(tmp_path / "policy")]) == 1
    assert "policy's quorum is 'w1'" in capsys.readouterr().out


def test_what_a_proof_does_not_prove(log: TestLog, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "x.tlog-proof"
    run(capsys, "proof", "6", "--source", source, "-w", str(target))
    whole = proof.parse(target.read_bytes())
    (tmp_path / "entry").write_bytes(log.entries[6])
    bare = proof.TlogProof(whole.index, whole.hashes, whole.checkpoint).encode()
    key = ["--key", log.vkey]

    def verdict(data: bytes, *words: str) -> tuple[int, str]:
        target.write_bytes(data)
        return main(["verify", str(target), *words]), capsys.readouterr().out

    assert verdict(bare, *key, "--entry", str(tmp_path / "entry"))[0] == 0
    assert "with --entry" in verdict(bare, *key)[1]
    other = Ed25519Signer.from_seed(ORIGIN, seeded("other")).verifier().vkey()
    assert verdict(whole.encode(), "--key", other)[0] == 1
    assert verdict(whole.encode(), *key, "--origin", "folkmoot/other")[0] == 1
    (tmp_path / "entry").write_bytes(log.entries[5])
    assert "does not lead to the root" in verdict(bare, *key, "--entry", str(tmp_path / "entry"))[1]
    assert verdict(whole.encode()[:-9], *key)[0] == 1
    target.write_bytes(whole.encode())
    assert main(["verify", str(target)]) == 3
    assert "give --policy" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "none.tlog-proof"), *key]) == 3


def test_every_flipped_byte_of_a_proof_is_refused(
    log: TestLog, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "x.tlog-proof"
    run(capsys, "proof", "300", "--source", source, "-w", str(target))
    whole = target.read_bytes()
    ed25519 = whole.index(b"\xe2\x80\x94")  # of lines by keys that are not trusted, anything may be said
    second = whole.index(b"\xe2\x80\x94", ed25519 + 3)
    for position in [*range(0, second, 11), second - 1]:
        target.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        code = main(["verify", str(target), "--key", log.vkey])
        capsys.readouterr()
        # A header that is none any more makes it no proof at all.
        assert code == 1 or position < len(proof.HEADER), position


def test_a_leaf_that_says_that_it_is_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The log's key signs whatever tree: an entry that is not at its own position is no evidence."""
    log = TestLog()
    log.fill(5)
    log.entries[3], log.entries[4] = log.entries[4], log.entries[3]
    source = str(log.publish().write(tmp_path / "swapped"))
    run(capsys, "proof", "3", "--source", source, "-w", str(tmp_path / "x.tlog-proof"))
    assert main(["verify", str(tmp_path / "x.tlog-proof"), "--key", log.vkey]) == 1
    assert "says that it is entry 4" in capsys.readouterr().out
    log.entries[3] = b"a foreign leaf"
    run(capsys, "proof", "3", "--source", str(log.publish().write(tmp_path / "foreign")), "-w", str(tmp_path / "y.tlog-proof"))
    assert main(["verify", str(tmp_path / "y.tlog-proof"), "--key", log.vkey]) == 0


# -- export -------------------------------------------------------------------------------------------------------------


def test_export_makes_a_directory_that_verifies_without_us(
    log: TestLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, salt = b"what was decided", b"s" * 32
    committed = commit(salt, content)
    log.add("task.result", session="uid-1", commit=committed)
    log.add("task.result", session="uid-1", commit="e" * 64)
    erasure = log.add("erasure", data={"count": 1})
    log.publish()
    opening = {"commit": committed, "salt": salt.hex(), "digest": f"sha256:{sha256_hex(content)}"}
    log.files |= {
        f"artifacts/{sha256_hex(content)}": content, "artifacts/openings.jsonl": json.dumps(opening).encode() + b"\n",
        "artifacts/erased.jsonl": json.dumps({"commit": "e" * 64, "entry": erasure - 1, "erasure": erasure}).encode() + b"\n",
    }  # fmt: skip
    target = tmp_path / "out"
    said = run(capsys, "export", str(target), "--source", str(log.write(tmp_path / "from")), "--key", log.vkey)
    assert "verified" in said
    assert {p.name for p in target.iterdir()} == {
        "README.txt", "SHA256SUMS", "artifacts", "checkpoint", "log.mldsa.vkey", "log.vkey", "tile"
    }  # fmt: skip
    checked = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=target, capture_output=True, text=True, check=True
    )
    assert checked.stdout.count(": OK") == len([p for p in target.rglob("*") if p.is_file()]) - 1
    page = (target / "README.txt").read_text()
    assert page.count("cmd/fsck@v1.0.4") == 1
    assert "sha256sum -c SHA256SUMS" in page
    assert "this log has no timestamps" in page
    assert main(["verify", str(target), "--key", log.vkey]) == 0
    said = capsys.readouterr().out
    assert f"entry {erasure - 1} intact, payload erased under entry #{erasure}" in said
    assert "1 commitments opened" in said
    assert main(["ledger", "export", str(target), "--source", str(tmp_path / "from")]) == 3
    assert "is not an empty directory" in capsys.readouterr().err


def test_erasures_that_are_not_on_record(log: TestLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = log.add("task.result", session="uid-1", commit="e" * 64)
    lines = [{"commit": "e" * 64, "entry": at, "erasure": at}, {"commit": "f" * 64, "entry": at, "erasure": at}]
    log.publish().files["artifacts/erased.jsonl"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines) + b"{\n"
    assert main(["verify", str(log.write(tmp_path / "x")), "--key", log.vkey]) == 1
    said = capsys.readouterr().out
    assert f"line 1: entry {at} is no erasure" in said
    assert "line 2: no entry up to this checkpoint" in said
    assert "line 3: not JSON" in said


def test_export_of_a_log_that_does_not_verify_says_so(log: TestLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.files["tile/0/001"] = bytes(8192)
    source = str(log.write(tmp_path / "from"))
    found = json.loads(run(capsys, "export", str(tmp_path / "out"), "--source", source, "-o", "json", code=1))
    assert not found["ok"]
    log.files[tiles.CHECKPOINT] = b"nonsense"
    assert main(["ledger", "export", str(tmp_path / "more"), "--source", str(log.write(tmp_path / "bad"))]) == 3
    assert not (tmp_path / "more").exists()


def test_a_checkpoint_that_promises_more_than_there_is_makes_no_export(
    log: TestLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.files[tiles.CHECKPOINT] = Checkpoint(ORIGIN, 2**60, bytes(32)).sign(log.signers())
    target = tmp_path / "out"
    assert main(["ledger", "export", str(target), "--source", str(log.write(tmp_path / "from"))]) == 3
    assert f"of {2**60} entries" in capsys.readouterr().err
    assert not target.exists()


def test_a_directory_takes_no_options_of_events(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["x", "--otlp", "http://127.0.0.1:1/v1/logs"], ["x", "--follow"]):
        assert main(["ledger", "export", *words, "--source", source]) == 3
        assert capsys.readouterr().err


def test_export_from_a_cluster_goes_through_the_evidence(
    log: TestLog, kubectl: FakeKubectl, conductor: Conductor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.write(tmp_path / "files")
    with tarfile.open(tmp_path / "evidence.tar", "w") as tar:
        tar.add(tmp_path / "files", arcname=".")
    conductor.evidence = (tmp_path / "evidence.tar").read_bytes()
    assert "verified" in run(capsys, "export", str(tmp_path / "out"), "-n", NAMESPACE)
    assert any(call[:3] == ["create", "token", "folkmoot-auditor"] and "folkmoot-conductor" in call for call in kubectl.calls())


def test_events_to_standard_output_and_to_a_file(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "export", "--format", "ocsf", "--source", source, "--first", "600").splitlines()
    assert [json.loads(line)["metadata"]["sequence"] for line in lines] == list(range(600, 608))
    target = tmp_path / "events.jsonl"
    assert main(["ledger", "export", str(target), "--format", "ocsf", "--source", source]) == 0
    assert "608 events; go on with --first 608" in capsys.readouterr().err
    events = [json.loads(line) for line in target.read_text().splitlines()]
    assert len(events) == 608
    for before, after in pairwise(events):
        (mine,), (next_,) = before["attestation_list"], after["attestation_list"]
        assert next_["prev_event"]["fingerprint"] == mine["fingerprint"]
        assert next_["prev_event"]["uid"] == before["metadata"]["uid"]
        leaf = hashlib.sha256(b"\0" + before["raw_data"].encode()).hexdigest()
        assert mine["fingerprint"]["value"] == leaf
    assert main(["ledger", "export", "/nonexistent/x", "--format", "ocsf", "--source", source]) == 3


# -- OTLP ---------------------------------------------------------------------------------------------------------------


class Collector:
    """An OTLP endpoint that answers what the test says, then 200."""

    def __init__(self, *answers: int | Exception, body: bytes = b"{}") -> None:
        self._answers: Iterator[int | Exception] = iter(answers)
        self._body = body
        self.requests: list[dict[str, Any]] = []
        self.slept: list[float] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        answer = next(self._answers, 200)
        if isinstance(answer, Exception):
            raise answer
        if answer == 200:
            self.requests.append(json.loads(request.content))
        return httpx2.Response(answer, headers={"Retry-After": "3"} if answer == 429 else {}, content=self._body)

    def sink(self) -> otlp.Otlp:
        return otlp.Otlp("http://collector/v1/logs", httpx2.Client(transport=httpx2.MockTransport(self)), self.slept.append)

    def records(self) -> list[dict[str, Any]]:
        return [
            record
            for request in self.requests
            for resource in request["resourceLogs"]
            for scope in resource["scopeLogs"]
            for record in scope["logRecords"]
        ]


def send(collector: Collector, log: TestLog) -> None:
    sink = collector.sink()
    for found in LogFiles(log.read, ANYTHING).entries(0, 608):
        made = event(found)
        assert made is not None
        sink.put(found.index, made)
    sink.flush()
    sink.flush()  # nothing is left: nothing is sent


def test_events_are_sent_in_bounded_requests(log: TestLog) -> None:
    collector = Collector()
    send(collector, log)
    assert len(collector.requests) == 4
    records = collector.records()
    assert len(records) == 608
    first = records[0]
    assert json.loads(first["body"]["stringValue"])["metadata"]["sequence"] == 0
    assert first["timeUnixNano"] == str((NOW + 1) * 10**9)
    assert {"key": "event.name", "value": {"stringValue": "log.opened"}} in first["attributes"]


def test_what_may_be_retried_is_and_nothing_is_lost(log: TestLog) -> None:
    collector = Collector(503, 429, httpx2.ConnectError("gone"))
    send(collector, log)
    assert len(collector.records()) == 608
    assert collector.slept == [0.5, 3.0, 2.0]


def test_what_may_not_ends_with_the_place_to_go_on_from(log: TestLog) -> None:
    with pytest.raises(Invalid, match="answered 400 and will again; go on with --first 0"):
        send(Collector(400), log)
    with pytest.raises(Unavailable, match="6 times; go on with --first 200"):
        send(Collector(200, *[503] * 6), log)
    with pytest.raises(FolkmootError, match="rejected 3 of the events"):
        send(Collector(body=b'{"partialSuccess": {"rejectedLogRecords": "3"}}'), log)
    send(Collector(body=b"not JSON"), log)


def test_large_events_make_small_requests() -> None:
    log = TestLog()
    for _ in range(40):
        log.add("heartbeat", by="core/ledger", data={"x": "y" * 30_000})
    collector = Collector()
    sink = collector.sink()
    for found in LogFiles(log.publish().read, ANYTHING).entries(0, 41):
        made = event(found)
        assert made is not None
        sink.put(found.index, made)
    sink.flush()
    assert len(collector.records()) == 41
    assert len(collector.requests) > 2


def test_the_commands_words_for_otlp(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ledger", "export", "--format", "ocsf", "--source", source]
    assert main([*words, "file", "--otlp", "http://127.0.0.1:1/v1/logs"]) == 3
    assert main([*words, "--otlp", "http://127.0.0.1:1/v1/logs", "--otlp-header", "Authorization"]) == 3
    assert "expected NAME=FILE" in capsys.readouterr().err


# -- coverage -----------------------------------------------------------------------------------------------------------


def test_coverage(log: TestLog, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "coverage", "--source", source, "--retention-days", "366")
    assert said.startswith(f"Log {ORIGIN}, 608 entries: verified\n")
    assert "a lawyer must confirm it" in said
    assert "complies" not in said.lower()
    found = json.loads(run(capsys, "coverage", "--source", source, "--clause", "12(2)(c)", "-o", "json"))
    assert [(one["clause"], one["status"]) for one in found["clauses"]] == [("12(2)(c)", "supported")]
    assert json.loads(run(capsys, "coverage", "--source", source, "--annex-iii-1a", "--clause", "12(3)(a)", "-o", "json"))["clauses"][0][
        "status"
    ] == "supported"  # fmt: skip
    log.files["tile/0/000"] = bytes(8192)
    assert "DOES NOT VERIFY" in run(capsys, "coverage", "--source", str(log.write(tmp_path / "bad")), code=1)
    assert main(["ledger", "coverage", "--source", source, "--clause", "99"]) == 3


# -- through kubectl ------------------------------------------------------------------------------------------------------


def test_a_cluster_is_reached_with_a_token_for_the_ledger_alone(
    log: TestLog, kubectl: FakeKubectl, conductor: Conductor, capsys: pytest.CaptureFixture[str]
) -> None:
    conductor.log = log.files
    assert len(run(capsys, "tail", "-c", "2", "--tenant", "acme").splitlines()) == 3
    calls = kubectl.calls()
    assert any(call[:3] == ["create", "token", "folkmoot-auditor"] and "folkmoot-ledger" in call for call in calls)
    assert any(call[0] == "port-forward" and ":8445" in call for call in calls)
    kubectl.refuse_token("folkmoot-auditor")
    assert run(capsys, "search", "--type", "gate", "-n", NAMESPACE)
    kubectl.put("configmap", "folkmoot-trust", {"data": {}})
    assert main(["ledger", "tail", "-n", NAMESPACE]) == 3
    assert "no ca.crt" in capsys.readouterr().err
    kubectl.put("configmap", "folkmoot-trust", {"data": {"ca.crt": "nonsense"}})
    assert main(["ledger", "tail", "-n", NAMESPACE]) == 3
