"""A cluster by the face of e2e/cluster, and kubectl on it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .shell import ROOT, Failed, NotHere, attempt, run, show, told

FACE = ROOT / "e2e/cluster"
NOT_HERE = 3  # exit code: this machine lacks something
Manifest = dict[str, Any]


@dataclass
class Cluster:
    """One instance. `name` empty: the one that FOLKMOOT_CLUSTER names, else e2e/cluster's own default."""

    name: str = ""
    kubeconfig: Path = field(default_factory=Path)

    @property
    def environment(self) -> dict[str, str]:
        """What e2e/cluster's programs are started with."""
        return {"FOLKMOOT_CLUSTER": self.name} if self.name else {}

    def up(self) -> None:
        """Bring it up, or take it as it is; progress goes to the screen. Raises `NotHere` where no cluster can be."""
        done = told([FACE / "up"], environment=self.environment)
        if done.returncode == NOT_HERE:
            raise NotHere("this machine cannot have a cluster; why is said above")
        if done.returncode != 0:
            raise Failed(f"e2e/cluster/up ended with {done.returncode}; why is said above")
        self.kubeconfig = Path(done.stdout.strip().splitlines()[-1])

    def down(self) -> None:
        """Remove it."""
        show([FACE / "down"], environment=self.environment)

    def status(self) -> dict[str, Any]:
        """What e2e/cluster says of it."""
        found: dict[str, Any] = json.loads(attempt([FACE / "status", "-o", "json"], environment=self.environment).stdout or "{}")
        return found

    def tool(self, name: str) -> str:
        """Path of a program (kubectl, helm, fsck), built if need be."""
        return self._face("tool", name).strip()

    def build(self, image: str, file: str, context: str) -> None:
        """Build an image and make it available to the cluster."""
        self._face("image", "build", image, "--file", str(ROOT / file), "--context", str(ROOT / context))
        self._face("load", image)

    def _face(self, program: str, *words: str) -> str:
        done = told([FACE / program, *words], environment=self.environment)
        if done.returncode != 0:
            raise Failed(f"e2e/cluster/{program} {' '.join(words[:2])} ended with {done.returncode}; why is said above")
        return done.stdout

    @cached_property
    def kubectl_program(self) -> str:
        """The cluster's own kubectl, so that a machine needs none."""
        return self.tool("kubectl")

    @property
    def client_environment(self) -> dict[str, str]:
        """For kubectl, helm and folkmoot: this cluster, and a kubectl on the PATH."""
        folder = str(Path(self.kubectl_program).parent)
        return {"KUBECONFIG": str(self.kubeconfig), "PATH": f"{folder}:{os.environ['PATH']}"}

    def kubectl(self, *words: str, text: str | None = None, timeout: float = 600) -> str:
        """kubectl's output."""
        return run([self.kubectl_program, *words], text=text, environment=self.client_environment, timeout=timeout)

    def try_kubectl(self, *words: str, text: str | None = None) -> tuple[int, str]:
        """(exit code, everything it said)."""
        done = attempt([self.kubectl_program, *words], text=text, environment=self.client_environment)
        return done.returncode, done.stdout + done.stderr

    def get(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """An object, or None."""
        where = ["-n", namespace] if namespace else []
        text = self.kubectl("get", kind, name, *where, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def items(self, kind: str, namespace: str = "", selector: str = "") -> list[Manifest]:
        """The objects of a kind."""
        where = ["-n", namespace] if namespace else ["-A"]
        chosen = ["-l", selector] if selector else []
        found: list[Manifest] = json.loads(self.kubectl("get", kind, *where, *chosen, "-o", "json"))["items"]
        return found

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Apply objects in order."""
        self.kubectl("apply", "-f", "-", text="\n---\n".join(json.dumps(m) for m in manifests))

    def wait(self, condition: str, kind: str, name: str, namespace: str = "", seconds: int = 240) -> None:
        """`kubectl wait`, and what the object says when it does not come."""
        where = ["-n", namespace] if namespace else []
        # The object may not have been seen by anybody yet; kubectl wait fails at once on what does not exist.
        code, said = self.try_kubectl("wait", f"--for=condition={condition}", kind, name, *where, f"--timeout={seconds}s")
        if code != 0:
            found = self.get(kind, name, namespace) or {}
            told = [f"  {c['type']}={c['status']} {c.get('reason')}: {c.get('message')}" for c in conditions(found).values()]
            raise Failed(f"{kind} {name} is not {condition} after {seconds} s: {said.strip()}\n" + "\n".join(told))

    def until(self, what: str, holds: Callable[[], Any], seconds: float = 120, pause: float = 0.5) -> Any:
        """Ask until the answer is true-like and give it; `Failed` names what was waited for."""
        deadline = time.monotonic() + seconds
        while True:
            found = holds()
            if found:
                return found
            if time.monotonic() > deadline:
                raise Failed(f"waited {seconds:.0f} s for {what}")
            time.sleep(pause)


def conditions(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """An object's conditions by type."""
    return {c["type"]: c for c in (found.get("status") or {}).get("conditions") or ()}
