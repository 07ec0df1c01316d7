"""A cluster made by kind, where a container engine answers. Its CNI always enforces NetworkPolicies.

Written from kind's documentation (v0.24 and later) and UNTESTED where this was written: no engine could be had there.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import containers, kubectl, manifests
from ..errors import ClusterError, NotSupported
from ..names import STORAGE_CLASS, Instance
from ..shell import run, say, step, stream, succeeds

ENGINES = ("docker", "podman", "nerdctl")
PROVISIONER = "rancher.io/local-path"  # comes with kind


def available() -> bool:
    """kind is installed and an engine not only is, but answers."""
    return shutil.which("kind") is not None and any(
        shutil.which(engine) is not None and succeeds([engine, "info"]) for engine in ENGINES
    )


class Kind:
    """The driver; see `Driver` for what each method promises."""

    name = "kind"

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    @property
    def _cluster(self) -> str:
        return f"folkmoot-{self.instance.name}"

    def up(self, *, enforcer: bool) -> None:
        if not enforcer:
            raise NotSupported("--no-netpol-enforcer: kind's CNI cannot be told to ignore NetworkPolicies")
        say("driver kind: untested by its authors (no container engine where it was written)")
        if self._exists():
            say(f"{self._cluster} is up")
        else:
            with step("kind create cluster"):
                stream(["kind", "create", "cluster", "--name", self._cluster, "--wait", "180s"], self._log)
        self.instance.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        self.instance.kubeconfig.touch(mode=0o600)
        self.instance.kubeconfig.write_text(run(["kind", "get", "kubeconfig", "--name", self._cluster]))
        with step(f"storage class {STORAGE_CLASS}"):
            self._storage()

    def _storage(self) -> None:
        ours = manifests.storage_class(provisioner=PROVISIONER)
        kubectl.apply(self.instance.cache, self.instance.kubeconfig, ours)
        # kind's own class is the default too; of two defaults the younger wins, of one there is no question.
        mark = "storageclass.kubernetes.io/is-default-class=false"
        words = ["annotate", "storageclass", "standard", "--overwrite", mark]
        kubectl.run(self.instance.cache, self.instance.kubeconfig, *words)

    @property
    def _log(self) -> Path:
        return self.instance.logs / "kind.log"

    def _exists(self) -> bool:
        return self._cluster in run(["kind", "get", "clusters"]).split()

    def down(self) -> None:
        if self._exists():
            with step("kind delete cluster"):
                stream(["kind", "delete", "cluster", "--name", self._cluster], self._log)
        shutil.rmtree(self.instance.state, ignore_errors=True)

    def status(self) -> dict[str, Any]:
        exists = self._exists() and self.instance.kubeconfig.exists()
        found = kubectl.nodes(self.instance.cache, self.instance.kubeconfig) if exists else []
        return {
            "instance": self.instance.name,
            "driver": self.name,
            "healthy": any(node["ready"] for node in found),
            "nodes": found,
            "kubeconfig": str(self.instance.kubeconfig) if exists else None,
        }

    def kubeconfig(self) -> Path:
        if not self.instance.kubeconfig.exists():
            raise ClusterError(f"{self.instance.name} is not up; run e2e/cluster/up")
        return self.instance.kubeconfig

    def load(self, images: Sequence[str]) -> None:
        for image in images:
            archive = Path(image) if image.endswith(".tar") else containers.archive_of(self.instance.cache, image)
            with step(f"load {image}"):
                run(["kind", "load", "image-archive", archive, "--name", self._cluster])

    def enforcer(self, *, on: bool) -> None:
        raise NotSupported("kind's CNI enforces NetworkPolicies always; use the embedded driver to see what happens without")
