"""Clusters that are not ours are spoken to through kubectl: their kubeconfigs log in in ways a few lines cannot."""

import json
import shutil
from pathlib import Path
from typing import Any

from . import shell, tools
from .errors import CommandFailed


def run(cache: Path, kubeconfig: Path, *words: str, text: str | None = None) -> str:
    """kubectl from PATH, else the one built here."""
    program = shutil.which("kubectl") or tools.path(cache, "kubectl")
    return shell.run([program, "--kubeconfig", kubeconfig, *words], text=text)


def apply(cache: Path, kubeconfig: Path, manifest: dict[str, Any]) -> None:
    run(cache, kubeconfig, "apply", "-f", "-", text=json.dumps(manifest))


def nodes(cache: Path, kubeconfig: Path) -> list[dict[str, Any]]:
    """Name, version and readiness of every node; none when the cluster does not answer."""
    if not kubeconfig.exists():
        return []
    try:
        listed = json.loads(run(cache, kubeconfig, "get", "nodes", "--request-timeout=10s", "-o", "json"))["items"]
    except CommandFailed:
        return []
    return [
        {
            "name": node["metadata"]["name"],
            "version": node["status"]["nodeInfo"]["kubeletVersion"],
            "ready": any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"]),
        }
        for node in listed
    ]
