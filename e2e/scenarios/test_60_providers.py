"""A provider that hangs, refuses or talks nonsense: the session says so, within its limits, and nothing is retried for ever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from stage import install, sessions, simulated
from stage.cluster import Cluster
from stage.tenants import PLURALS

NAMESPACE, MODELS = "folkmoot-trouble", "folkmoot-e2e-trouble"
FAULTS: dict[str, dict[str, Any]] = {
    "hangs": {"hang": 600}, "refuses": {"status": 429, "retry_after": 1}, "breaks": {"status": 500}, "babbles": {"garbage": True},
    "key": {"status": 401},
}  # fmt: skip


def scenario() -> str:
    rules: list[dict[str, Any]] = [
        {
            "id": name,
            "when": {"last_user": f"say {name}"},
            "reply": {"text": "x", "fault": fault} if name == "babbles" else {"fault": fault},
        }
        for name, fault in FAULTS.items()
    ]
    return yaml.safe_dump({"name": "trouble", "rules": [*rules, {"id": "rest", "reply": {"text": "Fine."}}]})


@pytest.fixture(scope="module")
def trouble(moot: Cluster) -> Iterator[Cluster]:
    install.simulator(moot, scenario(), namespace=MODELS)
    provider = {
        "name": "claude", "type": "Anthropic", "apiKeySecretRef": {"name": "keys", "key": "k"}, "baseURL": f"http://models.{MODELS}.svc:8080",
        "models": [{"name": "claude-sonnet-5-5"}],
    }  # fmt: skip
    spec = {"cause": "I meet trouble.", "providers": [provider], "deletionPolicy": "Delete"}
    moot.apply({"apiVersion": "folkmoot.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "trouble"}, "spec": spec})
    moot.wait("NamespaceReady", PLURALS["Tenant"], "trouble")
    moot.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": NAMESPACE}, "stringData": {"k": "simulated"}},
        {
            "apiVersion": "folkmoot.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "ann", "namespace": NAMESPACE},
            "spec": {"cause": "I ask.", "model": {"provider": "claude", "name": "claude-sonnet-5-5"}},
        },
    )  # fmt: skip
    moot.wait("Ready", PLURALS["Tenant"], "trouble")
    moot.wait("Ready", PLURALS["Agent"], "ann", NAMESPACE)
    yield moot
    moot.kubectl("delete", PLURALS["Tenant"], "trouble", "--timeout=300s")
    moot.kubectl("delete", "namespace", MODELS)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_session_says_so_within_its_limits(trouble: Cluster, fault: str) -> None:
    simulated.reset(trouble, MODELS)
    spec = {"target": {"kind": "Agent", "name": "ann"}, "task": f"Please say {fault}.", "budget": {"wallClock": "45s"}}
    made = {
        "apiVersion": "folkmoot.dev/v1alpha1",
        "kind": "Session",
        "metadata": {"name": fault, "namespace": NAMESPACE},
        "spec": spec,
    }
    told = sessions.follow(trouble, sessions.start(trouble, made), NAMESPACE, sessions.nothing, seconds=150)
    assert told.phase == "Failed"
    assert told.reason
    assert told.message
    calls = simulated.counts(trouble, MODELS)["calls"]
    assert 1 <= calls <= 12
    trouble.wait("Succeeded=false", PLURALS["Session"], fault, NAMESPACE, seconds=60)


def test_and_after_all_that_the_agent_answers(trouble: Cluster) -> None:
    spec = {"target": {"kind": "Agent", "name": "ann"}, "task": "How are you?"}
    made = {
        "apiVersion": "folkmoot.dev/v1alpha1",
        "kind": "Session",
        "metadata": {"name": "fine", "namespace": NAMESPACE},
        "spec": spec,
    }
    assert sessions.follow(trouble, sessions.start(trouble, made), NAMESPACE, sessions.nothing, seconds=200).phase == "Succeeded"
