"""Sandbox pods: where tools and checks run. No identity, no secret, no way out, not even DNS. wiring.md §6."""

from __future__ import annotations

from dataclasses import dataclass

from folkmoot_core import names
from folkmoot_core.plan import pods, quantities
from folkmoot_core.plan.pods import Container
from folkmoot_core.plan.types import Installation, Manifest
from folkmoot_core.plan.views import TenantView
from folkmoot_core.resources.common import Resources

MODULE = "folkmoot_runtime.sandbox"
WORKSPACE_DIR = "/workspace"
_RESOURCES = {"requests": {"cpu": "25m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


@dataclass(frozen=True)
class Jail:
    """What differs between sandboxes. `caller` is the one ServiceAccount that may use it."""

    caller: str
    tools: tuple[str, ...]
    workspace: str
    resources: Resources | None = None
    agent: str = ""


def pod(tenant: TenantView, inst: Installation, jail: Jail) -> Manifest:
    """Pod spec of one sandbox; the tenant's RuntimeClass applies here."""
    requests, limits = pods.merged(_RESOURCES, jail.resources)
    part = Container(
        name="sandbox", module=MODULE, uid=names.UID_SANDBOX, requests=requests, limits=limits,
        env={
            "FOLKMOOT_AGENT": jail.agent, "FOLKMOOT_SANDBOX_CALLER": jail.caller, "FOLKMOOT_SANDBOX_TOOLS": ",".join(jail.tools),
            "FOLKMOOT_DATA": WORKSPACE_DIR, "FOLKMOOT_SANDBOX_WORKSPACE_BYTES": str(int(quantities.value(jail.workspace))),
        },
        ports={"sandbox": names.PORT_SANDBOX}, mounts=({"name": "workspace", "mountPath": WORKSPACE_DIR},),
        probes=pods.http_probes(names.PORT_SANDBOX),
    )  # fmt: skip
    volumes = [*pods.volumes([part]), {"name": "workspace", "emptyDir": {"sizeLimit": jail.workspace}}]
    spec = pods.pod_spec(inst, None, [pods.build(tenant, inst, part)], volumes)
    spec["dnsPolicy"] = "None"  # it may resolve nothing; a resolver that never answers would only make tools slow
    spec["dnsConfig"] = {"nameservers": ["127.0.0.1"]}
    if tenant.spec.isolation.runtime_class_name:
        spec["runtimeClassName"] = tenant.spec.isolation.runtime_class_name
    return spec


def deployment(head: Manifest, selector: dict[str, str], template: dict[str, str], pod: Manifest, replicas: int) -> Manifest:
    """A Deployment over `head`. No surge: a roll-out must fit into a quota that is used up."""
    return {
        **head,
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 3,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": template}, "spec": pod},
        },
    }
