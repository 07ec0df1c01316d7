"""What the operator reads from its environment, once, at start."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from folkmoot_core import names
from folkmoot_core.errors import Invalid

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class Settings:
    """The operator's settings; each has FOLKMOOT_<NAME> as its environment variable."""

    namespace: str = names.SYSTEM_NAMESPACE
    """FOLKMOOT_NAMESPACE: the operator's own namespace (CA Secret, Lease, endpoint). Default: the pod's."""
    identity: str = "operator"
    """FOLKMOOT_POD: this replica's name, holder of the Lease."""
    image: str = "folkmoot-runtime:0.1.0"
    """FOLKMOOT_RUNTIME_IMAGE: image of tenants' pods."""
    operator_image: str = ""
    """FOLKMOOT_OPERATOR_IMAGE: the operator's own image, shown to plans."""
    version: str = "0.1.0"
    """FOLKMOOT_VERSION: label app.kubernetes.io/version of children."""
    storage_class: str = ""
    """FOLKMOOT_STORAGE_CLASS: of core and broker volumes where a Tenant names none; empty: the cluster's default."""
    image_pull_policy: str = "IfNotPresent"
    """FOLKMOOT_RUNTIME_IMAGE_PULL_POLICY."""
    image_pull_secrets: tuple[str, ...] = ()
    """FOLKMOOT_RUNTIME_IMAGE_PULL_SECRETS: comma-separated names, in tenants' namespaces."""
    federation: str = "folkmoot"
    """FOLKMOOT_FEDERATION: first segment of every identity's scope."""
    endpoint_name: str = "folkmoot-operator"
    """FOLKMOOT_ENDPOINT_NAME: Service that leads to the endpoint; its DNS names are on the endpoint's certificate."""
    endpoint_url: str = ""
    """FOLKMOOT_ENDPOINT_URL: how tenants reach the endpoint; default: the Service's name."""
    cluster_domain: str = "cluster.local"
    """FOLKMOOT_CLUSTER_DOMAIN."""
    listen_host: str = "0.0.0.0"  # noqa: S104 - a pod's door; NetworkPolicy says who reaches it
    """FOLKMOOT_LISTEN_HOST."""
    port: int = names.PORT_OPERATOR
    """FOLKMOOT_PORT: the endpoint's port."""
    metrics_port: int = names.PORT_METRICS
    """FOLKMOOT_METRICS_PORT: metrics and probes, plain HTTP."""
    export_dir: Path | None = None
    """FOLKMOOT_EXPORT_DIR: mounted volume that takes the sealed logs of deleted tenants; without it `Delete` stalls."""
    workers: int = 32
    """FOLKMOOT_WORKERS: reconciles at the same time."""
    connections: int = 64
    """FOLKMOOT_CONNECTIONS: HTTP connections to the API server at most."""
    writes_per_second: float = 100.0
    """FOLKMOOT_WRITES_PER_SECOND: refill of the token bucket; its burst is twice that."""
    resync_seconds: float = 900.0
    """FOLKMOOT_RESYNC_SECONDS: every object is looked at again within this time, spread evenly."""
    leader_election: bool = True
    """FOLKMOOT_LEADER_ELECTION: `false` for one replica on a developer's machine."""
    log_level: str = "INFO"
    """FOLKMOOT_LOG_LEVEL."""
    conductor_address: str = ""
    """FOLKMOOT_CONDUCTOR_ADDRESS: `host:port` used instead of the tenant's Service, for an operator outside the cluster."""
    cluster_dns_cidrs: tuple[str, ...] = ()
    """FOLKMOOT_CLUSTER_DNS_CIDRS: comma-separated addresses of a node-local DNS cache."""
    cluster_cidrs: tuple[str, ...] = ()
    """FOLKMOOT_CLUSTER_CIDRS: comma-separated ranges of pods, Services and nodes, kept out of brokers' egress."""
    witness_url: str = ""
    """FOLKMOOT_WITNESS_URL: submission prefix of the installation's witness, as brokers reach it; empty: there is none."""
    witness_operator_url: str = ""
    """FOLKMOOT_WITNESS_OPERATOR_URL: its operator door; needed with the other."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The whole environment, for what leads to the API server."""

    def url(self) -> str:
        """Base URL of the endpoint as tenants reach it."""
        return self.endpoint_url or f"https://{self.endpoint_name}.{self.namespace}.svc:{names.PORT_OPERATOR}"

    def endpoint_names(self) -> tuple[str, ...]:
        """Names on the endpoint's own certificate."""
        service = f"{self.endpoint_name}.{self.namespace}.svc"
        known = (self.endpoint_name, f"{self.endpoint_name}.{self.namespace}", service, f"{service}.{self.cluster_domain}")
        host = urlsplit(self.url()).hostname or service
        return known if host in known else (*known, host)


