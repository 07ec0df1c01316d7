"""SIGKILL to one container's first process, from the node: from inside its namespace PID 1 cannot be killed.

On the embedded cluster by the pid that containerd knows; on any other the pod is deleted without grace, which is the
nearest that an API server offers.
"""

from __future__ import annotations

import os
import signal

from .cluster import Cluster
from .shell import Failed, run


def kill(cluster: Cluster, namespace: str, pod: str, container: str) -> None:
    """Kill a container of a running pod."""
    if cluster.status().get("driver") != "embedded":
        cluster.kubectl("delete", "pod", pod, "-n", namespace, "--grace-period=0", "--force")
        return
    found = cluster.get("pod", pod, namespace) or {}
    states = (found.get("status") or {}).get("containerStatuses") or ()
    identity = next(
        (s["containerID"].rpartition("/")[2] for s in states if s["name"] == container and s.get("containerID")), None
    )
    if identity is None:
        raise Failed(f"pod {pod} in {namespace} has no running container {container}")
    os.kill(_pid(cluster, identity), signal.SIGKILL)


def first_pod(cluster: Cluster, namespace: str, selector: str) -> str:
    """Name of one running pod with these labels."""
    pods = [p for p in cluster.items("pods", namespace, selector) if p["status"]["phase"] == "Running"]
    if not pods:
        raise Failed(f"no running pod {selector} in {namespace}")
    return str(pods[0]["metadata"]["name"])


def pids(cluster: Cluster) -> dict[str, int]:
    """Container id → pid on this machine, of the embedded cluster."""
    socket = f"/run/folkmoot/{cluster.status()['instance']}/containerd.sock"
    listed = run(["ctr", "--address", socket, "--namespace", "k8s.io", "tasks", "list"])
    rows = [line.split() for line in listed.splitlines()[1:]]
    return {row[0]: int(row[1]) for row in rows if len(row) == 3 and row[2] == "RUNNING"}


def _pid(cluster: Cluster, container: str) -> int:
    found = pids(cluster).get(container)
    if found is None:
        raise Failed(f"containerd runs no task {container[:12]}")
    return found
