"""A Tenant's end, by both policies: sealed, exported, verified; and gone, or kept asleep and adoptable."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from stage import evidence, sessions
from stage.cluster import Cluster, conditions
from stage.install import MODELS_URL
from stage.sessions import FOLKMOOT
from stage.tenants import PLURALS


def manifests(name: str, policy: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A tenant with one agent by the demo's simulator."""
    namespace = f"folkmoot-{name}"
    provider = {
        "name": "claude", "type": "Anthropic", "apiKeySecretRef": {"name": "keys", "key": "k"}, "baseURL": MODELS_URL,
        "models": [{"name": "claude-sonnet-5-5"}],
    }  # fmt: skip
    api = "folkmoot.dev/v1alpha1"
    tenant = {
        "apiVersion": api, "kind": "Tenant", "metadata": {"name": name},
        "spec": {"cause": "I come and go.", "providers": [provider], "deletionPolicy": policy},
    }  # fmt: skip
    agent = {"cause": "I speak once.", "model": {"provider": "claude", "name": "claude-sonnet-5-5"}}
    return tenant, [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "keys", "namespace": namespace},
            "stringData": {"k": "simulated"},
        },
        {"apiVersion": api, "kind": "Agent", "metadata": {"name": "ann", "namespace": namespace}, "spec": agent},
    ]


def live(cluster: Cluster, name: str, policy: str) -> None:
    """Up, one session, done."""
    tenant, rest = manifests(name, policy)
    cluster.apply(tenant)
    cluster.wait("NamespaceReady", PLURALS["Tenant"], name)
    cluster.apply(*rest)
    cluster.wait("Ready", PLURALS["Tenant"], name)
    cluster.wait("Ready", PLURALS["Agent"], "ann", f"folkmoot-{name}")


def speak(cluster: Cluster, name: str) -> None:
    spec = {"target": {"kind": "Agent", "name": "ann"}, "task": "Speak."}
    meta = {"name": "speak", "namespace": f"folkmoot-{name}"}
    made = {"apiVersion": "folkmoot.dev/v1alpha1", "kind": "Session", "metadata": meta, "spec": spec}
    session = sessions.start(cluster, made)
    assert sessions.follow(cluster, session, f"folkmoot-{name}", sessions.nothing, seconds=200).phase == "Succeeded"


def exported(cluster: Cluster, name: str, folder: Path) -> list[Path]:
    """The tars of this tenant in the installation's export volume."""
    listing = "import os; print('\\n'.join(sorted(os.listdir('/export'))))"
    there = cluster.kubectl("exec", "-n", "folkmoot-system", "deploy/folkmoot-operator", "--", "python", "-c", listing).split()
    found = []
    for file in (f for f in there if name in f and not f.startswith(".")):
        reading = f"import base64; print(base64.b64encode(open('/export/{file}', 'rb').read()).decode())"
        text = cluster.kubectl("exec", "-n", "folkmoot-system", "deploy/folkmoot-operator", "--", "python", "-c", reading)
        (folder / file).write_bytes(base64.b64decode(text))
        found.append(folder / file)
    return found


def test_delete_exports_the_sealed_log_and_leaves_nothing(moot: Cluster, tmp_path: Path) -> None:
    live(moot, "leaver", "Delete")
    speak(moot, "leaver")
    moot.kubectl("delete", PLURALS["Tenant"], "leaver", "--timeout=300s")
    assert moot.get(PLURALS["Tenant"], "leaver") is None
    moot.until("the namespace to be gone", lambda: moot.get("namespace", "folkmoot-leaver") is None, seconds=120)
    (tar,) = exported(moot, "leaver", tmp_path)
    fetched = evidence.unpack(tar)
    assert "VERIFIED" in evidence.verify(FOLKMOOT, fetched)
    assert "Successfully" in evidence.fsck(moot, fetched)
    assert b"log.closed" in tar.read_bytes()


def test_a_running_session_is_cancelled_by_deleting_it(moot: Cluster) -> None:
    name = sessions.start(moot, sessions.demo_session("folkmoot-acme"))
    moot.until("the session to run", lambda: _phase(moot, name) == "Running", seconds=60)
    moot.kubectl("delete", PLURALS["Session"], name, "-n", "folkmoot-acme", "--timeout=60s")


def test_retain_keeps_everything_asleep_and_a_stranger_cannot_take_it_up(moot: Cluster, tmp_path: Path) -> None:
    live(moot, "keeper", "Retain")
    speak(moot, "keeper")
    moot.kubectl("delete", PLURALS["Tenant"], "keeper", "--timeout=300s")
    assert moot.get(PLURALS["Tenant"], "keeper") is None
    namespace = moot.get("namespace", "folkmoot-keeper")
    assert namespace is not None
    assert namespace["metadata"]["labels"]["folkmoot.dev/retained"] == "true"
    moot.until("the pods to be gone", lambda: not moot.items("pods", "folkmoot-keeper"), seconds=120)
    claims = {c["metadata"]["name"] for c in moot.items("pvc", "folkmoot-keeper")}
    assert {"data-core-0", "data-broker-0"} <= claims
    assert all(s["spec"]["replicas"] == 0 for s in moot.items("statefulsets", "folkmoot-keeper"))
    (tar,) = exported(moot, "keeper", tmp_path)
    assert "VERIFIED" in evidence.verify(FOLKMOOT, evidence.unpack(tar))
    stranger, _ = manifests("keeper", "Delete")
    stranger["spec"]["cause"] = "I am somebody else."
    moot.apply(stranger)
    moot.until("the stranger to be told", lambda: _conflict(moot, "keeper") == "IdentityConflict", seconds=60)
    assert not moot.items("pods", "folkmoot-keeper")
    moot.kubectl("delete", PLURALS["Tenant"], "keeper", "--timeout=120s")
    assert moot.get("namespace", "folkmoot-keeper") is not None


@pytest.fixture(autouse=True)
def _tidy(moot: Cluster) -> None:
    """Nothing of an earlier run that failed."""
    for name in ("leaver", "keeper"):
        found = moot.get("namespace", f"folkmoot-{name}")
        assert found is None, f"namespace folkmoot-{name} is left from another run"


def _conflict(cluster: Cluster, name: str) -> str:
    found = conditions(cluster.get(PLURALS["Tenant"], name) or {}).get("Conflict") or {}
    return str(found.get("reason")) if found.get("status") == "True" else ""


def _phase(cluster: Cluster, name: str) -> str:
    found = cluster.get(PLURALS["Session"], name, "folkmoot-acme") or {}
    return str((found.get("status") or {}).get("phase"))
