"""The core pod of a tenant: bus, router, ledger and conductor over one volume, each with its own uid, tokens and directory.

The four share a network, so none of them trusts the network: the ledger knows its callers by the Unix socket's peer uid,
the others by token. They share one claim by subPath, so that ledger and conductor cannot read each other's data. The Secret with the key
that their own keys rest under is mounted in these two, `optional` and without subPath as the broker's are (`broker.py`): without
it they do not start, and say why.
"""

from __future__ import annotations

from folkmoot_core import names
from folkmoot_core.plan import labels, pods
from folkmoot_core.plan.pods import Container
from folkmoot_core.plan.types import Installation, Manifest
from folkmoot_core.plan.views import TenantView

VOLUME = "data"
BUS_DIR = "/run/folkmoot/bus"
LEDGER_DIR = "/run/folkmoot/ledger"
KEK_VOLUME = "kek"
KEK_DIR = "/etc/folkmoot/kek"
_BUS_SHARED = {"name": "bus-socket", "mountPath": BUS_DIR}
_LEDGER_SHARED = {"name": "ledger-socket", "mountPath": LEDGER_DIR}
_LEDGER_ENV = {"FOLKMOOT_LEDGER_URL": f"unix://{names.LEDGER_SOCKET}"}

BUS_MODULE = "folkmoot_runtime.bus.server"
ROUTER_MODULE = "folkmoot_runtime.bus"
LEDGER_MODULE = "folkmoot_runtime.ledger"
CONDUCTOR_MODULE = "folkmoot_runtime.conductor"


def claim_names() -> tuple[str, ...]:
    """Names of the volume claims that hold a tenant's state; they outlive their pods and, under Retain, the Tenant."""
    return (f"{VOLUME}-{names.CORE}-0", f"{VOLUME}-{names.BROKER}-0")


def service(tenant: TenantView, inst: Installation) -> Manifest:
    """Headless, and with addresses before readiness: the containers of one pod are ready at different times."""
    ports = {
        "conductor": names.PORT_CONDUCTOR, "operator": names.PORT_CONDUCTOR_OPERATOR, "ledger": names.PORT_LEDGER,
        "router": names.PORT_ROUTER, "bus": names.PORT_BUS,
    }  # fmt: skip
    return headless(
        labels.tenant_object(tenant, inst, ("v1", "Service"), names.CORE, names.CORE),
        labels.selector(tenant.name, names.CORE),
        ports,
    )


def headless(head: Manifest, selector: dict[str, str], ports: dict[str, int], *, before_ready: bool = True) -> Manifest:
    """A headless Service over `head`: names resolve to pods, and a certificate may carry the pod's own name."""
    return {
        **head,
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": before_ready,
            "selector": selector,
            "ports": [{"name": name, "port": port, "targetPort": port, "protocol": "TCP"} for name, port in ports.items()],
        },
    }


def stateful_set(tenant: TenantView, inst: Installation, *, replicas: int = 1) -> Manifest:
    """The core. One pod, one claim that is never removed with the set."""
    parts = _containers(tenant, inst)
    volumes = [
        *pods.volumes(parts),
        {"name": "bus-socket", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "ledger-socket", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        *_kek(tenant),
    ]
    pod = pods.pod_spec(inst, names.SA_CORE, [pods.build(tenant, inst, part) for part in parts], volumes)
    storage = tenant.spec.core.storage
    return stateful(
        tenant,
        inst,
        (names.CORE, pod),
        claim(tenant, names.CORE, storage.size, storage.class_name or inst.storage_class),
        replicas,
    )


def stateful(tenant: TenantView, inst: Installation, workload: tuple[str, Manifest], volume: Manifest, replicas: int) -> Manifest:
    """A StatefulSet of one pod with one claim, as core and broker are."""
    name, pod = workload
    return {
        **labels.tenant_object(tenant, inst, ("apps/v1", "StatefulSet"), name, name),
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",  # OrderedReady would never replace a pod that cannot become ready
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": labels.selector(tenant.name, name)},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "template": {"metadata": {"labels": labels.template(tenant.name, name)}, "spec": pod},
            "volumeClaimTemplates": [volume],
        },
    }


