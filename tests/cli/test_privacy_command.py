"""`folkmoot ledger erase|hold|status|rotate|anchor`: what is asked of the conductor, and what people are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from folkmoot_cli.main import main

TOKEN = "token-of-the-owner"
ERASURE = {
    "id": "request-0012", "subject_ref": "ab" * 16, "basis": "GDPR Art. 17", "by": "folkmoot-owner", "asked": "2026-01-01T00:00:00.000000Z",
    "state": "done", "sessions": 2, "count": 9, "digest": "sha256:" + "0" * 64, "intent": 40, "outcome": 41,
}  # fmt: skip
HOLD = {
    "id": "hold-0001", "scope": "tenant", "reason": "case 2 K 11/26", "by": "folkmoot-auditor", "placed": "2026-01-01T00:00:00.000000Z",
    "entry": 7,
}  # fmt: skip


@pytest.fixture
def there(conductor: Any, tmp_path: Path) -> list[str]:
    (tmp_path / "ca.pem").write_text(conductor.ca)
    (tmp_path / "token").write_text(TOKEN + "\n")
    return ["--server", f"https://localhost:{conductor.port}", "--ca", f"{tmp_path}/ca.pem", "--token-file", f"{tmp_path}/token"]


def test_erase(conductor: Any, there: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    conductor.told = ERASURE
    assert main(["ledger", "erase", "--subject", "case-1", "--basis", "GDPR Art. 17", "--yes", *there]) == 0
    ((method, path, body),) = conductor.asked
    assert (method, path, body["subject"], body["basis"]) == ("POST", "/v1/erasures", "case-1", "GDPR Art. 17")
    assert len(body["id"]) == 36  # so that asking again after a lost answer is the same erasure
    told = capsys.readouterr().out
    assert "9 commitments of 2 sessions" in told
    assert "broker-journal" in told
    conductor.told = {**ERASURE, "state": "recorded"}
    assert main(["ledger", "erase", "--session", "fix", "--basis", "b", "--yes", *there]) == 1
    assert "goes on by itself" in capsys.readouterr().out


def test_erase_asks_and_does_nothing_unasked(conductor: Any, there: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "erase", "--subject", "case-1", "--basis", "b", *there]) == 3
    assert "say --yes" in capsys.readouterr().err
    assert main(["ledger", "erase", "--subject", "Jane Doe", "--basis", "b", "--yes", *there]) == 3
    assert "--subject" in capsys.readouterr().err
    assert conductor.asked == []


def test_holds(conductor: Any, there: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    conductor.told = HOLD
    assert main(["ledger", "hold", "add", "--everything", "--reason", "case 2 K 11/26", *there]) == 0
    assert main(["ledger", "hold", "add", "--session", "fix", "--reason", "r", *there]) == 0
    conductor.told = {**HOLD, "released": 9}
    assert main(["ledger", "hold", "release", "hold-0001", *there]) == 0
    assert [(m, p) for m, p, _ in conductor.asked] == [("POST", "/v1/holds")] * 2 + [("DELETE", "/v1/holds/hold-0001")]
    assert [body for *_, body in conductor.asked][:2] == [
        {"scope": "tenant", "reason": "case 2 K 11/26"}, {"scope": "session", "session": "fix", "reason": "r"}
    ]  # fmt: skip
    capsys.readouterr()
    conductor.told = {"holds": [HOLD, {**HOLD, "id": "hold-0002", "released": 9}]}
    assert main(["ledger", "hold", "list", *there]) == 0
    shown = capsys.readouterr().out
    assert "the tenant" in shown
    assert "until entry 9" in shown
    assert main(["ledger", "hold", "list", "-o", "json", *there]) == 0
    assert [h["released"] for h in json.loads(capsys.readouterr().out)] == [None, 9]


REPORT = {"origin": "folkmoot/x", "vkeys": ["folkmoot/x+11223344+AQ=="], "size": 9, "root": "ab" * 32, "entries": 10}


def test_the_log_is_asked_after_and_controlled(conductor: Any, there: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    conductor.told = REPORT
    for word in ("status", "rotate", "anchor"):
        assert main(["ledger", word, *there]) == 0
    assert [(method, path) for method, path, _ in conductor.asked] == [
        ("GET", "/v1/log"), ("POST", "/v1/log/rotate"), ("POST", "/v1/log/anchor")
    ]  # fmt: skip
    shown = capsys.readouterr().out
    assert "10 durable, 9 under the published checkpoint" in shown
    assert "witnessed   by nobody" in shown
    conductor.told = {**REPORT, "state": "Frozen", "reason": "ForkDetected", "message": "w1 has cosigned another root"}
    assert main(["ledger", "status", *there]) == 1
    assert "Frozen, ForkDetected: w1 has cosigned another root" in capsys.readouterr().out
    conductor.told = {**REPORT, "anchored": "2026-01-01T00:00:00Z", "anchored_size": 8, "witnessed": ["w1", "w2"]}
    assert main(["ledger", "status", "-o", "json", *there]) == 0
    assert json.loads(capsys.readouterr().out)["witnessed"] == ["w1", "w2"]
    assert main(["ledger", "anchor", *there]) == 0
    assert "2026-01-01T00:00:00Z over the first 8 entries" in capsys.readouterr().out


def test_an_answer_that_does_not_fit_is_a_sentence(conductor: Any, there: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    conductor.told = {"id": "x"}
    assert main(["ledger", "hold", "release", "hold-0001", *there]) == 3
    assert "does not fit this CLI" in capsys.readouterr().err
