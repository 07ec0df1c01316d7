"""The installation's witness: who reaches it, what its cosignature proves, what goes on without it, and a log put back from an older copy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from stage import evidence, install, lone, network
from stage.cluster import Cluster, Manifest, conditions
from stage.install import SYSTEM
from stage.sessions import FOLKMOOT
from stage.shell import attempt
from stage.tenants import PLURALS

from folkmoot_core import names
from folkmoot_core.document import AuditEntry, WitnessEntry
from folkmoot_core.ledger.terms import CLUSTER, policy_of

ACME, DRILL = "folkmoot-acme", "folkmoot-drill"
WITNESS = names.SA_WITNESS


def door(port: int) -> str:
    return f"{WITNESS}.{SYSTEM}.svc.cluster.local:{port}"


def policy(cluster: Cluster, tenant: str, folder: Path) -> Path:
    """A policy that asks for the witness's cosignature. Its keys are the operator's and the witness's word, not the log's."""
    vkeys = tuple((cluster.get(PLURALS["Tenant"], tenant) or {})["status"]["audit"]["vkeys"])
    target = folder / f"{tenant}.policy"
    terms = AuditEntry(witnesses=(WitnessEntry(name=CLUSTER, key=evidence.witness_key(cluster), url="https://witness"),))
    target.write_text(policy_of(vkeys, terms).text())
    return target


def verified(cluster: Cluster, tenant: str, folder: Path) -> dict[str, Any]:
    """What `folkmoot verify` says of a fresh copy under that policy."""
    rules = policy(cluster, tenant, folder)
    fetched = evidence.fetch(cluster, FOLKMOOT, tenant, folder)
    done = attempt([FOLKMOOT, "verify", fetched.tar, "--policy", rules, "-o", "json"])
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def checkpoint(cluster: Cluster, namespace: str) -> str:
    """The published one, as it lies on the volume."""
    return cluster.kubectl("exec", "core-0", "-n", namespace, "-c", "ledger", "--", "cat", "/data/ledger/checkpoint")


def size(text: str) -> int:
    return int(text.splitlines()[1])


def reason(cluster: Cluster, tenant: str) -> str:
    """Of `AuditReady` where it is false, or ''."""
    found = conditions(cluster.get(PLURALS["Tenant"], tenant) or {}).get("AuditReady") or {}
    return str(found.get("reason")) if found.get("status") == "False" else ""


# -- the witness at work --------------------------------------------------------------------------------------------------


def test_brokers_reach_its_public_door_and_the_operator_the_other(moot: Cluster) -> None:
    public, operators = door(names.PORT_WITNESS), door(names.PORT_WITNESS_OPERATOR)
    assert network.connect(moot, ACME, "broker-0", public, operators) == {public: "connected", operators: "timed out"}
    for workload in ("core-0", "deploy/agent-loom"):
        assert set(network.connect(moot, ACME, workload, public, operators).values()) == {"timed out"}
    found = network.connect(moot, SYSTEM, "deploy/folkmoot-operator", public, operators)
    assert found == {public: "timed out", operators: "connected"}


def test_it_reaches_the_operators_endpoint_and_nobody_else(moot: Cluster) -> None:
    endpoint = f"folkmoot-operator.{SYSTEM}.svc.cluster.local:{names.PORT_OPERATOR}"
    ways = (f"core.{ACME}.svc.cluster.local:{names.PORT_LEDGER}", "kubernetes.default.svc.cluster.local:443", "192.0.2.1:443")
    found = network.connect(moot, SYSTEM, f"{WITNESS}-0", endpoint, *ways)
    assert found == {endpoint: "connected", **dict.fromkeys(ways, "timed out")}


@pytest.mark.parametrize("tenant", ["acme", "globex"])
def test_every_tenants_checkpoints_carry_its_cosignature(moot: Cluster, tenant: str, tmp_path: Path) -> None:
    moot.wait("AuditReady", PLURALS["Tenant"], tenant)
    found = verified(moot, tenant, tmp_path)
    assert any(signer.startswith(f"{WITNESS}/") for signer in found["signers"])
    assert next(check["ok"] for check in found["checks"] if check["name"] == "witnesses")
    words = [FOLKMOOT, "ledger", "tail", "--tenant", tenant, "--policy", tmp_path / f"{tenant}.policy"]
    done = attempt(words, environment=moot.client_environment)
    assert done.returncode == 0, done.stderr


def test_without_it_a_log_takes_entries_and_shows_none_until_it_is_back(drill: Cluster, tmp_path: Path) -> None:
    drill.wait("AuditReady", PLURALS["Tenant"], "drill")
    _scale(drill, f"statefulset/{WITNESS}", SYSTEM, 0, "app.kubernetes.io/component=witness")
    shown = checkpoint(drill, DRILL)
    try:
        lone.speak(drill, "drill")
        drill.until("the tenant to say so", lambda: reason(drill, "drill") == "WitnessUnavailable", seconds=300)
        assert checkpoint(drill, DRILL) == shown
    finally:
        drill.kubectl("scale", f"statefulset/{WITNESS}", "--replicas=1", "-n", SYSTEM)
    drill.kubectl("rollout", "status", f"statefulset/{WITNESS}", "-n", SYSTEM, "--timeout=240s")
    drill.wait("AuditReady", PLURALS["Tenant"], "drill", seconds=300)
    drill.until("the entries to be shown", lambda: size(checkpoint(drill, DRILL)) > size(shown))
    assert verified(drill, "drill", tmp_path)["ok"]


# -- an older copy of a log put back --------------------------------------------------------------------------------------


@pytest.mark.timeout(1800)
def test_a_log_put_back_from_an_older_copy_is_found_out_and_frozen_and_no_other_is(drill: Cluster, tmp_path: Path) -> None:
    drill.wait("AuditReady", PLURALS["Tenant"], "drill")
    copying = "import shutil; shutil.copytree('/data/ledger', '/data/older')"
    drill.kubectl("exec", "core-0", "-n", DRILL, "-c", "ledger", "--", "python", "-c", copying)
    older = checkpoint(drill, DRILL)
    lone.speak(drill, "drill")
    newer = drill.until("a newer checkpoint", lambda: _above(checkpoint(drill, DRILL), size(older)), seconds=60)

    with at_rest(drill):
        on_volume(drill, "import os; os.rename('/data/ledger', '/data/newer'); os.rename('/data/older', '/data/ledger')")
    drill.until("the fork to be found", lambda: reason(drill, "drill") == "ForkDetected", seconds=300)
    assert drill.kubectl("exec", "core-0", "-n", DRILL, "-c", "ledger", "--", "cat", "/data/ledger/frozen")
    assert checkpoint(drill, DRILL) == older  # nothing was published
    tail = attempt([FOLKMOOT, "ledger", "tail", "--tenant", "drill"], environment=drill.client_environment)
    assert tail.returncode == 0, tail.stderr  # and what it has is read all the same
    assert checkpoint(drill, DRILL) == older
    assert reason(drill, "acme") == ""
    assert verified(drill, "acme", tmp_path)["ok"]

    # A person decides: the newer copy is the true one, and the operator's memory of a fork goes.
    with at_rest(drill):
        on_volume(drill, "import os; os.rename('/data/ledger', '/data/forked'); os.rename('/data/newer', '/data/ledger')")
        uid = (drill.get(PLURALS["Tenant"], "drill") or {})["metadata"]["uid"]
        drill.kubectl("delete", "configmap", names.log_memory(uid), "-n", SYSTEM, "--ignore-not-found")
    drill.wait("AuditReady", PLURALS["Tenant"], "drill", seconds=300)
    drill.wait("Ready", PLURALS["Agent"], "ann", DRILL)
    lone.speak(drill, "drill")
    drill.until("the log to go on", lambda: _above(checkpoint(drill, DRILL), size(newer)), seconds=60)
    assert verified(drill, "drill", tmp_path)["ok"]


@pytest.fixture(scope="module")
def drill(moot: Cluster) -> Iterator[Cluster]:
    """A tenant to do harm to."""
    lone.live(moot, lone.manifest("drill", "I am drilled with."))
    yield moot
    moot.kubectl("delete", PLURALS["Tenant"], "drill", "--timeout=300s")


@contextmanager
def at_rest(cluster: Cluster) -> Iterator[None]:
    """No core, so that its volume is free; and no operator, which would start the core again, and does so afterwards."""
    replicas = (cluster.get("deployment", "folkmoot-operator", SYSTEM) or {})["spec"]["replicas"]
    _scale(cluster, "deployment/folkmoot-operator", SYSTEM, 0, "app.kubernetes.io/component=operator")
    try:
        _scale(cluster, "statefulset/core", DRILL, 0, "app.kubernetes.io/component=core")
        yield
    finally:
        cluster.kubectl("scale", "deployment/folkmoot-operator", f"--replicas={replicas}", "-n", SYSTEM)
    cluster.kubectl("rollout", "status", "deployment/folkmoot-operator", "-n", SYSTEM, "--timeout=240s")
    cluster.until("the core to be started again", lambda: _running(cluster), seconds=240)


def on_volume(cluster: Cluster, code: str) -> None:
    """Run a line of Python as the ledger's user where the ledger has its data."""
    pod: Manifest = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "volume", "namespace": DRILL},
        "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": False,
            "securityContext": {"runAsUser": names.UID_LEDGER, "runAsGroup": names.FS_GROUP, "fsGroup": names.FS_GROUP,
                                "fsGroupChangePolicy": "OnRootMismatch"},
            "containers": [
                {
                    "name": "volume", "image": install.RUNTIME.name(), "imagePullPolicy": "IfNotPresent", "command": ["python", "-c", code],
                    "securityContext": install.RESTRICTED, "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "ledger"}],
                }
            ],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-core-0"}}],
        },
    }  # fmt: skip
    cluster.apply(pod)
    ended = cluster.until("the volume to be changed", lambda: _ended(cluster), seconds=120)
    said = cluster.kubectl("logs", "volume", "-n", DRILL)
    cluster.kubectl("delete", "pod", "volume", "-n", DRILL, "--wait=true")
    assert ended == "Succeeded", said


def _scale(cluster: Cluster, workload: str, namespace: str, replicas: int, selector: str) -> None:
    cluster.kubectl("scale", workload, f"--replicas={replicas}", "-n", namespace)
    cluster.until(f"{workload} to be gone", lambda: not cluster.items("pods", namespace, selector), seconds=120)


def _running(cluster: Cluster) -> bool:
    states = ((cluster.get("pod", "core-0", DRILL) or {}).get("status") or {}).get("containerStatuses") or ()
    return bool(states) and all("running" in s["state"] for s in states)


def _ended(cluster: Cluster) -> str:
    phase = str(((cluster.get("pod", "volume", DRILL) or {}).get("status") or {}).get("phase"))
    return phase if phase in ("Succeeded", "Failed") else ""


def _above(text: str, known: int) -> str:
    return text if size(text) > known else ""
