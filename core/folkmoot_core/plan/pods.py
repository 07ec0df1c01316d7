"""What every pod of a tenant has in common: restricted security, one token per audience, trust, environment, probes.

Nothing that moves by itself may enter a pod template (versions, digests, discovered state): a template that changes rolls
the pod. conventions.md "Labels, ownership, apply".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from folkmoot_core import names
from folkmoot_core.plan import quantities
from folkmoot_core.plan.types import Installation, Manifest
from folkmoot_core.plan.views import TenantView
from folkmoot_core.resources.common import Resources, SecretKeyRef

RUN_DIR = "/run/folkmoot"
DATA_DIR = "/data"
TRUST_VOLUME = "trust"
TOKEN_SECONDS = 3600
SANDBOX_TOKEN_SECONDS = 600  # the shortest that the API server issues: these tokens reach pods that run strangers' code
STARTUP_SECONDS = 900  # a pod that starts while no operator answers waits for its certificate; then it starts over


@dataclass(frozen=True)
class Container:
    """One container of a tenant's pod, as the plans think of it."""

    name: str
    module: str
    uid: int
    limits: Mapping[str, str]
    requests: Mapping[str, str]
    env: Mapping[str, str] = field(default_factory=dict)
    audiences: tuple[str, ...] = ()
    ports: Mapping[str, int] = field(default_factory=dict)
    mounts: tuple[Manifest, ...] = ()
    probes: Manifest = field(default_factory=dict)


def build(tenant: TenantView, inst: Installation, container: Container) -> Manifest:
    """The container's manifest: its own tokens, its own memory-backed run directory, no writable root, no privilege."""
    env = {
        "FOLKMOOT_TENANT": tenant.name,
        "FOLKMOOT_NAMESPACE": tenant.namespace,
        "FOLKMOOT_OPERATOR_URL": inst.operator_service_url,
    }
    mounts = [
        {"name": f"run-{container.name}", "mountPath": RUN_DIR},
        {"name": "tmp", "mountPath": "/tmp", "subPath": container.name},  # noqa: S108 - a volume of this pod, one directory per container
        {"name": TRUST_VOLUME, "mountPath": names.TRUST_DIR, "readOnly": True},
        *container.mounts,
    ]
    if container.audiences:
        mounts.append({"name": f"tokens-{container.name}", "mountPath": names.TOKEN_DIR, "readOnly": True})
    return {
        "name": container.name,
        "image": inst.runtime_image,
        "imagePullPolicy": inst.image_pull_policy,
        "command": ["python", "-m", container.module],
        "env": [_pod_name(), *({"name": k, "value": v} for k, v in sorted({**env, **container.env}.items()))],
        "ports": [{"name": k, "containerPort": v, "protocol": "TCP"} for k, v in container.ports.items()],
        "resources": {"requests": dict(container.requests), "limits": dict(container.limits)},
        "volumeMounts": mounts,
        "securityContext": {
            "runAsUser": container.uid, "runAsGroup": names.FS_GROUP, "runAsNonRoot": True, "privileged": False,
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
        **container.probes,
    }  # fmt: skip


def volumes(containers: Iterable[Container]) -> list[Manifest]:
    """Volumes that `build` mounts: run directories and tokens per container, tmp and trust for all."""
    result: list[Manifest] = [
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
        {"name": TRUST_VOLUME, "configMap": {"name": names.TRUST_CONFIGMAP, "defaultMode": 0o444}},
    ]
    for container in containers:
        result.append({"name": f"run-{container.name}", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}})
        if container.audiences:
            result.append(
                {
                    "name": f"tokens-{container.name}",
                    "projected": {"defaultMode": 0o440, "sources": [_token(a) for a in container.audiences]},
                }
            )
    return result


def secret_file(wanted: SecretKeyRef) -> Manifest:
    """A volume of one key of a Secret, as a file `key` for the pod's group alone. The pod starts before the Secret exists."""
    items = [{"key": wanted.key, "path": "key"}]
    return {"secret": {"secretName": wanted.name, "optional": True, "defaultMode": 0o440, "items": items}}


def pod_spec(inst: Installation, account: str | None, containers: list[Manifest], volumes: list[Manifest]) -> Manifest:
    """The pod spec. Without `account` the pod runs under the namespace's powerless default account, without its token."""
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 15,
        "securityContext": {
            "runAsNonRoot": True, "fsGroup": names.FS_GROUP, "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": volumes,
    }  # fmt: skip
    if account is not None:
        spec["serviceAccountName"] = account
    if inst.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in inst.image_pull_secrets]
    return spec


def https_probes(port: int) -> Manifest:
    """Start-up waits long (certificates come from the operator), then readiness and liveness on the container's own door."""

    def get(path: str) -> Manifest:
        return {"httpGet": {"scheme": "HTTPS", "path": path, "port": port}}

    return _probes(get("/healthz"), get("/readyz"))


def http_probes(port: int) -> Manifest:
    """As `https_probes`, for the sandbox's plain door."""

    def get(path: str) -> Manifest:
        return {"httpGet": {"path": path, "port": port}}

    return _probes(get("/healthz"), get("/readyz"))


def tcp_probes(port: int) -> Manifest:
    """For Valkey, whose TLS port opens when the router has fetched its certificate."""
    return _probes({"tcpSocket": {"port": port}}, {"tcpSocket": {"port": port}})


def file_probes(path: str) -> Manifest:
    """For the agent, which has no door: it touches a file while its loop turns."""
    check = {"exec": {"command": ["sh", "-c", f'test -n "$(find {path} -mmin -1 2>/dev/null)"']}}
    return _probes(check, check)


def _probes(live: Manifest, ready: Manifest) -> Manifest:
    return {
        "startupProbe": {**live, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": STARTUP_SECONDS // 2},
        "readinessProbe": {**ready, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {**live, "periodSeconds": 15, "timeoutSeconds": 10, "failureThreshold": 4},
    }


def merged(defaults: Mapping[str, Mapping[str, str]], wanted: Resources | None) -> tuple[dict[str, str], dict[str, str]]:
    """Requests and limits: what the manifest says over the defaults. A limit below the default request lowers the request,
    and a request above the default limit raises the limit, so that no half-given pair is refused by the API server."""
    asked_requests = dict((wanted.requests if wanted else None) or {})
    asked_limits = dict((wanted.limits if wanted else None) or {})
    requests, limits = {**defaults["requests"], **asked_requests}, {**defaults["limits"], **asked_limits}
    for name in requests.keys() & limits.keys():
        if quantities.value(requests[name]) > quantities.value(limits[name]):
            if name in asked_requests and name not in asked_limits:
                limits[name] = requests[name]
            elif name not in asked_requests:
                requests[name] = limits[name]
    return requests, limits


def limits_of(workloads: Iterable[Mapping[str, Any]], resource: str) -> list[str]:
    """Limits of one resource over all containers and replicas of workload manifests: what the quota must leave room for."""
    return [
        container["resources"]["limits"][resource]
        for workload in workloads
        for container in workload["spec"]["template"]["spec"]["containers"]
        for _ in range(max(1, int(workload["spec"].get("replicas", 1))))
    ]


def _token(audience: str) -> Manifest:
    seconds = SANDBOX_TOKEN_SECONDS if audience == names.AUDIENCE_SANDBOX else TOKEN_SECONDS
    return {"serviceAccountToken": {"audience": audience, "expirationSeconds": seconds, "path": audience}}


def _pod_name() -> Manifest:
    return {"name": "FOLKMOOT_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
