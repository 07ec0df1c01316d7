"""CRDs, examples, sentences and admission policies on a real API server. Leaves nothing behind.

Uses the cluster that e2e/cluster/up has brought up; without one these tests skip (in CI they fail).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from folkmoot_core import names
from folkmoot_core.plan import tenant as tenant_plan
from folkmoot_core.plan import views
from folkmoot_core.plan.types import Installation, Problems

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "tests" / "core"
VALID: dict[str, dict[str, Any]] = yaml.safe_load((CORE / "valid.yaml").read_text())
BROKEN: list[dict[str, Any]] = yaml.safe_load((CORE / "broken.yaml").read_text())
OPERATOR = "system:serviceaccount:folkmoot-system:folkmoot-operator"
NAMESPACE = "folkmoot-probe"
ATTEMPTS = 50
Done = subprocess.CompletedProcess[str]
Kubectl = Callable[..., Done]


@pytest.fixture(scope="module")
def kubectl() -> Iterator[Kubectl]:
    found = subprocess.run([ROOT / "e2e" / "cluster" / "kubeconfig"], capture_output=True, text=True, check=False)
    environment = {**os.environ, "KUBECONFIG": found.stdout.strip()}

    def run(*words: str, stdin: Any = None) -> Done:
        text = None if stdin is None else yaml.safe_dump_all(stdin if isinstance(stdin, list) else [stdin])
        return subprocess.run(["kubectl", *words], input=text, capture_output=True, text=True, check=False, env=environment)

    if found.returncode or run("get", "--raw", "/readyz").returncode:
        assert not os.environ.get("CI"), "no cluster; run e2e/cluster/up"
        pytest.skip("no cluster; run e2e/cluster/up")
    # A chart may own them already; where nobody does, they go again, or Helm would find them in its way.
    there = run("get", "crd", f"tenants.{names.GROUP}").returncode == 0
    crds = run("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    assert crds.returncode == 0, crds.stderr
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        name = yaml.safe_load(path.read_text())["metadata"]["name"]
        assert run("wait", "--for=condition=Established", f"crd/{name}", "--timeout=60s").returncode == 0
    yield run
    if not there:
        assert run("delete", "-f", str(ROOT / "crds"), "--timeout=60s").returncode == 0


def dry_run(kubectl: Kubectl, manifest: dict[str, Any]) -> Done:
    return kubectl("create", "--dry-run=server", "-f", "-", stdin=manifest)


def manifest(kind: str, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    merged = {key: value for key, value in {**VALID[kind], **spec}.items() if value is not None}
    place = {} if kind == "Tenant" else {"namespace": "default"}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": "probe", **place, **metadata}, "spec": merged}


# -- schemas and rules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", VALID)
def test_the_smallest_manifest_is_taken(kind: str, kubectl: Kubectl) -> None:
    done = dry_run(kubectl, manifest(kind, {}, {}))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case["name"])
def test_what_is_wrong_is_refused_with_the_sentence(case: dict[str, Any], kubectl: Kubectl) -> None:
    done = dry_run(kubectl, manifest(case["kind"], case.get("metadata", {}), case.get("spec", {})))
    assert done.returncode != 0
    assert case.get("api", case["says"]) in done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_examples_are_taken(path: Path, kubectl: Kubectl) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        if "namespace" in document["metadata"]:  # the tenant's namespace need not exist for a dry run elsewhere
            document["metadata"]["namespace"] = "default"
        done = dry_run(kubectl, document)
        assert done.returncode == 0, done.stderr


def test_an_unknown_field_is_refused_by_kubectl(kubectl: Kubectl) -> None:
    done = dry_run(kubectl, manifest("Agent", {}, {"budgte": {}}))
    assert 'unknown field "spec.budgte"' in done.stderr


IMMUTABLE = [
    ("Tenant", "cause", "I am another.", "another cause is another identity"),
    ("Tenant", "organization", "other", "it is part of the identity"),
    ("Tenant", "core", {"storage": {"size": "9Gi"}}, "resize PersistentVolumeClaim data-core-0"),
    ("Agent", "cause", "I am another.", "another cause is another identity"),
    ("Session", "task", "Do something else.", "create another"),
    ("Session", "target", {"kind": "Council", "name": "a"}, "create another"),
    ("Session", "inputs", [{"name": "a", "configMapRef": {"name": "x"}}], "create another"),
]


@pytest.fixture(scope="module")
def stored(kubectl: Kubectl) -> Iterator[None]:
    """Objects that exist; in `default` no operator makes anything of them, but of a Tenant it would: then these tests skip."""
    if kubectl("get", "deployment", "folkmoot-operator", "-n", "folkmoot-system").returncode == 0:
        pytest.skip("an operator runs here")
    kept = [manifest(kind, {"name": "unused-probe"}, {}) for kind in ("Tenant", "Agent", "Session")]
    assert kubectl("create", "-f", "-", stdin=kept).returncode == 0
    yield
    gone = kubectl("delete", "--ignore-not-found", "--timeout=60s", "-f", "-", stdin=kept)
    assert gone.returncode == 0, gone.stderr


@pytest.mark.parametrize(("kind", "field", "value", "says"), IMMUTABLE)
def test_what_is_immutable_says_so(kind: str, field: str, value: Any, says: str, stored: None, kubectl: Kubectl) -> None:
    place = [] if kind == "Tenant" else ["-n", "default"]
    done = kubectl(
        "patch", f"{kind.lower()}.{names.GROUP}", "unused-probe", *place, "--type=merge", "--dry-run=server", "-p",
        json.dumps({"spec": {field: value}}),
    )  # fmt: skip
    assert done.returncode != 0
    assert says in done.stderr


def test_explain_reads_well(kubectl: Kubectl) -> None:
    done = kubectl("explain", f"agents.{names.GROUP}.spec.model")
    assert "The model that speaks for this agent." in done.stdout
    assert "Name of a provider in the Tenant's allow-list." in done.stdout


# -- admission ------------------------------------------------------------------------------------------------------------


def as_operator(*words: str) -> list[str]:
    return [*words, f"--as={OPERATOR}", "--as-group=system:authenticated", "--as-group=system:serviceaccounts"]


@pytest.fixture(scope="module")
def guarded(kubectl: Kubectl, render: Any) -> Iterator[Kubectl]:
    """A managed namespace, made by the operator's account, under the chart's policies and rights."""
    wanted = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ClusterRole", "ClusterRoleBinding")
    rendered = [o for o in render() if o["kind"] in wanted]
    installed = kubectl("get", "validatingadmissionpolicy", "folkmoot-managed", "folkmoot-labels").returncode == 0
    if not installed:
        assert kubectl("apply", "--server-side", "-f", "-", stdin=rendered).returncode == 0
    parsed = views.parse_tenant(manifest("Tenant", {"uid": "0", "name": "probe"}, {"owners": [{"kind": "User", "name": "olga"}]}))
    assert not isinstance(parsed, Problems)
    inst = Installation("folkmoot-system", "f", "https://o", "o", "folkmoot/none:0", "i", "{}", "ca", "1")
    kinds = ("Namespace", "ResourceQuota", "ConfigMap", "RoleBinding", "NetworkPolicy", "ServiceAccount", "LimitRange")
    objects = [o for o in tenant_plan.plan(parsed, inst).objects if o["kind"] in kinds]
    try:
        made = kubectl(*as_operator("apply", "--server-side", "--force-conflicts", "-f", "-"), stdin=objects)
        assert made.returncode == 0, made.stderr
        forged = [labelled(**labels) for labels, _ in FORGED]
        for _ in range(ATTEMPTS):  # a policy has no condition to wait for; it takes the API server a moment to see it
            if all(kubectl("create", "--dry-run=server", "-f", "-", stdin=one).returncode for one in forged):
                break
        else:
            pytest.fail("the policies deny nothing")
        yield kubectl
    finally:
        kubectl(*as_operator("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"))
        if not installed:
            kubectl("delete", "--ignore-not-found", "-f", "-", stdin=rendered)


FORGED = [
    ({names.LABEL_MANAGED_BY: names.MANAGER}, "nobody else may set this label"),
    ({names.LABEL_TENANT: "other"}, "the operator alone sets"),
]


def labelled(**labels: str) -> dict[str, Any]:
    metadata = {"name": "forged", "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


DENIED = {
    "taking the label off": ["label", "networkpolicy", "folkmoot-core", "app.kubernetes.io/managed-by-"],
    "deleting the policy": ["delete", "networkpolicy", "folkmoot-default-deny"],
    "changing the trust": ["patch", "configmap", "folkmoot-trust", "-p", '{"data":{"ca.crt":"evil"}}'],
    "raising the quota": ["patch", "resourcequota", "folkmoot", "-p", '{"spec":{"hard":{"limits.cpu":"999"}}}'],
    "deleting the namespace": ["delete", "namespace", NAMESPACE],
    "weakening pod security": ["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged", "--overwrite"],
    "changing the kept identity": ["annotate", "namespace", NAMESPACE, "folkmoot.dev/origin=x", "--overwrite"],
}


@pytest.mark.parametrize("name", DENIED)
def test_not_even_a_cluster_admin(name: str, guarded: Kubectl) -> None:
    done = guarded(*DENIED[name], "-n", NAMESPACE, "--dry-run=server")
    assert done.returncode != 0
    assert "the Folkmoot operator alone" in done.stderr


@pytest.mark.parametrize("name", DENIED)
def test_the_operator_may(name: str, guarded: Kubectl) -> None:
    done = guarded(*as_operator(*DENIED[name], "-n", NAMESPACE, "--dry-run=server"))
    assert done.returncode == 0 or "cannot" in done.stderr.split("ValidatingAdmissionPolicy")[0], done.stderr
    assert "ValidatingAdmissionPolicy" not in done.stderr


@pytest.mark.parametrize(("labels", "says"), FORGED)
def test_labels_cannot_be_forged(labels: dict[str, str], says: str, guarded: Kubectl) -> None:
    done = guarded("create", "--dry-run=server", "-f", "-", stdin=labelled(**labels))
    assert done.returncode != 0
    assert says in done.stderr


@pytest.mark.parametrize("labels", [{names.LABEL_MANAGED_BY: names.MANAGER}, {names.LABEL_TENANT: "probe"}])
def test_labels_cannot_be_forged_through_a_controller(labels: dict[str, str], guarded: Kubectl) -> None:
    for forged in workloads({"app": "mine", **labels}):
        done = guarded("create", "--dry-run=server", "-f", "-", stdin=forged)
        assert done.returncode != 0, forged["kind"]
        assert "the operator alone sets" in done.stderr or "nobody else may set this label" in done.stderr
    for honest in workloads({"app": "mine", names.LABEL_MANAGED_BY: "Helm"}):
        done = guarded("create", "--dry-run=server", "-f", "-", stdin=honest)
        assert done.returncode == 0, done.stderr


def workloads(labels: dict[str, str]) -> Iterator[dict[str, Any]]:
    metadata = {"name": "forged", "namespace": NAMESPACE}
    template: dict[str, Any] = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
    once = {**template, "spec": {**template["spec"], "restartPolicy": "Never"}}
    chosen = {"selector": {"matchLabels": {"app": "mine"}}, "template": template}
    for kind in ("Deployment", "ReplicaSet", "DaemonSet"):
        yield {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": chosen}
    yield {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": {**chosen, "serviceName": "x"}}
    yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": once}}
    timed = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": once}}}
    yield {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": timed}
    one = {"selector": {"app": "mine"}, "template": template}
    yield {"apiVersion": "v1", "kind": "ReplicationController", "metadata": metadata, "spec": one}


def test_others_keep_their_own_marks(guarded: Kubectl) -> None:
    for words in (["label", "namespace", NAMESPACE, "mesh=on"], ["annotate", "namespace", NAMESPACE, "note=x"]):
        done = guarded(*words, "--dry-run=server")
        assert done.returncode == 0, done.stderr
    assert guarded("create", "--dry-run=server", "-f", "-", stdin=labelled(app="mine")).returncode == 0


def pod(**labels: str) -> dict[str, Any]:
    """A pod that Pod Security `restricted` lets through, so that a refusal is a policy's."""
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "made", "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "image": "none",
                            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}],
        },
    }  # fmt: skip


