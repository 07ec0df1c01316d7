"""A tenant with one agent by the demo's simulator, for scenarios that need no council."""

from __future__ import annotations

from typing import Any

from . import sessions
from .cluster import Cluster, Manifest
from .install import MODELS_URL
from .tenants import PLURALS

API = "folkmoot.dev/v1alpha1"
AGENT = "ann"


def manifest(name: str, cause: str, **spec: Any) -> Manifest:
    """The Tenant. `spec`: what else it says."""
    provider = {
        "name": "claude", "type": "Anthropic", "apiKeySecretRef": {"name": "keys", "key": "k"}, "baseURL": MODELS_URL,
        "models": [{"name": "claude-sonnet-5-5"}],
    }  # fmt: skip
    whole = {"cause": cause, "providers": [provider], "deletionPolicy": "Delete", **spec}
    return {"apiVersion": API, "kind": "Tenant", "metadata": {"name": name}, "spec": whole}


def live(cluster: Cluster, tenant: Manifest) -> None:
    """Apply the tenant, its key and its agent, and wait until both are Ready."""
    name = tenant["metadata"]["name"]
    namespace = f"folkmoot-{name}"
    cluster.apply(tenant)
    cluster.wait("NamespaceReady", PLURALS["Tenant"], name)
    cluster.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": namespace}, "stringData": {"k": "simulated"}},
        {
            "apiVersion": API, "kind": "Agent", "metadata": {"name": AGENT, "namespace": namespace},
            "spec": {"cause": "I speak.", "model": {"provider": "claude", "name": "claude-sonnet-5-5"}},
        },
    )  # fmt: skip
    cluster.wait("Ready", PLURALS["Tenant"], name)
    cluster.wait("Ready", PLURALS["Agent"], AGENT, namespace)


def speak(cluster: Cluster, name: str) -> str:
    """A session of the tenant's agent, to its end; its name."""
    namespace = f"folkmoot-{name}"
    spec = {"target": {"kind": "Agent", "name": AGENT}, "task": "Speak."}
    made = {"apiVersion": API, "kind": "Session", "metadata": {"name": "speak", "namespace": namespace}, "spec": spec}
    session = sessions.start(cluster, made)
    assert sessions.follow(cluster, session, namespace, sessions.nothing, seconds=200).phase == "Succeeded"
    return session
