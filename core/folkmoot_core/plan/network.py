"""NetworkPolicies of a tenant: everything denied both ways, then exactly the paths of wiring.md §1.

Selectors always carry the managed-by label: the admission policy lets nobody but the operator and the system's controllers
make a pod that has it, so nobody can label himself into one of these paths. NetworkPolicy knows no host names: the broker
enforces the list of hosts, these rules only bound what it could reach at all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from folkmoot_core import names
from folkmoot_core.plan import labels
from folkmoot_core.plan.types import Installation, Manifest
from folkmoot_core.plan.views import AgentView, TenantView
from folkmoot_core.resources import ProviderSpec
from folkmoot_core.resources.audit import Audit

API = ("networking.k8s.io/v1", "NetworkPolicy")
COMPONENT = "network"
CORE_PORTS_OF_AGENTS = (names.PORT_ROUTER, names.PORT_BUS, names.PORT_CONDUCTOR, names.PORT_LEDGER)
CORE_PORTS_OF_BROKER = (names.PORT_CONDUCTOR, names.PORT_LEDGER)

# RFC 1918 private, RFC 6598 shared, RFC 3927 link-local (cloud metadata), RFC 1122 loopback and "this network", multicast.
NOT_OUTSIDE = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4",
)  # fmt: skip


def of_tenant(tenant: TenantView, inst: Installation) -> Iterator[Manifest]:
    """Policies of the namespace as a whole and of core, broker, agents and the checks' sandbox."""
    pods = {c: _pods(tenant, c) for c in (names.CORE, names.BROKER, labels.COMPONENT_AGENT, names.SANDBOX_CHECKS)}
    agents, core, broker, checks = (pods[c] for c in (labels.COMPONENT_AGENT, names.CORE, names.BROKER, names.SANDBOX_CHECKS))
    operator = [operator_peer(inst)]
    yield default_deny(tenant, inst)
    yield _dns(tenant, inst)
    yield _policy(
        tenant, inst, names.CORE,
        ingress=[rule("from", agents, CORE_PORTS_OF_AGENTS), rule("from", broker, CORE_PORTS_OF_BROKER),
                 rule("from", operator, (names.PORT_CONDUCTOR_OPERATOR,))],
        egress=[rule("to", broker, (names.PORT_BROKER,)), rule("to", checks, (names.PORT_SANDBOX,)),
                rule("to", operator, (names.PORT_OPERATOR,))],
    )  # fmt: skip
    yield _policy(
        tenant, inst, names.BROKER,
        ingress=[rule("from", [*agents, *core], (names.PORT_BROKER,))],
        egress=[rule("to", core, CORE_PORTS_OF_BROKER), rule("to", operator, (names.PORT_OPERATOR,)), *_witness(inst),
                *_outside(tenant, inst)],
    )  # fmt: skip
    yield _policy(
        tenant, inst, labels.COMPONENT_AGENT, ingress=[],
        egress=[rule("to", core, CORE_PORTS_OF_AGENTS), rule("to", broker, (names.PORT_BROKER,))],
    )  # fmt: skip
    yield _policy(tenant, inst, names.SANDBOX_CHECKS, ingress=[rule("from", core, (names.PORT_SANDBOX,))], egress=[])


def default_deny(tenant: TenantView, inst: Installation) -> Manifest:
    """All pods of the namespace, ours or not, both directions."""
    head = labels.tenant_object(tenant, inst, API, "folkmoot-default-deny", COMPONENT)
    return {**head, "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}


def of_agent(agent: AgentView, tenant: TenantView, inst: Installation) -> Iterator[Manifest]:
    """The path between one agent and its own sandbox: out of the one, into the other, and nothing out of the sandbox."""
    own = {"podSelector": {"matchLabels": labels.selector(tenant.name, labels.COMPONENT_AGENT, agent.name)}}
    box = {"podSelector": {"matchLabels": labels.selector(tenant.name, labels.COMPONENT_SANDBOX, agent.name)}}
    view = (agent, tenant)
    ports = (names.PORT_SANDBOX,)
    workload, sandbox = names.agent_workload(agent.name), names.sandbox_workload(agent.name)
    yield {
        **labels.agent_object(view, inst, API, workload, labels.COMPONENT_AGENT),
        "spec": {**own, "policyTypes": ["Egress"], "egress": [rule("to", [box], ports)]},
    }
    yield {
        **labels.agent_object(view, inst, API, sandbox, labels.COMPONENT_SANDBOX),
        "spec": {**box, "policyTypes": ["Ingress", "Egress"], "ingress": [rule("from", [own], ports)], "egress": []},
    }


def rule(direction: str, peers: list[Manifest], ports: Iterable[int], protocols: tuple[str, ...] = ("TCP",)) -> Manifest:
    """One rule: peers (never an empty list, which would mean everybody) and ports."""
    return {direction: peers, "ports": [{"protocol": protocol, "port": port} for port in sorted(ports) for protocol in protocols]}


def operator_peer(inst: Installation) -> Manifest:
    """The operator's pods, in its namespace alone."""
    return _system_peer(inst, labels.COMPONENT_OPERATOR)


def witness_peer(inst: Installation) -> Manifest:
    """The pods of the installation's witness, in the operator's namespace alone."""
    return _system_peer(inst, labels.COMPONENT_WITNESS)


def _system_peer(inst: Installation, component: str) -> Manifest:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": inst.system_namespace}},
        "podSelector": {"matchLabels": {names.LABEL_COMPONENT: component, names.LABEL_PART_OF: names.MANAGER}},
    }