OURS = {names.LABEL_MANAGED_BY: names.MANAGER, names.LABEL_TENANT: "probe"}


def test_a_system_controller_is_let_through(guarded: Kubectl) -> None:
    controller = ["--as=system:serviceaccount:kube-system:replicaset-controller", "--as-group=system:serviceaccounts:kube-system"]
    done = guarded("create", "--dry-run=server", "-f", "-", *controller, stdin=pod(**OURS))
    assert done.returncode == 0, done.stderr


# One label at a time: of a pod that carries both, the API server names whichever policy it asked first.
@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        (names.LABEL_MANAGED_BY, "the Folkmoot operator alone"),
        (names.LABEL_TENANT, "the operator alone sets, changes and removes them"),
    ],
)
def test_nobody_else_makes_such_a_pod(label: str, sentence: str, guarded: Kubectl) -> None:
    assert guarded("create", "--dry-run=server", "-f", "-", stdin=pod(**OURS)).returncode != 0
    refused = guarded("create", "--dry-run=server", "-f", "-", stdin=pod(**{label: OURS[label]}))
    assert refused.returncode != 0
    assert sentence in refused.stderr


OWNER = [
    (["create", "token", names.SA_OWNER], True),
    (["create", "token", names.SA_AUDITOR], False),
    (["get", f"agents.{names.GROUP}"], True),
    (["create", "configmap", "mine", "--from-literal=a=b", "--dry-run=server"], True),
    (["create", "secret", "generic", "keys", "--from-literal=a=b", "--dry-run=server"], True),
    (["delete", "configmap", "folkmoot-trust", "--dry-run=server"], False),
    (["auth", "can-i", "create", "pods"], False),
    (["auth", "can-i", "create", "pods/exec"], False),
    (["auth", "can-i", "create", "pods/portforward", "--subresource="], False),
    (["auth", "can-i", "patch", "networkpolicies"], False),
    (["auth", "can-i", "create", "rolebindings"], False),
    (["auth", "can-i", "get", "secrets", "-n", "default"], False),
]


@pytest.mark.parametrize(("words", "may"), OWNER, ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else "")
def test_what_an_owner_may(words: list[str], may: bool, guarded: Kubectl) -> None:
    place = [] if "-n" in words else ["-n", NAMESPACE]
    done = guarded(*words, *place, "--as=olga", "--as-group=system:authenticated")
    assert (done.returncode == 0) == may, done.stdout + done.stderr


@pytest.mark.parametrize(("namespace", "may"), [("", False), ("folkmoot-probe", False), ("default", False)])
def test_the_operator_reads_no_secret(namespace: str, may: bool, guarded: Kubectl) -> None:
    place = ["-n", namespace] if namespace else ["-A"]
    done = guarded(*as_operator("auth", "can-i", "get", "secrets", *place))
    assert (done.stdout.strip() == "yes") == may
