"""What there is of an embedded cluster right now: processes on record, what the API server says, memory."""

from typing import Any

from .. import build, kernel, kube, processes
from ..names import Instance

NETPOL = "netpol"
COMPONENTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "containerd",
    "kubelet",
    "kube-proxy",
    "forward",
    "volumes",
)


def observe(instance: Instance) -> dict[str, Any]:
    """Healthy means: every component runs, an enforcer that was switched on runs too, node and DNS are ready."""
    rows = [_row(each) for each in processes.recorded(instance.records)]
    running = {row["name"] for row in rows if row["running"]}
    missing = sorted({*COMPONENTS, *(str(row["name"]) for row in rows)} - running)
    api = kube.Api(instance.kubeconfig) if instance.kubeconfig.exists() else None
    node = api is not None and kube.holds(lambda: api.node_ready(instance.node_name))
    dns = api is not None and kube.holds(lambda: api.available("kube-system", "coredns"))
    return {
        "instance": instance.name,
        "driver": "embedded",
        "healthy": not missing and node and dns,
        "node": {"name": instance.node_name, "ready": node},
        "dns": dns,
        "enforcer": NETPOL in running,
        "missing": missing,
        "processes": rows,
        "memoryMiB": _mib(kernel.memory_used(instance)),
        "versions": {"kubernetes": build.kubernetes_version(), "coredns": build.coredns_image().rpartition(":")[2]},
        "kubeconfig": str(instance.kubeconfig) if api else None,
    }


def _row(process: processes.Process) -> dict[str, Any]:
    return {
        "name": process.name,
        "pid": process.pid,
        "running": processes.alive(process),
        "memoryMiB": _mib(processes.memory(process)),
    }


def _mib(count: int) -> int:
    return round(count / 2**20)
