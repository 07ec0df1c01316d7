"""A cluster that somebody else brought up, by the name of its kube-context (FOLKMOOT_CONTEXT).

Nothing is started, nothing is removed.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import kubectl, storage, tools
from ..errors import ClusterError, MissingRequirement, NotSupported
from ..names import Instance
from ..shell import run, say, step


class Given:
    """The driver; see `Driver` for what each method promises."""

    name = "context"

    def __init__(self, instance: Instance, context: str) -> None:
        self.instance = instance
        self.context = context

    @property
    def _file(self) -> Path:
        return self.instance.state / "context.kubeconfig"

    def up(self, *, enforcer: bool) -> None:
        if not enforcer:
            raise NotSupported("--no-netpol-enforcer: what enforces NetworkPolicies in your cluster is not ours to stop")
        with step(f"kubeconfig of context {self.context}"):
            program = shutil.which("kubectl") or tools.path(self.instance.cache, "kubectl")
            words = [program, "config", "view", "--minify", "--flatten", "--context", self.context]
            content = run(words)
            self.instance.state.mkdir(parents=True, exist_ok=True)
            self._file.touch(mode=0o600)
            self._file.write_text(content)
        if not self.status()["healthy"]:
            raise ClusterError(f"no node of context {self.context} is Ready")

    def down(self) -> None:
        say(f"context {self.context} is yours: nothing was started, nothing is removed but our copy of its kubeconfig")
        self._file.unlink(missing_ok=True)
        storage.remove_if_empty(self.instance.state)

    def status(self) -> dict[str, Any]:
        found = kubectl.nodes(self.instance.cache, self._file)
        return {
            "instance": self.instance.name,
            "driver": self.name,
            "healthy": any(node["ready"] for node in found),
            "context": self.context,
            "nodes": found,
            "kubeconfig": str(self._file) if self._file.exists() else None,
        }

    def kubeconfig(self) -> Path:
        if not self._file.exists():
            raise ClusterError("run e2e/cluster/up first; it copies the context's kubeconfig")
        return self._file

    def load(self, images: Sequence[str]) -> None:
        if os.environ.get("FOLKMOOT_IMAGES_PRESENT") == "1":
            return
        listed = " ".join(images)
        raise MissingRequirement(
            f"your cluster pulls its images itself: push these to a registry it reads, under the same names: {listed}; "
            "then set FOLKMOOT_IMAGES_PRESENT=1"
        )

    def enforcer(self, *, on: bool) -> None:
        raise NotSupported("what enforces NetworkPolicies in your cluster is not ours to switch")
