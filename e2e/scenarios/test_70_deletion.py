"""A Tenant's end, by both policies: sealed, exported, verified; and gone, or kept asleep and adoptable."""

from __future__ import annotations

from pathlib import Path

import pytest
from stage import evidence, lone, sessions
from stage.cluster import Cluster, conditions
from stage.sessions import FOLKMOOT
from stage.tenants import PLURALS

CAUSE = "I come and go."


def test_delete_exports_the_sealed_log_and_leaves_nothing(moot: Cluster, tmp_path: Path) -> None:
    lone.live(moot, lone.manifest("leaver", CAUSE))
    lone.speak(moot, "leaver")
    moot.kubectl("delete", PLURALS["Tenant"], "leaver", "--timeout=300s")
    assert moot.get(PLURALS["Tenant"], "leaver") is None
    moot.until("the namespace to be gone", lambda: moot.get("namespace", "folkmoot-leaver") is None, seconds=120)
    (tar,) = evidence.exported(moot, "leaver", tmp_path)
    fetched = evidence.unpack(tar)
    assert "VERIFIED" in evidence.verify(FOLKMOOT, fetched)
    assert "Successfully" in evidence.fsck(moot, fetched)
    assert b"log.closed" in tar.read_bytes()


def test_a_running_session_is_cancelled_by_deleting_it(moot: Cluster) -> None:
    name = sessions.start(moot, sessions.demo_session("folkmoot-acme"))
    moot.until("the session to run", lambda: _phase(moot, name) == "Running", seconds=60)
    moot.kubectl("delete", PLURALS["Session"], name, "-n", "folkmoot-acme", "--timeout=60s")


def test_retain_keeps_everything_asleep_and_a_stranger_cannot_take_it_up(moot: Cluster, tmp_path: Path) -> None:
    lone.live(moot, lone.manifest("keeper", CAUSE, deletionPolicy="Retain"))
    lone.speak(moot, "keeper")
    moot.kubectl("delete", PLURALS["Tenant"], "keeper", "--timeout=300s")
    assert moot.get(PLURALS["Tenant"], "keeper") is None
    namespace = moot.get("namespace", "folkmoot-keeper")
    assert namespace is not None
    assert namespace["metadata"]["labels"]["folkmoot.dev/retained"] == "true"
    moot.until("the pods to be gone", lambda: not moot.items("pods", "folkmoot-keeper"), seconds=120)
    claims = {c["metadata"]["name"] for c in moot.items("pvc", "folkmoot-keeper")}
    assert {"data-core-0", "data-broker-0"} <= claims
    assert all(s["spec"]["replicas"] == 0 for s in moot.items("statefulsets", "folkmoot-keeper"))
    (tar,) = evidence.exported(moot, "keeper", tmp_path)
    assert "VERIFIED" in evidence.verify(FOLKMOOT, evidence.unpack(tar))
    moot.apply(lone.manifest("keeper", "I am somebody else."))
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
