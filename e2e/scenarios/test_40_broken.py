"""What is wrong says so, on the object, with the remedy; and heals by itself when the cause is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from stage.cluster import Cluster, conditions
from stage.install import MODELS_URL
from stage.tenants import PLURALS

NAMESPACE = "folkmoot-broken"
SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "keys", "namespace": NAMESPACE},
    "stringData": {"anthropic": "simulated-9"},
}
ACME_GATE = {
    "structural": {"reviewers": [{"agentRef": {"name": "ann"}}]},
    "adversarial": {"reviewers": [{"agentRef": {"name": "bob"}}]},
}


def tenant(**spec: Any) -> dict[str, Any]:
    provider = {
        "name": "claude", "type": "Anthropic", "apiKeySecretRef": {"name": "keys", "key": "anthropic"}, "baseURL": MODELS_URL,
        "models": [{"name": "claude-sonnet-5-5"}],
    }  # fmt: skip
    whole = {"cause": "I am here to be wrong.", "providers": [provider], "deletionPolicy": "Delete", **spec}
    return {"apiVersion": "folkmoot.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "broken"}, "spec": whole}


def thing(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "folkmoot.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def agent(name: str, provider: str = "claude", model: str = "claude-sonnet-5-5", cause: str = "I err.") -> dict[str, Any]:
    return thing("Agent", name, cause=cause, model={"provider": provider, "name": model})


@pytest.fixture(scope="module")
def broken(moot: Cluster) -> Iterator[Cluster]:
    moot.apply(tenant())
    moot.wait("NamespaceReady", PLURALS["Tenant"], "broken")
    yield moot
    moot.kubectl("delete", PLURALS["Tenant"], "broken", "--ignore-not-found", "--timeout=300s")


def says(  # noqa: PLR0913 - which object, which condition, what it must say
    cluster: Cluster, kind: str, name: str, condition: str, *, words: tuple[str, ...], status: str = "False"
) -> dict[str, Any]:
    """Wait until the object's condition says all these words."""
    namespace = "" if kind == "Tenant" else NAMESPACE

    def holds() -> dict[str, Any] | None:
        found = conditions(cluster.get(PLURALS[kind], name, namespace) or {}).get(condition)
        if found is None or found["status"] != status:
            return None
        return found if all(w in f"{found['reason']} {found['message']}" for w in words) else None

    try:
        said: dict[str, Any] = cluster.until(f"{kind} {name} to say {words} in {condition}", holds, seconds=120)
    except Exception as error:
        error.add_note(json.dumps(conditions(cluster.get(PLURALS[kind], name, namespace) or {}), indent=1))
        raise
    return said


def test_a_missing_secret_is_named_and_heals(broken: Cluster) -> None:
    broken.apply(agent("ann"))
    says(broken, "Agent", "ann", "ProviderAvailable", words=("anthropic",))
    broken.apply(SECRET)
    # The kubelet brings a Secret that came later within a minute or two.
    broken.wait("ProviderAvailable", PLURALS["Agent"], "ann", NAMESPACE, seconds=240)
    broken.wait("Ready", PLURALS["Agent"], "ann", NAMESPACE)


def test_an_unknown_provider_is_named_and_heals(broken: Cluster) -> None:
    broken.apply(agent("bob", provider="nobody"))
    says(broken, "Agent", "bob", "ResolvedRefs", words=("ProviderNotAllowed", "nobody", "claude"))
    says(broken, "Agent", "bob", "Ready", words=("nobody",))
    broken.apply(agent("bob"))
    broken.wait("Ready", PLURALS["Agent"], "bob", NAMESPACE)


def test_a_model_that_the_tenant_does_not_allow_is_named_and_has_no_pod(broken: Cluster) -> None:
    broken.apply(agent("greedy", model="claude-opus-5"))
    says(broken, "Agent", "greedy", "Accepted", words=("GrantExceedsParent", "claude/claude-opus-5"))
    assert broken.items("pods", NAMESPACE, "folkmoot.dev/agent=greedy") == []
    broken.kubectl("delete", PLURALS["Agent"], "greedy", "-n", NAMESPACE)


def test_a_missing_member_is_named_and_heals(broken: Cluster) -> None:
    members = [{"agentRef": {"name": "ann"}, "role": "builder"}, {"agentRef": {"name": "carol"}, "role": "voice"}]
    broken.apply(
        thing(
            "Council", "moot", cause="We err.", coordinator={"agentRef": {"name": "ann"}}, members=members, quorum={"minimum": 1}
        )
    )
    says(broken, "Council", "moot", "ResolvedRefs", words=("RefNotFound", "carol"))
    broken.apply(agent("carol"))
    broken.wait("Ready", PLURALS["Council"], "moot", NAMESPACE)


