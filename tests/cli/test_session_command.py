"""`folkmoot session`: through a kubectl of the test's own, and directly."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from folkmoot_cli.main import main

NAMESPACE, TOKEN = "folkmoot-acme", "token-of-the-owner"
Conductor = FakeKubectl = Any  # of conftest.py, which importlib mode lets nobody import
REPORT = {
    "uid": "u1", "name": "fix", "generation": 1, "sequence": 9, "phase": "Succeeded", "reason": "Decided", "message": "the council decided",
    "started": "2026-11-21T10:00:00Z", "finished": "2026-11-21T10:00:42Z", "result_digest": "sha256:ab", "result_preview": "mended",
    "gate_verdict": "Approved", "gate_submission": 2, "gate_shapes": [], "votes_for": 2, "votes_against": 1, "votes_dissent": 1,
    "input_tokens": 100, "output_tokens": 20, "cost": "0.0123", "currency": "USD", "ledger_first": 3, "ledger_last": 40,
}  # fmt: skip


def event(n: int, kind: str, **data: Any) -> dict[str, Any]:
    return {**data, "n": n, "time": f"2026-11-21T10:00:{n:02}Z", "type": kind}


STORY = [
    event(1, "session.accepted", generation=1),
    event(2, "session.phase", phase="Running"),
    event(3, "task.result", agent="builder", need="work/1", status="done", model="gpt-6-sol", calls=3, cost="0.0100", currency="USD",
          usage={"input_tokens": 90, "output_tokens": 15}, preview='{"summary": "all green"}'),
    event(4, "council.vote", actor="sable", vote="Against", submission=1, reason="one place for the whole shop"),
    event(5, "gate.verdict", verdict="Revise", submission=1, shapes=["test-deleted"],
          findings=["tests/test_discount.py:13: test-deleted: a test is gone"]),
    event(6, "session.phase", phase="Succeeded", reason="Decided", message="the council decided"),
]  # fmt: skip


def session_object(name: str = "fix", **status: Any) -> dict[str, Any]:
    spec = {"target": {"kind": "Council", "name": "shipping"}, "task": "Mend it."}
    meta = {"name": name, "namespace": NAMESPACE, "creationTimestamp": "2026-11-21T10:00:00Z"}
    return {"apiVersion": "folkmoot.dev/v1alpha1", "kind": "Session", "metadata": meta, "spec": spec, "status": status}


def test_run_with_a_directory_starts_a_session_that_owns_its_inputs_and_follows_it(
    kubectl: FakeKubectl, conductor: Conductor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conductor.events, conductor.reports = list(STORY), {"fix": REPORT}
    program = tmp_path / "program"
    (program / "__pycache__").mkdir(parents=True)
    (program / "__pycache__" / "x.pyc").write_bytes(b"\0")
    (program / "main.py").write_text("print(1)\n")
    words = [
        "session",
        "run",
        "--target",
        "Council/shipping",
        "--task",
        "Mend it.",
        "--name",
        "fix",
        "--input",
        f"program={program}",
    ]
    assert main([*words, "-n", NAMESPACE]) == 0
    out = capsys.readouterr().out
    assert "tests/test_discount.py:13: test-deleted: a test is gone" in out
    assert "sable: Against – one place for the whole shop" in out
    assert "Succeeded (Decided): the council decided" in out
    assert "0.0100 USD" in out
    before, made, after = kubectl.applied()
    assert [m["kind"] for m in (before, made, after)] == ["ConfigMap", "Session", "ConfigMap"]
    assert made["spec"]["inputs"] == [{"name": "program", "configMapRef": {"name": "fix-program"}}]
    assert after["metadata"]["ownerReferences"][0]["uid"] == "uid-of-fix"
    archive = tarfile.open(fileobj=io.BytesIO(base64.b64decode(after["binaryData"]["content.tar"])))
    assert archive.getnames() == ["main.py"]


def test_watch_goes_on_where_the_stream_was_cut_and_ends_with_the_answer_no(
    kubectl: FakeKubectl, conductor: Conductor, capsys: pytest.CaptureFixture[str]
) -> None:
    conductor.events = [*STORY[:-1], event(6, "session.phase", phase="Failed", reason="GateDeadlock", message="no agreement")]
    conductor.reports = {"fix": {**REPORT, "phase": "Failed", "reason": "GateDeadlock"}}
    conductor.cuts = [2, 4]
    assert main(["session", "watch", "fix", "-n", NAMESPACE]) == 1
    assert conductor.resumed == ["0", "2", "4"]
    captured = capsys.readouterr()
    assert captured.out.count("Revise") == 1
    assert "GateDeadlock" in captured.err


def test_watch_as_json_is_one_event_per_line(
    kubectl: FakeKubectl, conductor: Conductor, capsys: pytest.CaptureFixture[str]
) -> None:
    conductor.events = list(STORY)
    assert main(["session", "watch", "fix", "-n", NAMESPACE, "-o", "json"]) == 0
    assert [json.loads(line)["n"] for line in capsys.readouterr().out.splitlines()] == [1, 2, 3, 4, 5, 6]


def test_watch_says_what_a_session_waits_for_until_the_conductor_has_it(
    kubectl: FakeKubectl, conductor: Conductor, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "ConfigMap p not found in folkmoot-acme; create it"
    condition = {"type": "ResolvedRefs", "status": "False", "reason": "RefNotFound", "message": message}
    kubectl.put("sessions", "fix", session_object(conditions=[condition]))
    conductor.events, conductor.reports, conductor.unknown = list(STORY), {"fix": REPORT}, 1
    assert main(["session", "watch", "fix", "-n", NAMESPACE]) == 0
    assert f"session fix waits: RefNotFound: {message}" in capsys.readouterr().err


def test_watch_gives_up_at_once_on_a_session_that_is_not_accepted(
    kubectl: FakeKubectl, conductor: Conductor, capsys: pytest.CaptureFixture[str]
) -> None:
    condition = {"type": "Accepted", "status": "False", "reason": "Invalid", "message": "spec.task: too long"}
    kubectl.put("sessions", "fix", session_object(conditions=[condition]))
    conductor.unknown = 100
    assert main(["session", "watch", "fix", "-n", NAMESPACE]) == 3
    assert "session fix is not accepted: Invalid: spec.task: too long" in capsys.readouterr().err


def test_run_passes_on_the_sentence_of_the_api_server(kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["session", "run", "--target", "Agent/reviewer", "--task", "x", "--name", "refuse-me", "-n", NAMESPACE]) == 3
    assert "Session refuse-me: spec.task: Too long" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "shipping", "--task", "x"], "expected Council/<name> or Agent/<name>"),
        (["--target", "Council/shipping"], "--task is empty"),
        (["--target", "Council/shipping", "--task", "x", "--input", "program"], "expected name=PATH"),
        (["--target", "Council/shipping", "--task", "x", "--input", "p=/no/such"], "cannot read /no/such"),
        (["--target", "Council/shipping", "--task", "x", "--name", "Big_Name"], "expected 1 to 40 of a-z"),
        (["-f", "/no/such.yaml"], "cannot read /no/such.yaml"),
        (["-f", "x.yaml", "--task", "y"], "go with --target"),
    ],
)
def test_run_refuses_with_a_sentence(
    kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["session", "run", *words, "-n", NAMESPACE]) == 3
    assert said in capsys.readouterr().err
    assert kubectl.applied() == []


def test_run_takes_a_file_with_config_maps_first_and_nothing_else(
    kubectl: FakeKubectl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "session.yaml"
    one = session_object()
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p"}, "data": {"a": "b"}}
    manifest.write_text(f"{json.dumps(one)}\n---\n{json.dumps(config_map)}\n")
    assert main(["session", "run", "-f", str(manifest), "--no-wait", "-n", NAMESPACE]) == 0
    assert [m["kind"] for m in kubectl.applied()] == ["ConfigMap", "Session"]
    assert "folkmoot session watch fix" in capsys.readouterr().out
    manifest.write_text(json.dumps({**one, "kind": "Tenant"}))
    assert main(["session", "run", "-f", str(manifest)]) == 3
    assert "found Tenant; session run takes Sessions" in capsys.readouterr().err


def test_list_and_show_read_the_objects(kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str]) -> None:
    status = {
        "phase": "Succeeded", "startTime": "2026-11-21T10:00:00Z", "completionTime": "2026-11-21T10:03:05Z", "gate": {"verdict": "Approved"},
        "usage": {"cost": "0.4121", "currency": "USD", "inputTokens": 5}, "result": {"digest": "sha256:ab", "preview": "mended"},
    }  # fmt: skip
    kubectl.put("sessions", "fix", session_object(**status))
    assert main(["session", "list", "-A"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAMESPACE", "NAME", "TARGET", "PHASE", "GATE", "COST", "DURATION", "AGE"]
    assert row.split()[:-1] == [NAMESPACE, "fix", "Council/shipping", "Succeeded", "Approved", "0.4121", "USD", "3m"]
    assert main(["session", "show", "fix"]) == 0
    assert "mended" in capsys.readouterr().out
    assert main(["session", "show", "fix", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"]["phase"] == "Succeeded"
    assert main(["session", "show", "gone"]) == 3
    assert "gone not found in folkmoot-acme; see: kubectl get" in capsys.readouterr().err


def test_evidence_asks_as_auditor_then_as_owner(
    kubectl: FakeKubectl, conductor: Conductor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "evidence.tar"
    kubectl.refuse_token("folkmoot-auditor")
    assert main(["session", "evidence", "--tenant", "acme", "-o", str(target)]) == 0
    assert target.read_bytes() == conductor.evidence
    assert [c[2] for c in kubectl.calls() if c[:2] == ["create", "token"]] == ["folkmoot-auditor", "folkmoot-owner"]
    kubectl.refuse_token("folkmoot-owner")
    assert main(["session", "evidence", "--tenant", "acme", "-o", str(tmp_path / "x")]) == 3
    assert "an owner of the tenant may create tokens" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_context_and_kubeconfig_reach_every_call(kubectl: FakeKubectl) -> None:
    assert main(["session", "list", "--context", "far", "--kubeconfig", "/k", "-n", NAMESPACE]) == 0
    assert all(c[:2] == ["--context=far", "--kubeconfig=/k"] for c in kubectl.calls())


def test_a_certificate_for_another_name_is_refused(
    kubectl: FakeKubectl, conductor: Conductor, capsys: pytest.CaptureFixture[str]
) -> None:
    conductor.reports = {"fix": REPORT}
    kubectl.put("sessions", "fix", session_object())
    # The conductor's certificate carries core.folkmoot-acme.svc: in any other namespace it must not be believed.
    assert main(["session", "evidence", "--tenant", "globex"]) == 3
    assert "broke off after 0 bytes: ConnectError" in capsys.readouterr().err


def test_a_conductor_by_its_url(conductor: Conductor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ca.pem").write_text(conductor.ca)
    (tmp_path / "token").write_text(TOKEN + "\n")
    there = ["--server", f"https://localhost:{conductor.port}", "--ca", f"{tmp_path}/ca.pem", "--token-file", f"{tmp_path}/token"]
    conductor.events, conductor.reports = list(STORY), {"fix": REPORT}
    (tmp_path / "contract.txt").write_text("we agree")
    words = ["--target", "Agent/reviewer", "--task", "Read it.", "--name", "fix", "--input", f"contract={tmp_path}/contract.txt"]
    assert main(["session", "run", *words, *there]) == 0
    assert conductor.orders[0]["inputs"] == {"contract": {"contract.txt": base64.b64encode(b"we agree").decode()}}
    capsys.readouterr()
    assert main(["session", "list", *there, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "fix"
    (tmp_path / "token").write_text("another")
    assert main(["session", "show", "fix", *there]) == 3
    assert "token refused" in capsys.readouterr().err


def test_no_kubectl_is_said_with_the_way_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert main(["session", "list"]) == 3
    assert "--server, --ca and --token-file" in capsys.readouterr().err
