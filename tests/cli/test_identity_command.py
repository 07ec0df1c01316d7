"""`folkmoot identity`: what manifests alone say, and why two differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from folkmoot_cli.main import main
from folkmoot_core import identity
from folkmoot_core.identity import GrantsV1

MANIFEST = """
apiVersion: folkmoot.dev/v1alpha1
kind: Tenant
metadata: {name: acme}
spec:
  cause: I keep Acme honest.
  providers: [{name: claude, type: Anthropic, apiKeySecretRef: {name: k, key: k}, models: [{name: claude-sonnet-5-5}, {name: claude-opus-5}]}]
---
apiVersion: folkmoot.dev/v1alpha1
kind: Agent
metadata: {name: reviewer, namespace: folkmoot-acme}
spec:
  cause: I read contracts.
  model: {provider: claude, name: claude-sonnet-5-5}
"""


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    path = tmp_path / "m.yaml"
    path.write_text(MANIFEST)
    return path


def changed(manifests: Path, before: str, after: str) -> Path:
    path = manifests.with_name("changed.yaml")
    assert before in MANIFEST
    path.write_text(MANIFEST.replace(before, after))
    return path


def test_seed_and_commitment_are_those_of_the_two_formulas(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identity", str(manifests), "--federation", "north", "-o", "json"]) == 0
    tenant, agent = json.loads(capsys.readouterr().out)
    seed = identity.seed("acme", "north/acme/acme", "I keep Acme honest.")
    grants = GrantsV1(models=("claude/claude-opus-5", "claude/claude-sonnet-5-5")).digest()
    assert (tenant["seed"], tenant["commitment"]) == (seed, identity.commitment(seed, "0" * 64, grants))
    assert agent["scope"] == "north/acme/acme/reviewer"
    assert agent["parent"] == tenant["commitment"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "I read contracts.",
            "I read novels.",
            "acme/reviewer  seed: cause 'I read contracts.' → 'I read novels.': another identity",
        ),
        ("name: claude-opus-5}", "name: claude-opus-6}", "acme           commitment: grant models=claude/claude-opus-6 is new"),
        ("name: claude-opus-5}", "name: claude-opus-6}", "acme/reviewer  commitment: the parent's commitment"),
        ("name: reviewer", "name: critic", "acme/reviewer  only in"),
    ],
)
def test_diff_names_the_cause(manifests: Path, capsys: pytest.CaptureFixture[str], before: str, after: str, said: str) -> None:
    assert main(["identity", "diff", str(manifests), str(changed(manifests, before, after))]) == 1
    assert said in capsys.readouterr().out


def test_diff_of_the_same_is_zero(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identity", "diff", str(manifests), str(manifests)]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["SAME", "SEED"]


def test_diff_of_two_in_one_file(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identity", "diff", f"{manifests}#acme", f"{manifests}#acme/reviewer"]) == 1
    assert "seed: scope 'folkmoot/acme/acme' → 'folkmoot/acme/acme/reviewer'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/no/such"], "no such file: /no/such"),
        (["diff", "/a"], "expected two paths, found 1"),
        (["diff", "{file}#acme/nobody", "{file}"], "holds no 'acme/nobody'; it holds acme, acme/reviewer"),
    ],
)
def test_mistakes_get_a_sentence(manifests: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["identity", *(w.format(file=manifests) for w in words)]) == 3
    assert said in capsys.readouterr().err


def test_an_agent_that_wants_more_than_its_tenant_has_is_named(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    greedy = changed(manifests, "name: claude-sonnet-5-5}\n", "name: gpt-6-sol}\n")
    assert main(["identity", str(greedy)]) == 3
    assert "agent reviewer: grant models='claude/gpt-6-sol'" in capsys.readouterr().err


def test_an_agent_without_its_tenant_is_refused(tmp_path: Path, manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stray = changed(manifests, "namespace: folkmoot-acme", "namespace: folkmoot-other")
    assert main(["identity", str(stray)]) == 3
    assert "Agent reviewer is in folkmoot-other, whose Tenant is not in these files" in capsys.readouterr().err