def test_a_missing_reviewer_is_named_and_heals(broken: Cluster) -> None:
    gate = {**ACME_GATE, "structural": {"reviewers": [{"agentRef": {"name": "dora"}}]}}
    broken.apply(thing("GatePolicy", "gate", **gate))
    says(broken, "GatePolicy", "gate", "ResolvedRefs", words=("RefNotFound", "dora"))
    broken.apply(thing("GatePolicy", "gate", **ACME_GATE))
    broken.wait("Ready", PLURALS["GatePolicy"], "gate", NAMESPACE)


def test_a_session_without_its_input_waits_says_so_and_heals(broken: Cluster) -> None:
    spec = {
        "target": {"kind": "Agent", "name": "ann"},
        "task": "Read.",
        "inputs": [{"name": "text", "configMapRef": {"name": "later"}}],
    }
    broken.apply(thing("Session", "waits", **spec))
    says(broken, "Session", "waits", "ResolvedRefs", words=("RefNotFound", "ConfigMap later", "create it"))
    broken.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "later", "namespace": NAMESPACE}, "data": {"a.txt": "b"}}
    )
    broken.wait("Ready", PLURALS["Session"], "waits", NAMESPACE)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (tenant(cause="I am somebody else now."), ("cause", "immutable")),
        (agent("ann", cause="I am another."), ("cause", "immutable")),
        (agent("a" * 41), ("at most 40 characters",)),
        (agent("core"), ("reserved",)),
        ({**tenant(), "metadata": {"name": "system"}}, ("reserved",)),
        (thing("Session", "s", target={"kind": "Agent", "name": "ann"}, task=""), ("task",)),
        (thing("Agent", "x", cause="I.", model={"provider": "claude", "name": "m"}, nonsense=1), ("nonsense",)),
    ],
    ids=["tenant-cause", "agent-cause", "long-name", "reserved-agent", "reserved-tenant", "empty-task", "unknown-field"],
)
def test_the_api_server_refuses_with_the_sentence(broken: Cluster, manifest: dict[str, Any], words: tuple[str, ...]) -> None:
    code, said = broken.try_kubectl("apply", "--validate=strict", "-f", "-", text=json.dumps(manifest))
    assert code != 0
    for word in words:
        assert word in said


def test_an_agent_made_again_with_another_cause_is_a_conflict_of_identity(broken: Cluster) -> None:
    broken.apply(agent("twice", cause="I am the first."))
    broken.wait("IdentityBound", PLURALS["Agent"], "twice", NAMESPACE)
    broken.kubectl("delete", PLURALS["Agent"], "twice", "-n", NAMESPACE)
    broken.apply(agent("twice", cause="I am the second."))
    says(broken, "Agent", "twice", "IdentityBound", words=("IdentityConflict", "another name or the earlier cause"))
    broken.kubectl("delete", PLURALS["Agent"], "twice", "-n", NAMESPACE)
    broken.apply(agent("twice", cause="I am the first."))
    broken.wait("Ready", PLURALS["Agent"], "twice", NAMESPACE)


def test_describe_explains(broken: Cluster) -> None:
    broken.apply(agent("lost", provider="nobody"))
    says(broken, "Agent", "lost", "Ready", words=("nobody",))
    described = broken.kubectl("describe", PLURALS["Agent"], "lost", "-n", NAMESPACE)
    assert "ProviderNotAllowed" in described
    broken.kubectl("delete", PLURALS["Agent"], "lost", "-n", NAMESPACE)


def test_a_foreign_namespace_is_not_touched(broken: Cluster) -> None:
    broken.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "folkmoot-squatter", "labels": {"whose": "mine"}}}
    )
    broken.apply({**tenant(), "metadata": {"name": "squatter"}})
    says(broken, "Tenant", "squatter", "Conflict", words=("folkmoot-squatter", "not made by Folkmoot"), status="True")
    assert broken.get("statefulset", "core", "folkmoot-squatter") is None
    broken.kubectl("delete", PLURALS["Tenant"], "squatter", "--timeout=120s")
    found = broken.get("namespace", "folkmoot-squatter") or {}
    assert found["metadata"]["labels"]["whose"] == "mine"
    broken.kubectl("delete", "namespace", "folkmoot-squatter")
