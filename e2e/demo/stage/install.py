"""Images, charts and the model simulator: what stands before the first tenant is applied."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from .cluster import Cluster, Manifest
from .shell import ROOT, run, step

SYSTEM = "folkmoot-system"
MODELS_NAMESPACE = "folkmoot-e2e-models"
MODELS_URL = f"http://models.{MODELS_NAMESPACE}.svc:8080"
REGISTRY = "folkmoot.local"
KEPT_ARCHIVES = 3
RESTRICTED = {
    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip


@dataclass(frozen=True)
class Image:
    """One image: what goes into it decides its tag, so that changed code makes new pods and unchanged code makes none."""

    repository: str
    containerfile: str
    context: str
    inputs: tuple[str, ...]

    def tag(self) -> str:
        """Twelve digits over the names and contents of the inputs, as they were when first asked: build and install must agree."""
        return _tag((self.containerfile, *self.inputs))

    def name(self) -> str:
        """Repository and tag."""
        return f"{REGISTRY}/{self.repository}:{self.tag()}"


OPERATOR = Image(
    "operator", "operator/Containerfile", ".", ("core/folkmoot_core", "operator/folkmoot_operator", "requirements/operator.lock")
)
RUNTIME = Image(
    "runtime", "agents-image/Containerfile", ".",
    ("core/folkmoot_core", "agents-image/folkmoot_runtime", "agents-image/sandbox.lock", "requirements/runtime.lock"),
)  # fmt: skip
SIMULATOR = Image("simulator", "e2e/simulator/Containerfile", "e2e/simulator", ("e2e/simulator/simulator",))
IMAGES = (OPERATOR, RUNTIME, SIMULATOR)


def images(cluster: Cluster) -> None:
    """Build all three and load them."""
    for image in IMAGES:
        with step(f"image {image.name()}"):
            cluster.build(image.name(), image.containerfile, image.context)
            _prune(image)


def kinds(cluster: Cluster) -> None:
    """The CRDs' chart, installed or upgraded. Early: the cluster's quota controller takes half a minute to know new kinds."""
    with step("helm: charts/folkmoot-crds"):
        _helm(cluster, "folkmoot-crds")


def operator(cluster: Cluster) -> None:
    """The chart of the operator, installed or upgraded; ends when it answers."""
    values: list[str] = []
    for key, value in (
        ("image.repository", f"{REGISTRY}/{OPERATOR.repository}"), ("image.tag", OPERATOR.tag()),
        ("runtime.image.repository", f"{REGISTRY}/{RUNTIME.repository}"), ("runtime.image.tag", RUNTIME.tag()), ("export.size", "1Gi"),
    ):  # fmt: skip
        values += ["--set-string", f"{key}={value}"]
    values += ["--set", "timestamps.enabled=true"]
    with step("helm: charts/folkmoot (operator, 2 replicas, a volume for exported logs; witness; timestamp authority)"):
        _helm(cluster, "folkmoot", *values)


def _helm(cluster: Cluster, chart: str, *values: str) -> None:
    words = [
        cluster.tool("helm"),
        "upgrade",
        "--install",
        chart,
        ROOT / "charts" / chart,
        "--namespace",
        SYSTEM,
        "--create-namespace",
    ]
    run([*words, "--wait", "--timeout", "240s", "--force-conflicts", *values], environment=cluster.client_environment)


def simulator(cluster: Cluster, scenario: str, *, namespace: str = MODELS_NAMESPACE) -> None:
    """A model simulator with a scenario. A changed scenario is a changed Deployment."""
    digest = hashlib.sha256(scenario.encode()).hexdigest()[:16]
    labels = {"app": "models"}
    container = {
        "name": "simulator", "image": SIMULATOR.name(), "imagePullPolicy": "IfNotPresent", "securityContext": RESTRICTED,
        "ports": [{"containerPort": 8080}], "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "scenario", "mountPath": "/etc/simulator"}],
    }  # fmt: skip
    pod = {
        "metadata": {"labels": labels, "annotations": {"scenario": digest}},
        "spec": {
            "automountServiceAccountToken": False, "securityContext": {"runAsUser": 10001, "runAsGroup": 10001}, "containers": [container],
            "volumes": [{"name": "scenario", "configMap": {"name": "scenario"}}],
        },
    }  # fmt: skip
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": enforced}},
        _object("v1", "ConfigMap", "scenario", namespace, data={"scenario.yaml": scenario}),
        _object("v1", "Service", "models", namespace, spec={"selector": labels, "ports": [{"port": 8080}]}),
        _object("apps/v1", "Deployment", "models", namespace, spec={"selector": {"matchLabels": labels}, "template": pod}),
    )
    cluster.kubectl("rollout", "status", "deployment/models", "-n", namespace, "--timeout=120s")


def manifests(path: Path, models: str = MODELS_URL) -> list[Manifest]:
    """The documents of a manifest file with the simulator's address filled in."""
    return [d for d in yaml.safe_load_all(path.read_text().replace("@MODELS@", models)) if d]


@cache
def _tag(inputs: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for entry in inputs for p in _files(ROOT / entry)):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _object(api: str, kind: str, name: str, namespace: str, **rest: object) -> Manifest:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": namespace}, **rest}


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [p for p in path.rglob("*") if p.is_file() and p.suffix != ".pyc" and "__pycache__" not in p.parts]


def _prune(image: Image) -> None:
    """Archives of older code: a few hundred megabytes each that nobody asks for again."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", "/root")) / ".cache") / "folkmoot/images"
    archives = sorted(cache.glob(f"{REGISTRY}_{image.repository}-*.tar"), key=lambda p: p.stat().st_mtime, reverse=True)
    for archive in archives[KEPT_ARCHIVES:]:
        for path in (archive, archive.with_suffix(".id"), archive.with_suffix(".log")):
            path.unlink(missing_ok=True)
