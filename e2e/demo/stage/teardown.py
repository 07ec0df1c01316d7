"""Removing the demo."""

from __future__ import annotations

import os
from pathlib import Path

from . import install
from .cluster import Cluster
from .shell import attempt, say, step
from .tenants import PLURALS, everything, name


def down() -> None:
    """The whole cluster, or what is ours on a cluster that is not."""
    cluster = Cluster()
    status = cluster.status()
    if status.get("driver") == "context" or os.environ.get("FOLKMOOT_CONTEXT"):
        cluster.kubeconfig = Path(str(status.get("kubeconfig") or ""))
        _uninstall(cluster)
    cluster.down()
    say("nothing of the demo is left")


def _uninstall(cluster: Cluster) -> None:
    for tenant in (o for o in everything() if o["kind"] == "Tenant"):
        with step(f"tenant {name(tenant)}: sealed, exported, removed"):
            cluster.try_kubectl("delete", PLURALS["Tenant"], name(tenant), "--ignore-not-found", "--timeout=300s")
    helm = cluster.tool("helm")
    for release in ("folkmoot", "folkmoot-crds"):
        with step(f"helm uninstall {release}"):
            attempt([helm, "uninstall", release, "--namespace", install.SYSTEM, "--wait"], environment=cluster.client_environment)
    cluster.try_kubectl("delete", "crd", "--ignore-not-found", *PLURALS.values())
    cluster.try_kubectl("delete", "namespace", install.SYSTEM, install.MODELS_NAMESPACE, "--ignore-not-found")
