"""The demo's tenants on a cluster, in the order of the manual: Tenants, then Secrets, then everything else, then Ready."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

from folkmoot_cli.orders import tar

from .cluster import Cluster, Manifest
from .install import MODELS_URL, manifests
from .shell import ROOT, step

DEMO = ROOT / "e2e/demo"
PROGRAM = DEMO / "program"
WAITED = ("Agent", "GatePolicy", "Council")
PLURALS = {
    "Tenant": "tenants.folkmoot.dev", "Agent": "agents.folkmoot.dev", "GatePolicy": "gatepolicies.folkmoot.dev",
    "Council": "councils.folkmoot.dev", "Session": "sessions.folkmoot.dev",
}  # fmt: skip


def everything() -> list[Manifest]:
    """The demo's manifests but its sessions."""
    return manifests(DEMO / "manifests.yaml", MODELS_URL)


def apply(cluster: Cluster, objects: Iterable[Manifest]) -> None:
    """Apply and wait until all of it is Ready."""
    found = list(objects)
    tenants = [o for o in found if o["kind"] == "Tenant"]
    cluster.apply(*tenants)
    for tenant in tenants:
        with step(f"tenant {name(tenant)}: namespace"):
            cluster.wait("NamespaceReady", PLURALS["Tenant"], name(tenant))
    rest = [o for o in found if o["kind"] != "Tenant"]
    if rest:
        cluster.apply(*rest)
    for tenant in tenants:
        with step(f"tenant {name(tenant)}: Ready (core, broker, checks' sandbox)"):
            cluster.wait("Ready", PLURALS["Tenant"], name(tenant))
    for kind in WAITED:
        for item in (o for o in rest if o["kind"] == kind):
            with step(f"{kind.lower()} {item['metadata']['namespace']}/{name(item)}: Ready"):
                cluster.wait("Ready", PLURALS[kind], name(item), item["metadata"]["namespace"])


def program_config_map(namespace: str, folder: Path = PROGRAM, named: str = "discount-program") -> Manifest:
    """The program under work as a ConfigMap: a tar that is the same bytes for the same files."""
    content = {"program.tar": base64.b64encode(tar(folder)).decode()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": named, "namespace": namespace}, "binaryData": content}


def fresh(cluster: Cluster, session: Manifest) -> Manifest:
    """The same session under a name that is not taken: what was decided before stays on record."""
    kind, namespace, stem = PLURALS["Session"], session["metadata"]["namespace"], name(session)
    taken = {name(item) for item in cluster.items(kind, namespace)}
    chosen = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, 1000))) if n not in taken)
    return {**session, "metadata": {**session["metadata"], "name": chosen}}


def name(manifest: Manifest) -> str:
    """An object's name."""
    return str(manifest["metadata"]["name"])