def from_environment(env: Mapping[str, str] | None = None) -> Settings:
    """Read the environment; raises `Invalid` naming the variable that is wrong."""
    env = os.environ if env is None else env

    def text(key: str, default: str) -> str:
        return env.get(f"FOLKMOOT_{key}", "") or default

    export = text("EXPORT_DIR", "")
    if bool(text("WITNESS_URL", "")) != bool(text("WITNESS_OPERATOR_URL", "")):
        raise Invalid("environment variables FOLKMOOT_WITNESS_URL and FOLKMOOT_WITNESS_OPERATOR_URL: expected both or none")
    return Settings(
        namespace=text("NAMESPACE", _pod_namespace()), identity=text("POD", socket.gethostname()),
        image=text("RUNTIME_IMAGE", Settings.image),
        image_pull_policy=text("RUNTIME_IMAGE_PULL_POLICY", Settings.image_pull_policy),
        image_pull_secrets=_words(text("RUNTIME_IMAGE_PULL_SECRETS", "")), federation=text("FEDERATION", Settings.federation),
        endpoint_name=text("ENDPOINT_NAME", Settings.endpoint_name), endpoint_url=text("ENDPOINT_URL", "").rstrip("/"),
        cluster_domain=text("CLUSTER_DOMAIN", Settings.cluster_domain), listen_host=text("LISTEN_HOST", Settings.listen_host),
        port=_number(env, "PORT", Settings.port), metrics_port=_number(env, "METRICS_PORT", Settings.metrics_port),
        export_dir=Path(export) if export else None, workers=_number(env, "WORKERS", Settings.workers),
        connections=_number(env, "CONNECTIONS", Settings.connections),
        writes_per_second=float(_number(env, "WRITES_PER_SECOND", int(Settings.writes_per_second))),
        resync_seconds=float(_number(env, "RESYNC_SECONDS", int(Settings.resync_seconds))),
        leader_election=text("LEADER_ELECTION", "true").lower() != "false",
        log_level=text("LOG_LEVEL", Settings.log_level).upper(),
        operator_image=text("OPERATOR_IMAGE", ""), version=text("VERSION", Settings.version), storage_class=text("STORAGE_CLASS", ""),
        cluster_dns_cidrs=_words(text("CLUSTER_DNS_CIDRS", "")), conductor_address=text("CONDUCTOR_ADDRESS", ""), cluster_cidrs=_words(text("CLUSTER_CIDRS", "")),
        witness_url=text("WITNESS_URL", "").rstrip("/"), witness_operator_url=text("WITNESS_OPERATOR_URL", "").rstrip("/"),
        environment=dict(env),
    )  # fmt: skip


def _pod_namespace() -> str:
    return _POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.exists() else names.SYSTEM_NAMESPACE


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _number(env: Mapping[str, str], key: str, default: int) -> int:
    text = env.get(f"FOLKMOOT_{key}", "") or str(default)
    if not text.isdigit() or int(text) == 0:
        raise Invalid(f"environment variable FOLKMOOT_{key} is {text!r}; expected a number above 0")
    return int(text)
