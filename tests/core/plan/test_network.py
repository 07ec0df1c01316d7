"""NetworkPolicies against wiring.md §1: every pair of pods, every port, in and out; what is not in the table is denied."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot_core.plan import network, views
from folkmoot_core.plan import tenant as tenant_plan
from folkmoot_core.plan.types import Installation, Problems
from folkmoot_core.plan.views import TenantView

Object = dict[str, Any]
OURS = {"app.kubernetes.io/managed-by": "folkmoot"}
PORTS = (53, 443, 6379, 8080, 8443, 8444, 8445, 8446, 8447, 8448)


def pod(namespace: str, component: str, agent: str = "", **labels: str) -> tuple[str, Object]:
    own = {**OURS, "app.kubernetes.io/component": component, "folkmoot.dev/tenant": namespace.removeprefix("folkmoot-")}
    return namespace, {**own, **({"folkmoot.dev/agent": agent} if agent else {}), **labels}


PODS: dict[str, tuple[str, Object]] = {
    "core": pod("folkmoot-acme", "core"),
    "broker": pod("folkmoot-acme", "broker"),
    "builder": pod("folkmoot-acme", "agent", "builder"),
    "reader": pod("folkmoot-acme", "agent", "reader"),
    "sandbox-builder": pod("folkmoot-acme", "sandbox", "builder"),
    "checks": pod("folkmoot-acme", "sandbox-checks"),
    "stranger": ("folkmoot-acme", {"app": "stranger"}),
    "impostor": ("folkmoot-acme", {"app.kubernetes.io/component": "core", "folkmoot.dev/tenant": "acme"}),
    "operator": ("folkmoot-system", {"app.kubernetes.io/component": "operator", "app.kubernetes.io/part-of": "folkmoot"}),
    "false operator": ("default", {"app.kubernetes.io/component": "operator", "app.kubernetes.io/part-of": "folkmoot"}),
    "witness": ("folkmoot-system", {"app.kubernetes.io/component": "witness", "app.kubernetes.io/part-of": "folkmoot"}),
    "false witness": ("default", {"app.kubernetes.io/component": "witness", "app.kubernetes.io/part-of": "folkmoot"}),
    "dns": ("kube-system", {"k8s-app": "kube-dns"}),
    "models": ("models", {"app": "vllm"}),
    "other core": pod("folkmoot-globex", "core"),
    "other broker": pod("folkmoot-globex", "broker"),
    "other agent": pod("folkmoot-globex", "agent", "builder"),
}

TABLE = {
    ("operator", "core"): {8444},
    ("core", "operator"): {8443}, ("broker", "operator"): {8443},
    ("builder", "core"): {6379, 8443, 8445, 8446}, ("reader", "core"): {6379, 8443, 8445, 8446},
    ("builder", "broker"): {8443}, ("reader", "broker"): {8443}, ("core", "broker"): {8443},
    ("broker", "core"): {8443, 8445},
    ("builder", "sandbox-builder"): {8080}, ("core", "checks"): {8080},
    ("core", "dns"): {53}, ("broker", "dns"): {53}, ("builder", "dns"): {53}, ("reader", "dns"): {53},
    ("broker", "models"): {8443},
}  # fmt: skip


def selects(selector: Object, labels: Object) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True


def peer_matches(peer: Object, policy_namespace: str, target: tuple[str, Object]) -> bool:
    if "ipBlock" in peer:
        return False  # pods have private addresses, and those are excepted: asserted below
    namespace, labels = target
    if "namespaceSelector" in peer:
        name = {"kubernetes.io/metadata.name": namespace}
        if not selects(peer["namespaceSelector"], name):
            return False
    elif namespace != policy_namespace:
        return False
    return selects(peer.get("podSelector", {}), labels)


def allowed(policies: list[Object], direction: str, at: str, other: str, port: int) -> bool:
    """Whether NetworkPolicy lets traffic through at one end: `at` is the pod whose policies are asked."""
    namespace, labels = PODS[at]
    kind, key = ("Ingress", "from") if direction == "in" else ("Egress", "to")
    mine = [
        p for p in policies
        if p["metadata"]["namespace"] == namespace and kind in p["spec"]["policyTypes"] and selects(p["spec"]["podSelector"], labels)
    ]  # fmt: skip
    if not mine:
        return namespace != "folkmoot-acme"  # in the tenant's namespace no pod is without a policy
    for policy in mine:
        for rule in policy["spec"].get(kind.lower(), ()):
            ports = {entry["port"] for entry in rule["ports"]}
            if port in ports and any(peer_matches(peer, namespace, PODS[other]) for peer in rule[key]):
                return True
    return False


def paths(objects: list[Object]) -> dict[tuple[str, str], set[int]]:
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    found: dict[tuple[str, str], set[int]] = {}
    for source, target in itertools.permutations(PODS, 2):
        if "folkmoot-acme" not in (PODS[source][0], PODS[target][0]):
            continue
        for port in PORTS:
            if allowed(policies, "out", source, target, port) and allowed(policies, "in", target, source, port):
                found.setdefault((source, target), set()).add(port)
    return found


def test_exactly_the_paths_of_the_table(objects: list[Object]) -> None:
    assert paths(objects) == TABLE


def test_the_installations_witness_is_one_path_more(tenant: Callable[..., TenantView], installation: Any) -> None:
    one = tenant()
    without = paths([*network.of_tenant(one, installation())])
    found = paths([*network.of_tenant(one, installation(witness_url="https://folkmoot-witness.folkmoot-system.svc:8447"))])
    assert found == {**without, ("broker", "witness"): {8447}}


def test_every_pod_of_the_namespace_is_denied_first(objects: list[Object]) -> None:
    first = next(o for o in objects if o["kind"] == "NetworkPolicy")
    assert first["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_sandboxes_have_no_way_out(objects: list[Object]) -> None:
    for policy in (o for o in objects if o["kind"] == "NetworkPolicy"):
        for name in ("sandbox-builder", "checks"):
            if selects(policy["spec"]["podSelector"], PODS[name][1]):
                assert not policy["spec"].get("egress"), policy["metadata"]["name"]


def test_no_rule_is_for_everybody(objects: list[Object]) -> None:
    """An empty peer list or selector means all; none may slip in."""
    for policy in (o for o in objects if o["kind"] == "NetworkPolicy"):
        for kind, key in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(kind, ()):
                assert rule[key], policy["metadata"]["name"]
                assert rule["ports"]
                assert all(peer.get("namespaceSelector") != {} and peer.get("podSelector") != {} for peer in rule[key])


def outside(tenant: TenantView, inst: Installation) -> list[Object]:
    policy = tenant_plan.plan(tenant, inst).get("NetworkPolicy", "folkmoot-broker")
    assert policy is not None
    return [rule for rule in policy["spec"]["egress"] if any("ipBlock" in peer for peer in rule["to"])]


def test_a_vendor_opens_the_world_but_not_the_house(tenant: Callable[..., TenantView], inst: Installation) -> None:
    rules = outside(tenant(), inst)
    assert len(rules) == 1
    assert rules[0]["ports"] == [{"protocol": "TCP", "port": 443}]
    block = rules[0]["to"][0]["ipBlock"]
    assert block["cidr"] == "0.0.0.0/0"
    for address in ("10.1.2.3", "172.20.0.1", "192.168.1.1", "100.64.0.9", "169.254.169.254", "127.0.0.1"):
        assert any(ipaddress.ip_address(address) in ipaddress.ip_network(cidr) for cidr in block["except"]), address


def test_ranges_of_the_cluster_are_never_outside(tenant: Callable[..., TenantView], installation: Any) -> None:
    rules = outside(tenant(), installation(cluster_cidrs=("203.0.113.0/24",)))
    assert "203.0.113.0/24" in rules[0]["to"][0]["ipBlock"]["except"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://vllm.models.svc:8443/v1", None),
        ("https://vllm.models.svc.cluster.local:8443/v1", None),
        ("http://127.0.0.1:9000", None),
        ("http://169.254.169.254", None),
        ("http://localhost:9000", None),
        ("http://10.1.2.3:8000/v1", ("10.1.2.3/32", 8000)),
        ("https://gateway.example/v1", ("0.0.0.0/0", 443)),
        ("http://gateway.example/v1", ("0.0.0.0/0", 80)),
    ],
)
def test_an_address_opens_exactly_itself(url: str, expected: tuple[str, int] | None, tenant: Any, inst: Installation) -> None:
    house = [{"name": "house", "type": "OpenAICompatible", "baseURL": url}]
    rules = outside(tenant(providers=house), inst)
    found = [(rule["to"][0]["ipBlock"]["cidr"], port["port"]) for rule in rules for port in rule["ports"]]
    assert found == ([] if expected is None else [expected])


def test_without_providers_the_broker_stays_in(tenant: Callable[..., TenantView], inst: Installation) -> None:
    assert outside(tenant(providers=[]), inst) == []


@pytest.mark.parametrize(
    ("host", "namespace"),
    [("a.b.svc", "b"), ("pod.a.b.svc", "b"), ("a.b.svc.cluster.local", "b"), ("a.svc", None), ("svc", None), ("a.b.example", None),
     ("a.b.svc.example", None), ("a.b", None)],
)  # fmt: skip
def test_services_are_known_by_name(host: str, namespace: str | None) -> None:
    assert network.service_namespace(host, "cluster.local") == namespace


@settings(deadline=None)
@given(st.permutations(range(4)))
def test_the_order_of_providers_changes_nothing(order: list[int]) -> None:
    key = {"name": "k", "key": "k"}
    providers: list[Object] = [
        {"name": "a", "type": "Anthropic", "apiKeySecretRef": key}, {"name": "b", "type": "OpenAI", "apiKeySecretRef": key},
        {"name": "c", "type": "OpenAICompatible", "baseURL": "http://x.models.svc:80"},
        {"name": "d", "type": "OpenAICompatible", "baseURL": "http://y.models.svc:81"},
    ]  # fmt: skip
    inst = Installation("folkmoot-system", "f", "https://o", "o", "r", "i", "{}", "ca", "1")

    def plan(of: list[Object]) -> Any:
        view = views.parse_tenant({"metadata": {"name": "acme"}, "spec": {"cause": "I.", "providers": of}})
        assert not isinstance(view, Problems)
        return tenant_plan.plan(view, inst).objects

    assert plan([providers[i] for i in order]) == plan(providers)
