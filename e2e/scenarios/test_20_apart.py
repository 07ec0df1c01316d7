"""Two tenants kept apart: by the network in both directions, by RBAC, by admission, and by who a token is for."""

from __future__ import annotations

import json

import pytest
import yaml
from stage import network
from stage.cluster import Cluster
from stage.sessions import FOLKMOOT
from stage.shell import attempt

ACME, GLOBEX = "folkmoot-acme", "folkmoot-globex"
DOORS = (6379, 8443, 8444, 8445, 8446)


def core(namespace: str, port: int) -> str:
    return f"core.{namespace}.svc.cluster.local:{port}"


def broker(namespace: str) -> str:
    return f"broker.{namespace}.svc.cluster.local:8443"


@pytest.mark.parametrize(("here", "agent", "there"), [(GLOBEX, "herald", ACME), (ACME, "loom", GLOBEX)])
def test_an_agent_reaches_its_own_core_and_broker_and_nobody_elses(moot: Cluster, here: str, agent: str, there: str) -> None:
    # 8444 is the operator's door: not even one's own agents reach it.
    own = [*(core(here, p) for p in DOORS if p != 8444), broker(here)]
    foreign = [*(core(there, p) for p in DOORS), broker(there), core(here, 8444)]
    found = network.connect(moot, here, f"deploy/agent-{agent}", *own, *foreign)
    assert {t: found[t] for t in own} == dict.fromkeys(own, "connected")
    assert {t: found[t] for t in foreign} == dict.fromkeys(foreign, "timed out")


def test_an_agent_has_no_way_to_the_api_server_the_models_or_out(moot: Cluster) -> None:
    ways = ("kubernetes.default.svc.cluster.local:443", "models.folkmoot-e2e-models.svc.cluster.local:8080", "192.0.2.1:443")
    assert set(network.connect(moot, ACME, "deploy/agent-loom", *ways).values()) == {"timed out"}


def test_the_broker_reaches_the_models_and_no_foreign_core(moot: Cluster) -> None:
    models = "models.folkmoot-e2e-models.svc.cluster.local:8080"
    found = network.connect(moot, ACME, "broker-0", models, core(GLOBEX, 6379), core(ACME, 6379))
    assert found == {models: "connected", core(GLOBEX, 6379): "timed out", core(ACME, 6379): "timed out"}


def test_a_sandbox_reaches_nothing_not_even_names(moot: Cluster) -> None:
    address = moot.items("pods", ACME, "app.kubernetes.io/component=core")[0]["status"]["podIP"]
    found = network.connect(moot, ACME, "deploy/sandbox-builder", f"{address}:6379", f"{address}:8443", "192.0.2.1:443")
    assert set(found.values()) == {"timed out"}
    (named,) = network.connect(moot, ACME, "deploy/sandbox-builder", core(ACME, 6379)).values()
    assert named.startswith("no address")


@pytest.mark.parametrize(
    ("who", "verb", "what", "namespace", "allowed"),
    [
        ("owner", "create", "agents.folkmoot.dev", ACME, True),
        ("owner", "create", "agents.folkmoot.dev", GLOBEX, False),
        ("owner", "update", "sessions.folkmoot.dev/status", ACME, False),
        ("owner", "get", "secrets", GLOBEX, False),
        ("owner", "create", "pods/exec", ACME, False),
        ("owner", "create", "tenants.folkmoot.dev", "", False),
        ("auditor", "get", "sessions.folkmoot.dev", ACME, False),
        ("auditor", "get", "secrets", ACME, False),
        ("auditor", "create", "serviceaccounts/folkmoot-auditor/token", ACME, True),
        ("auditor", "create", "serviceaccounts/folkmoot-owner/token", ACME, False),
        ("auditor", "create", "serviceaccounts/folkmoot-auditor/token", GLOBEX, False),
    ],
)
def test_roles(moot: Cluster, who: str, verb: str, what: str, namespace: str, allowed: bool) -> None:  # noqa: PLR0913 - a table
    person = {"owner": ["--as=olga", "--as-group=acme-admins"], "auditor": ["--as=inspector"]}[who]
    resource, _, rest = what.partition("/")
    named, _, sub = rest.rpartition("/") if rest.count("/") else ("", "", rest)
    words = [f"{resource}/{named}" if named else resource, *([f"--subresource={sub}"] if sub else [])]
    where = ["-n", namespace] if namespace else []
    code, said = moot.try_kubectl("auth", "can-i", verb, *words, *where, *person)
    assert (code == 0) is allowed, said


def test_an_owner_follows_sessions_and_an_auditor_has_the_evidence_and_nothing_else(moot: Cluster, tmp_path: object) -> None:
    config = _kubeconfig(moot, "inspector")
    environment = {**moot.client_environment, "KUBECONFIG": config}
    done = attempt([FOLKMOOT, "session", "evidence", "--tenant", "acme", "-o", f"{tmp_path}/e.tar"], environment=environment)
    assert done.returncode == 0, done.stderr
    refused = attempt([FOLKMOOT, "session", "evidence", "--tenant", "globex", "-o", f"{tmp_path}/g.tar"], environment=environment)
    assert refused.returncode == 3
    assert "forbidden" in refused.stderr
    listed = attempt([FOLKMOOT, "session", "list", "-n", ACME], environment=environment)
    assert listed.returncode == 3
    assert "forbidden" in listed.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("delete", "networkpolicy", "--all", "-n", ACME),
        ("delete", "configmap", "folkmoot-trust", "-n", ACME),
        ("delete", "namespace", ACME),
        ("label", "namespace", ACME, "pod-security.kubernetes.io/enforce=privileged", "--overwrite"),
        ("set", "image", "statefulset/core", "bus=evil.example/x", "-n", ACME),
        ("label", "pod", "core-0", "folkmoot.dev/tenant=globex", "--overwrite", "-n", ACME),
    ],
    ids=lambda words: "-".join(words[:3]),
)
def test_not_even_a_cluster_admin_changes_what_the_operator_manages(moot: Cluster, words: tuple[str, ...]) -> None:
    code, said = moot.try_kubectl(*words)
    assert code != 0
    assert "Folkmoot operator alone" in said or "the operator alone sets" in said, said


def test_nobody_forges_a_tenants_label(moot: Cluster) -> None:
    pod = {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "forged", "namespace": ACME, "labels": {"app.kubernetes.io/managed-by": "folkmoot"}},
    }  # fmt: skip
    code, said = moot.try_kubectl("apply", "-f", "-", text=json.dumps(pod))
    assert code != 0
    assert "nobody else may set this label" in said


def _kubeconfig(cluster: Cluster, user: str) -> str:
    """The same cluster as somebody else."""
    target = cluster.kubeconfig.with_name(f"as-{user}.kubeconfig")
    target.write_text(cluster.kubectl("config", "view", "--raw", "--flatten"))
    target.chmod(0o600)
    current = cluster.kubectl("config", "view", "--minify", "-o", "jsonpath={.users[0].name}")
    # kubectl has no words for impersonation in a kubeconfig; the field is `as`.
    config = yaml.safe_load(target.read_text())
    for entry in config["users"]:
        if entry["name"] == current:
            entry["user"]["as"] = user
    target.write_text(yaml.safe_dump(config))
    return str(target)
