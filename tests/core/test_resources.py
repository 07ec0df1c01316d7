"""The kinds' models and their rules: what is refused says why, what is valid passes, every example is valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from folkmoot_core import names
from folkmoot_core.errors import Invalid
from folkmoot_core.plan import views
from folkmoot_core.plan.types import Problems
from folkmoot_core.resources import CouncilSpec, GatePolicySpec, TenantSpec, rules
from folkmoot_core.resources.common import Resources, seconds

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
VALID: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "valid.yaml").read_text())
BROKEN: list[dict[str, Any]] = yaml.safe_load((HERE / "broken.yaml").read_text())
PARSE = {
    "Tenant": views.parse_tenant, "Agent": views.parse_agent, "Council": views.parse_council, "GatePolicy": views.parse_gate,
    "Session": views.parse_session,
}  # fmt: skip


def manifest(kind: str, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    merged = {key: value for key, value in {**VALID[kind], **spec}.items() if value is not None}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": "probe", **metadata}, "spec": merged}


@pytest.mark.parametrize("kind", VALID)
def test_the_smallest_manifest_is_valid(kind: str) -> None:
    assert not isinstance(PARSE[kind](manifest(kind, {}, {})), Problems)


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case["name"])
def test_what_is_wrong_is_said(case: dict[str, Any]) -> None:
    found = PARSE[case["kind"]](manifest(case["kind"], case.get("metadata", {}), case.get("spec", {})))
    assert isinstance(found, Problems)
    assert case["says"] in found.conditions()[0].message
    assert found.conditions()[0].type == "Accepted"
    assert found.conditions()[0].status == "False"


def test_all_faults_are_told_at_once_with_their_places() -> None:
    spec = {"owners": [{"kind": "ServiceAccount", "name": "x"}], "providers": [{"name": "a", "type": "Anthropic"}]}
    found = views.parse_tenant(manifest("Tenant", {"name": "system"}, spec))
    assert isinstance(found, Problems)
    places = [item.field for item in found.items]
    assert places == ["metadata.name", "spec.owners[0]", "spec.providers[0].apiKeySecretRef"]


def test_a_fault_holds_nothing_of_the_value() -> None:
    found = views.parse_tenant(manifest("Tenant", {}, {"providers": [{"name": "a", "type": "s3cr3t-canary"}]}))
    assert isinstance(found, Problems)
    assert "s3cr3t-canary" not in found.conditions()[0].message


def test_quantities_may_be_numbers() -> None:
    assert TenantSpec.model_validate({"cause": "I.", "quota": {"cpu": 4}}).quota.cpu == "4"
    assert Resources.model_validate({"limits": {"cpu": 1, "memory": "1Gi"}}).limits == {"cpu": "1", "memory": "1Gi"}


def test_models_stay_constructible_in_parts() -> None:
    """Rules are asked of manifests, not of values in flight: the core makes policies that no manifest may say."""
    policy = GatePolicySpec(families=8)
    assert [place for place, _ in rules.broken(policy)] == ["spec", "spec.families"]


def test_rules_use_the_names_of_manifests() -> None:
    spec = CouncilSpec.model_validate({**VALID["Council"], "quorum": {"minimum": 5, "threshold": "2"}})
    assert sorted(place for place, _ in rules.broken(spec)) == ["spec.quorum.minimum", "spec.quorum.threshold"]


def documents() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{path.relative_to(EXAMPLES)}#{index}", document)
        for path in sorted(EXAMPLES.rglob("*.yaml"))
        for index, document in enumerate(yaml.safe_load_all(path.read_text()))
    ]


@pytest.mark.parametrize(("where", "document"), documents(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_example_is_valid(where: str, document: dict[str, Any]) -> None:
    if document["kind"] == "ConfigMap":
        assert document["metadata"]["namespace"].startswith("folkmoot-"), where
        return
    assert document["apiVersion"] == names.API_VERSION
    parsed = PARSE[document["kind"]](document)
    assert not isinstance(parsed, Problems), f"{where}: {parsed}"
    assert (document["kind"] == "Tenant") == ("namespace" not in document["metadata"])


def test_the_readme_lists_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text()
    missing = [path.name for path in EXAMPLES.iterdir() if path.is_dir() and f"`{path.name}/`" not in text]
    assert missing == []


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("2h", 7200)])
def test_durations(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0s", "5", "5 m", "-5m", "1.5h"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(Invalid, match="positive time"):
        seconds(text)


def test_views_carry_metadata_and_status() -> None:
    raw = manifest(
        "Session", {"uid": "u", "generation": 3, "labels": {"a": "b"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}, {}
    )
    found = views.parse_session({**raw, "status": {"phase": "Running"}})
    assert not isinstance(found, Problems)
    assert (found.name, found.meta.uid, found.meta.generation, found.meta.terminating) == ("probe", "u", 3, True)
    assert found.status["phase"] == "Running"