def _witness(inst: Installation) -> list[Manifest]:
    """The broker's way to the installation's witness, where there is one: its public door and nothing else."""
    return [rule("to", [witness_peer(inst)], (names.PORT_WITNESS,))] if inst.witness_url else []


def _pods(tenant: TenantView, component: str) -> list[Manifest]:
    return [{"podSelector": {"matchLabels": labels.selector(tenant.name, component)}}]


def _policy(
    tenant: TenantView, inst: Installation, component: str, *, ingress: list[Manifest], egress: list[Manifest]
) -> Manifest:
    head = labels.tenant_object(tenant, inst, API, f"folkmoot-{component}", COMPONENT)
    spec = {**_pods(tenant, component)[0], "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress}
    return {**head, "spec": spec}


def _dns(tenant: TenantView, inst: Installation) -> Manifest:
    """Names, for those who call others: never for a sandbox (DNS is a way out)."""
    callers = {
        "matchLabels": {names.LABEL_MANAGED_BY: names.MANAGER, names.LABEL_TENANT: tenant.name},
        "matchExpressions": [
            {"key": names.LABEL_COMPONENT, "operator": "In", "values": [labels.COMPONENT_AGENT, names.BROKER, names.CORE]}
        ],
    }
    resolver: Manifest = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchExpressions": [{"key": "k8s-app", "operator": "In", "values": ["coredns", "kube-dns"]}]},
    }
    local = [{"ipBlock": {"cidr": cidr}} for cidr in inst.cluster_dns_cidrs]
    head = labels.tenant_object(tenant, inst, API, "folkmoot-dns", COMPONENT)
    egress = [rule("to", [resolver, *local], (53,), ("TCP", "UDP"))]
    return {**head, "spec": {"podSelector": callers, "policyTypes": ["Egress"], "egress": egress}}


def _outside(tenant: TenantView, inst: Installation) -> list[Manifest]:
    """The broker's ways out, merged by destination so that the order of providers, witnesses and authorities does not matter."""
    services: dict[str, set[int]] = {}
    addresses: dict[str, set[int]] = {}
    world: set[int] = set()
    providers = {h for p in tenant.spec.providers if (h := provider_host(p)) is not None}
    for host, port in sorted(providers | set(audit_hosts(tenant.spec.audit))):
        if (namespace := service_namespace(host, inst.cluster_domain)) is not None:
            services.setdefault(namespace, set()).add(port)
        elif (cidr := literal_address(host)) is not None:
            addresses.setdefault(cidr, set()).add(port)
        elif not _local(host):
            world.add(port)
    rules = [
        rule("to", [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}], ports)
        for namespace, ports in sorted(services.items())
    ]
    rules += [rule("to", [{"ipBlock": {"cidr": cidr}}], ports) for cidr, ports in sorted(addresses.items())]
    if world:
        blocked = sorted({*NOT_OUTSIDE, *inst.cluster_cidrs})
        rules.append(rule("to", [{"ipBlock": {"cidr": "0.0.0.0/0", "except": blocked}}], world))
    return rules


_VENDOR_HOSTS = {
    "Anthropic": "api.anthropic.com", "OpenAI": "api.openai.com", "Google": "generativelanguage.googleapis.com",
    "DeepSeek": "api.deepseek.com", "Mistral": "api.mistral.ai",
}  # fmt: skip


def provider_host(provider: ProviderSpec) -> tuple[str, int] | None:
    """Host and port that calls to this provider go to; None for a Scripted one, which calls nobody."""
    if provider.type == "Scripted":
        return None
    if provider.base_url is None:
        host = _VENDOR_HOSTS.get(provider.type)
        return (host, 443) if host else None
    return _host(provider.base_url)


def audit_hosts(audit: Audit) -> Iterator[tuple[str, int]]:
    """Hosts and ports of the witnesses and timestamp authorities that a tenant names."""
    yield from (_host(witness.url) for witness in audit.witnesses)
    yield from (_host(authority.url) for authority in audit.timestamps.authorities)


def _host(address: str) -> tuple[str, int]:
    url = urlsplit(address)
    return (url.hostname or "", url.port or (443 if url.scheme == "https" else 80))


def service_namespace(host: str, cluster_domain: str) -> str | None:
    """Namespace of a cluster Service's name (`name.ns.svc` with or without the cluster's domain), or None."""
    parts = host.removesuffix(f".{cluster_domain}").split(".")
    return parts[-2] if len(parts) >= 3 and parts[-1] == "svc" else None


def literal_address(host: str) -> str | None:
    """CIDR of exactly the address that a baseURL names: how a private server outside the cluster is reached. Loopback and
    link-local (cloud metadata) are nobody's model server and open nothing."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if _unreachable(address):
        return None
    return f"{address}/{address.max_prefixlen}"


def _local(host: str) -> bool:
    try:
        return _unreachable(ipaddress.ip_address(host))
    except ValueError:
        return host == "localhost" or host.endswith(".localhost") or not host


def _unreachable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
