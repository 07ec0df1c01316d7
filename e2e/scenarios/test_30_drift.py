"""What the operator made comes back when it is changed or deleted, by whom ever that was possible."""

from __future__ import annotations

from typing import Any

import pytest
from stage.cluster import Cluster
from stage.tenants import PLURALS

ACME = "folkmoot-acme"
# Whoever admission lets through: a system controller, here by impersonation.
CONTROLLER = (
    "--as=system:serviceaccount:kube-system:x",
    "--as-group=system:serviceaccounts:kube-system",
    "--as-group=system:masters",
)
CHILDREN = (
    ("networkpolicy", ""), ("rolebinding", ""), ("configmap", "folkmoot-trust"), ("service", "core"), ("service", "broker"),
    ("resourcequota", "folkmoot"), ("limitrange", "folkmoot"), ("deployment", "sandbox-checks"), ("deployment", "agent-loom"),
    ("deployment", "sandbox-builder"), ("serviceaccount", "agent-loom"),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "named"), CHILDREN, ids=lambda value: value or "first")
def test_a_deleted_child_comes_back(moot: Cluster, kind: str, named: str) -> None:
    child = named or moot.items(kind, ACME, "app.kubernetes.io/managed-by=folkmoot")[0]["metadata"]["name"]
    before = _need(moot, kind, child)
    moot.kubectl("delete", kind, child, "-n", ACME, "--wait=true", *CONTROLLER)
    after = moot.until(f"{kind} {child} to come back", lambda: _other(moot, kind, child, before["metadata"]["uid"]), seconds=60)
    assert after.get("spec") == before.get("spec") or kind in ("service", "deployment")
    assert after.get("data") == before.get("data")
    assert after["metadata"]["labels"] == before["metadata"]["labels"]


@pytest.mark.parametrize(
    ("kind", "named", "change", "path", "wanted"),
    [
        ("deployment", "agent-loom", '{"spec":{"replicas":3}}', ("spec", "replicas"), 1),
        ("service", "core", '{"spec":{"publishNotReadyAddresses":false}}', ("spec", "publishNotReadyAddresses"), True),
        ("configmap", "folkmoot-trust", '{"data":{"issuer":"https://evil.example"}}', ("data", "issuer"), None),
        ("resourcequota", "folkmoot", '{"spec":{"hard":{"count/agents.folkmoot.dev":"999"}}}', ("spec", "hard", "count/agents.folkmoot.dev"), "20"),
        (
            "networkpolicy", "", '{"spec":{"podSelector":{"matchLabels":{"nobody":"here"}}}}',
            ("spec", "podSelector", "matchLabels", "nobody"), "absent",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "{" not in value else "",
)  # fmt: skip
def test_a_changed_child_is_mended(  # noqa: PLR0913 - a table
    moot: Cluster, kind: str, named: str, change: str, path: tuple[str, ...], wanted: Any
) -> None:
    child = named or moot.items(kind, ACME, "app.kubernetes.io/managed-by=folkmoot")[0]["metadata"]["name"]
    expected = _at(_need(moot, kind, child), path) if wanted is None else wanted
    moot.kubectl("patch", kind, child, "-n", ACME, "--type=merge", "-p", change, *CONTROLLER)
    moot.until(f"{kind} {child} to be mended", lambda: _at(_need(moot, kind, child), path) == expected, seconds=60)


def test_scaling_by_an_admin_is_undone(moot: Cluster) -> None:
    # Admission sees no labels on the scale subresource, so this is let through; the operator puts it right.
    moot.kubectl("scale", "statefulset", "broker", "--replicas=0", "-n", ACME)
    moot.until("the broker to be wanted again", lambda: _need(moot, "statefulset", "broker")["spec"]["replicas"] == 1, seconds=60)


def test_a_deleted_namespace_of_rights_is_not_what_a_tenant_ends_with(moot: Cluster) -> None:
    moot.wait("Ready", PLURALS["Tenant"], "acme")
    for agent in ("loom", "builder"):
        moot.wait("Ready", PLURALS["Agent"], agent, ACME)


def test_a_restarted_operator_writes_nothing(moot: Cluster) -> None:
    before = _versions(moot)
    moot.kubectl("rollout", "restart", "deployment/folkmoot-operator", "-n", "folkmoot-system")
    moot.kubectl("rollout", "status", "deployment/folkmoot-operator", "-n", "folkmoot-system", "--timeout=240s")
    moot.until("a new leader to have looked", lambda: moot.items("leases.coordination.k8s.io", "folkmoot-system"), seconds=60)
    assert _versions(moot) == before


def _versions(cluster: Cluster) -> dict[str, str]:
    """Generations of everything with a spec that the operator manages: moved by writes of intent alone."""
    found = {}
    for kind in ("statefulsets", "deployments", "networkpolicies"):
        for item in cluster.items(kind, selector="app.kubernetes.io/managed-by=folkmoot"):
            meta = item["metadata"]
            found[f"{kind}/{meta['namespace']}/{meta['name']}"] = f"{meta['uid']}/{meta['generation']}"
    return found


def _need(cluster: Cluster, kind: str, named: str) -> dict[str, Any]:
    found = cluster.get(kind, named, ACME)
    assert found is not None
    return found


def _other(cluster: Cluster, kind: str, named: str, uid: str) -> dict[str, Any] | None:
    found = cluster.get(kind, named, ACME)
    return found if found is not None and found["metadata"]["uid"] != uid else None


def _at(found: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if part not in found:
            return "absent"
        found = found[part]
    return found
