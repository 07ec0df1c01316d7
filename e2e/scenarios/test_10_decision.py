"""From manifests to a decision that anyone can verify."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stage import evidence, sessions, simulated, story, tenants
from stage.cluster import Cluster, conditions
from stage.sessions import FOLKMOOT
from stage.shell import ROOT, run
from stage.tenants import DEMO, PLURALS, name

ACME, GLOBEX = "folkmoot-acme", "folkmoot-globex"


@pytest.fixture(scope="module")
def decided(moot: Cluster) -> str:
    simulated.reset(moot)
    session = sessions.start(moot, sessions.demo_session(ACME))
    story.expect(sessions.follow(moot, session, ACME, sessions.nothing))
    return session


def test_the_council_revises_then_approves_with_dissent_on_record(moot: Cluster, decided: str) -> None:
    moot.wait("Succeeded", PLURALS["Session"], decided, ACME, seconds=60)
    moot.wait("Ready", PLURALS["Session"], decided, ACME, seconds=10)
    found = moot.get(PLURALS["Session"], decided, ACME)
    assert found is not None
    status = found["status"]
    assert status["phase"] == "Succeeded"
    assert status["gate"]["verdict"] == "Approved"
    assert status["gate"]["submission"] == 2
    assert status["votes"] == {"for": 2, "against": 1, "dissent": 1}
    assert status["usage"]["inputTokens"] > 40_000
    assert float(status["usage"]["cost"]) > 0
    assert 0 < status["ledger"]["first"] < status["ledger"]["last"]
    assert status["result"]["digest"].startswith("sha256:")
    assert "prompt" not in json.dumps(status).lower()


def test_nothing_was_asked_twice_and_nothing_was_not_understood(moot: Cluster, decided: str) -> None:
    found = simulated.counts(moot)
    assert found["unmatched"] == 0
    assert max(found["by_request"].values()) == 1


def test_the_log_verifies_with_our_tool_and_with_tesseras(moot: Cluster, decided: str, tmp_path: Path) -> None:
    fetched = evidence.fetch(moot, FOLKMOOT, "acme", tmp_path)
    tenant = moot.get(PLURALS["Tenant"], "acme") or {}
    assert "VERIFIED" in evidence.verify(FOLKMOOT, fetched, tenant["status"]["audit"]["vkey"])
    assert "Successfully" in evidence.fsck(moot, fetched)
    types = fetched.tar.read_bytes()
    for entry in (b"gate.verdict", b"council.vote", b"model.call.outcome", b"tool.call.outcome", b"identity.bound"):
        assert entry in types
    # The log carries no content: neither the task nor what a model said.
    logged = b"".join(p.read_bytes() for p in fetched.log.rglob("*") if p.is_file() and "artifacts" not in p.parts)
    assert b"Rounding belongs into one place" not in logged
    assert b"Mend the program" not in logged


def test_identities_are_what_the_manifests_say(moot: Cluster) -> None:
    printed = run([FOLKMOOT, "identity", DEMO / "manifests.yaml", "-o", "json"])
    for row in json.loads(printed):
        tenant, _, agent = row["name"].partition("/")
        kind, found = PLURALS[row["kind"]], agent or tenant
        status = (moot.get(kind, found, f"folkmoot-{tenant}" if agent else "") or {})["status"]["identity"]
        assert (status["seed"], status["commitment"]) == (row["seed"], row["commitment"])


def test_everything_is_ready_and_readable(moot: Cluster, decided: str) -> None:
    listed = moot.kubectl("get", "folkmoot", "-A")
    for word in (
        "tenant.folkmoot.dev/acme",
        "agent.folkmoot.dev/builder",
        "council.folkmoot.dev/shipping",
        "gatepolicy.folkmoot.dev/code",
        decided,
    ):
        assert word in listed
    header = moot.kubectl("get", PLURALS["Session"], "-n", ACME).splitlines()[0].split()
    assert header == ["NAME", "TARGET", "PHASE", "GATE", "COST", "DURATION", "AGE"]
    for manifest in tenants.everything():
        if manifest["kind"] in PLURALS:
            moot.wait("Ready", PLURALS[manifest["kind"]], name(manifest), manifest["metadata"].get("namespace", ""), seconds=30)


def test_examples_are_taken_by_the_api_server(moot: Cluster) -> None:
    files = [p for p in sorted((ROOT / "examples").rglob("*.yaml"))]
    assert files
    for path in files:
        code, said = moot.try_kubectl("apply", "--dry-run=server", "-f", str(path))
        refused = [line for line in said.splitlines() if "rror" in line and "not found" not in line]
        assert code == 0 or not refused, f"{path}: {said}"


def test_run_from_the_command_line_gives_an_agent_a_file_and_gets_its_word(moot: Cluster, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("The moot is open.")
    words = [FOLKMOOT, "session", "run", "--target", "Agent/herald", "--task", "Greet the moot in one sentence.", "-n", GLOBEX]
    printed = run([*words, "--input", f"note={tmp_path}/note.txt"], environment=moot.client_environment)
    assert "Globex greets the moot." in printed
    listed = run([FOLKMOOT, "session", "list", "-n", GLOBEX, "-o", "json"], environment=moot.client_environment)
    newest = max(json.loads(listed), key=lambda s: s["metadata"]["creationTimestamp"])
    assert conditions(newest)["Succeeded"]["status"] == "True"
    moot.kubectl("delete", PLURALS["Session"], name(newest), "-n", GLOBEX)
    moot.until(
        "the input to go with its session",
        lambda: moot.get("configmap", f"{name(newest)}-note", GLOBEX) is None,
        seconds=60,
    )
