"""The whole thread without a cluster: the decision, its record, and every process killed once in mid-session."""

from __future__ import annotations

import pytest
from conftest import DEMO, Run
from folkmoot_cli import verify

FILES = (DEMO / "manifests.yaml", DEMO / "sessions.yaml")


async def test_a_patch_is_decided_and_the_decision_verifies_offline(run: Run, tmp_path):
    await run.go(*FILES, arguments=("--export", str(tmp_path)))
    assert run.code == 0, run.text
    assert "tests/test_discount.py:13: test-deleted" in run.text
    assert "acme/fix-discount: Succeeded, gate Approved at submission 2, votes 2:1" in run.text
    assert "globex/greet: Succeeded" in run.text
    for tenant in ("acme", "globex"):
        report = verify.verify(tmp_path / f"{tenant}.tar")
        assert report.ok, report


async def test_no_request_was_billed_twice(run: Run):
    await run.go(*FILES)
    counts = await run.counts()
    assert counts["unmatched"] == 0
    assert max(counts["by_request"].values()) == 1


PROCESSES = ["bus", "router", "ledger", "conductor", "broker", "agent-builder", "sandbox-builder", "sandbox-checks"]


@pytest.mark.parametrize("process", PROCESSES)
async def test_a_process_killed_in_mid_session_loses_nothing_and_pays_nothing_twice(run: Run, process, tmp_path):
    killed = []

    def watch(line: str) -> None:
        moment = "gate" if process == "sandbox-checks" else "work/1"
        if not killed and "acme/fix-discount" in line and moment in line:
            killed.append(process)
            run.kill(f"acme/{process}")

    run.on_line = watch
    await run.go(*FILES, arguments=("--export", str(tmp_path)))
    assert killed == [process], run.text
    assert run.code == 0, run.text
    counts = await run.counts()
    assert max(counts["by_request"].values()) == 1, counts
    assert verify.verify(tmp_path / "acme.tar").ok
