"""The whole thread without a cluster: the decision, its record, and every process killed once in mid-session."""

from __future__ import annotations

import json

import pytest
from devrun import DEMO, Run

from folkmoot_cli.main import main

FILES = (DEMO / "manifests.yaml", DEMO / "sessions.yaml")


async def test_a_patch_is_decided_and_the_decision_verifies_offline(run: Run, tmp_path, capsys):
    await run.go(*FILES, arguments=("--export", str(tmp_path)))
    assert run.code == 0, run.text
    assert "tests/test_discount.py:13: test-deleted" in run.text
    assert "acme/fix-discount: Succeeded, gate Approved at submission 2, votes 2:1" in run.text
    assert "globex/greet: Succeeded" in run.text
    for tenant in ("acme", "globex"):
        assert main(["verify", str(tmp_path / f"{tenant}.tar"), "-o", "json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert any(signer.startswith("folkmoot-witness/") for signer in found["signers"])
        assert next(check["says"] for check in found["checks"] if check["name"] == "witnesses").endswith("is met (cluster)")
        assert (
            main(["ledger", "coverage", "--source", str(tmp_path / f"{tenant}.tar"), "--clause", "12(2)(a)", "-o", "json"]) == 0
        )
        (clause,) = json.loads(capsys.readouterr().out)["clauses"]
        assert not [gap for gap in clause["gaps"] if "configuration" in gap]
    counts = await run.counts()
    assert counts["unmatched"] == 0
    assert max(counts["by_request"].values()) == 1


# Which process dies when which line appears; two runs, so that no session loses everything at the same moment.
KILLS = [
    {"work/1": "bus", "vote/1/athena": "ledger", "gate/1/structural": "broker", "gate/2/structural": "sandbox-checks"},
    {"opinion/sable": "router", "work/1": "sandbox-builder", "vote/1/athena": "conductor", "work/2": "agent-builder"},
]


@pytest.mark.parametrize("kills", KILLS, ids=lambda kills: "-".join(kills.values()))
async def test_processes_killed_in_mid_session_lose_nothing_and_pay_nothing_twice(run: Run, kills, tmp_path):
    left = dict(kills)

    def watch(line: str) -> None:
        moment = next((m for m in left if "acme/fix-discount" in line and f"← {m}" in line), None)
        if moment is not None:
            run.kill(f"acme/{left.pop(moment)}")

    run.on_line = watch
    await run.go(*FILES, arguments=("--export", str(tmp_path)))
    assert not left, run.text
    assert run.code == 0, run.text
    counts = await run.counts()
    assert max(counts["by_request"].values()) == 1, counts
    assert main(["verify", str(tmp_path / "acme.tar")]) == 0