def claim(tenant: TenantView, component: str, size: str, class_name: str | None) -> Manifest:
    """The claim template. Immutable once made, so nothing in it may depend on what can change (CEL keeps the size)."""
    spec: Manifest = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, "volumeMode": "Filesystem"}
    if class_name is not None:
        spec["storageClassName"] = class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": VOLUME, "labels": labels.template(tenant.name, component)},
        "spec": spec,
    }


def _containers(tenant: TenantView, inst: Installation) -> tuple[Container, ...]:
    requests, limits = pods.merged(
        {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "768Mi"}}, tenant.spec.core.resources
    )
    kek = [{"name": volume["name"], "mountPath": KEK_DIR, "readOnly": True} for volume in _kek(tenant)]
    kek_env = {"FOLKMOOT_KEK_FILE": f"{KEK_DIR}/key"} if kek else {}
    return (
        Container(
            name="bus", module=BUS_MODULE, uid=names.UID_BUS, requests=_small("64Mi"), limits={"cpu": "500m", "memory": "512Mi"},
            ports={"bus": names.PORT_BUS}, mounts=(_data("bus"), _BUS_SHARED), probes=pods.tcp_probes(names.PORT_BUS),
        ),
        Container(
            name="router", module=ROUTER_MODULE, uid=names.UID_ROUTER, requests=_small("80Mi"), limits={"cpu": "500m", "memory": "256Mi"},
            env=_LEDGER_ENV,
            audiences=(names.AUDIENCE_OPERATOR, names.AUDIENCE_CONDUCTOR, names.AUDIENCE_BUS),
            ports={"router": names.PORT_ROUTER}, mounts=(_data("router"), _BUS_SHARED, _LEDGER_SHARED),
            probes=pods.https_probes(names.PORT_ROUTER),
        ),
        Container(
            name="ledger", module=LEDGER_MODULE, uid=names.UID_LEDGER, requests=_small("80Mi"), limits={"cpu": "500m", "memory": "384Mi"},
            env={"FOLKMOOT_LEDGER_SOCKET": names.LEDGER_SOCKET, **_fence(inst), **kek_env},
            audiences=(names.AUDIENCE_OPERATOR, names.AUDIENCE_BROKER, names.AUDIENCE_CONDUCTOR),
            ports={"ledger": names.PORT_LEDGER}, mounts=(_data("ledger"), _LEDGER_SHARED, *kek), probes=pods.https_probes(names.PORT_LEDGER),
        ),
        Container(
            name="conductor", module=CONDUCTOR_MODULE, uid=names.UID_CONDUCTOR, requests=requests, limits=limits,
            env={**_LEDGER_ENV, "FOLKMOOT_SANDBOX_URL": f"http://{names.SANDBOX_CHECKS}:{names.PORT_SANDBOX}", **kek_env},
            audiences=(names.AUDIENCE_OPERATOR, names.AUDIENCE_BUS, names.AUDIENCE_BROKER, names.AUDIENCE_SANDBOX),
            ports={"conductor": names.PORT_CONDUCTOR, "operator": names.PORT_CONDUCTOR_OPERATOR},
            mounts=(_data("conductor"), _LEDGER_SHARED, *kek), probes=pods.https_probes(names.PORT_CONDUCTOR),
        ),
    )  # fmt: skip


def _fence(inst: Installation) -> dict[str, str]:
    """Whether the ledger may publish without the installation's witness. Nothing where there is none: no pod rolls for it."""
    return {"FOLKMOOT_WITNESS": "required"} if inst.witness_url else {}


def _kek(tenant: TenantView) -> list[Manifest]:
    """The volume with the key-encryption key, where the tenant has one."""
    wanted = tenant.spec.core.key_encryption
    return [{"name": KEK_VOLUME, **pods.secret_file(wanted.secret_ref)}] if wanted is not None else []


def _small(memory: str) -> dict[str, str]:
    return {"cpu": "25m", "memory": memory}


def _data(part: str) -> Manifest:
    return {"name": VOLUME, "mountPath": pods.DATA_DIR, "subPath": part}
