"""The rendered charts: what the operator may and may not do, what tenants' people may, and that chart and plans speak of the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendered import OPERATOR, Object, Render, only, pod_of

from folkmoot_core import crd, names
from folkmoot_core.plan import namespace, network
from folkmoot_core.plan.types import Installation
from folkmoot_operator import ca, leader, settings
from folkmoot_operator.kinds import CHILDREN, OWN, Kind

ROOT = Path(__file__).resolve().parents[2]


def rules(objects: list[Object], kind: str, name: str) -> Iterator[tuple[str, str, frozenset[str], tuple[str, ...]]]:
    """(group, resource, verbs, names) of a role, one per resource."""
    for rule in only(objects, kind, name)["rules"]:
        for group in rule.get("apiGroups", ()):
            for resource in rule.get("resources", ()):
                yield group, resource, frozenset(rule["verbs"]), tuple(rule.get("resourceNames", ()))


# -- the operator's rights ------------------------------------------------------------------------------------------------


def test_nobody_gets_a_wildcard_or_a_way_up(render: Render) -> None:
    for item in render():
        for rule in item.get("rules") or () if item["kind"] in ("ClusterRole", "Role") else ():
            assert "*" not in [*rule["verbs"], *rule.get("resources", ()), *rule.get("apiGroups", ())], item["metadata"]["name"]
            assert not {"escalate", "impersonate"} & set(rule["verbs"])
            if "bind" in rule["verbs"]:
                assert rule["resourceNames"]


def test_the_operator_has_no_cluster_wide_verb_on_secrets(render: Render) -> None:
    objects = render()
    assert "secrets" not in {resource.split("/")[0] for _, resource, _, _ in rules(objects, "ClusterRole", OPERATOR)}
    own = {(verbs, listed) for _, resource, verbs, listed in rules(objects, "Role", OPERATOR) if resource == "secrets"}
    assert own == {(frozenset({"create"}), ()), (frozenset({"get", "update", "patch"}), (ca.SECRET_NAME,))}
    bindings = [o for o in objects if o["kind"] == "ClusterRoleBinding"]
    assert [b["roleRef"]["name"] for b in bindings] == [OPERATOR]


def test_the_operator_runs_nothing_in_pods_and_makes_no_role_and_no_token(render: Render) -> None:
    granted = {resource for _, resource, _, _ in rules(render(), "ClusterRole", OPERATOR)}
    assert not granted & {
        "pods",
        "pods/exec",
        "pods/portforward",
        "serviceaccounts/token",
        "roles",
        "clusterrolebindings",
        "nodes",
    }
    verbs = {r: v for _, r, v, _ in rules(render(), "ClusterRole", OPERATOR)}
    assert verbs["clusterroles"] == {"bind"}


CHILD_VERBS = frozenset({"get", "list", "watch", "create", "patch", "delete"})


@pytest.mark.parametrize("kind", CHILDREN, ids=lambda kind: kind.plural)
def test_the_operator_may_make_every_kind_of_child(kind: Kind, render: Render) -> None:
    granted = {(g, r): v for g, r, v, _ in rules(render(), "ClusterRole", OPERATOR)}
    assert granted[kind.group, kind.plural] == CHILD_VERBS


def test_the_operator_may_nothing_beyond_its_kinds(render: Render) -> None:
    """No more: a right that is left over is one that nobody would miss, or notice."""
    granted = {(g, r) for g, r, _, _ in rules(render(), "ClusterRole", OPERATOR)}
    children = {(k.group, k.plural) for k in CHILDREN}
    own = {(k.group, k.plural) for k in OWN} | {(k.group, f"{k.plural}/status") for k in OWN}
    rest = {(names.GROUP, "agents/finalizers"), ("rbac.authorization.k8s.io", "clusterroles"), ("events.k8s.io", "events")}
    assert granted == children | own | rest


def test_of_its_own_kinds_it_writes_status_and_little_else(render: Render) -> None:
    found: dict[str, set[str]] = {}
    for group, resource, verbs, _ in rules(render(), "ClusterRole", OPERATOR):
        if group == names.GROUP:
            found.setdefault(resource, set()).update(verbs)
    read = {"get", "list", "watch"}
    expected = {"tenants": read | {"patch"}, "sessions": read | {"delete"}, "agents/finalizers": {"update"}}
    expected |= {k.plural: read for k in OWN if k.plural not in expected} | {f"{k.plural}/status": {"patch"} for k in OWN}
    assert found == expected


def test_it_binds_the_shipped_roles_alone_and_all_of_them(render: Render) -> None:
    objects = render()
    listed = next(n for _, r, _, n in rules(objects, "ClusterRole", OPERATOR) if r == "clusterroles")
    shipped = {o["metadata"]["name"] for o in objects if o["kind"] == "ClusterRole"} - {OPERATOR}
    assert set(listed) == shipped
    assert shipped == {namespace.ROLE_OWNER, namespace.ROLE_VIEWER, namespace.ROLE_AUDITOR, namespace.ROLE_APPROVER}


def test_leases_by_name(render: Render) -> None:
    found = {(v, n) for _, r, v, n in rules(render(), "Role", OPERATOR) if r == "leases"}
    assert found == {(frozenset({"create"}), ()), (frozenset({"get", "update"}), (leader.NAME,))}


# -- people ---------------------------------------------------------------------------------------------------------------

PEOPLE = {namespace.ROLE_OWNER: names.SA_OWNER, namespace.ROLE_VIEWER: names.SA_VIEWER, namespace.ROLE_AUDITOR: names.SA_AUDITOR}


@pytest.mark.parametrize(("role", "account"), PEOPLE.items())
def test_people_reach_the_core_with_their_own_token_and_no_other_pod(role: str, account: str, render: Render) -> None:
    granted = {r: (v, n) for _, r, v, n in rules(render(), "ClusterRole", role)}
    assert granted["serviceaccounts/token"] == (frozenset({"create"}), (account,))
    assert granted["pods/portforward"] == (frozenset({"get", "create"}), ("core-0",))
    assert not granted.keys() & {"pods/exec", "pods/attach", "pods/ephemeralcontainers", "roles", "rolebindings/finalizers"}


def test_an_owner_writes_the_kinds_and_what_they_read(render: Render) -> None:
    writes = {
        r for _, r, v, _ in rules(render(), "ClusterRole", namespace.ROLE_OWNER) if v & {"create", "update", "patch", "delete"}
    }
    expected = {
        "agents",
        "councils",
        "gatepolicies",
        "sessions",
        "configmaps",
        "secrets",
        "serviceaccounts/token",
        "pods/portforward",
    }
    assert writes == expected


def test_a_viewer_writes_nothing_and_sees_no_secret(render: Render) -> None:
    granted = list(rules(render(), "ClusterRole", namespace.ROLE_VIEWER))
    assert "secrets" not in {r for _, r, _, _ in granted}
    assert {r for _, r, v, _ in granted if v - {"get", "list", "watch"}} == {"serviceaccounts/token", "pods/portforward"}


def test_an_auditor_sees_evidence_and_nothing_else(render: Render) -> None:
    granted = {r: n for _, r, _, n in rules(render(), "ClusterRole", namespace.ROLE_AUDITOR)}
    assert granted == {
        "configmaps": (names.TRUST_CONFIGMAP,), "pods": ("core-0",), "pods/portforward": ("core-0",),
        "serviceaccounts/token": (names.SA_AUDITOR,),
    }  # fmt: skip


# -- the pods -------------------------------------------------------------------------------------------------------------


def test_the_operators_pod_meets_pod_security_restricted(render: Render) -> None:
    spec = pod_of(render())["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    container = spec["containers"][0]["securityContext"]
    assert container == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def test_tenants_policies_know_the_operators_pods(render: Render) -> None:
    inst = Installation("folkmoot-system", "f", "https://o", "o", "r", "i", "{}", "ca", "1")
    wanted = network.operator_peer(inst)["podSelector"]["matchLabels"]
    assert wanted.items() <= pod_of(render("nameOverride=other"))["metadata"]["labels"].items()


def test_the_operator_reads_every_variable_it_is_given(render: Render) -> None:
    objects = render("export.size=1Gi", "witness.enabled=true")
    given = {e["name"].removeprefix("FOLKMOOT_") for e in pod_of(objects)["spec"]["containers"][0]["env"]}
    source = Path(settings.__file__).read_text()
    assert [name for name in sorted(given) if f'"{name}"' not in source] == []


def test_ports_are_those_of_the_core(render: Render) -> None:
    ports = {p["name"]: p["containerPort"] for p in pod_of(render())["spec"]["containers"][0]["ports"]}
    assert ports == {"endpoint": names.PORT_OPERATOR, "metrics": names.PORT_METRICS}
    service = only(render(), "Service", OPERATOR)["spec"]["ports"]
    assert {p["name"]: p["port"] for p in service} == ports


def test_the_endpoint_is_where_the_operator_says_it_is(render: Render) -> None:
    objects = render("fullnameOverride=other")
    env = {
        e["name"]: e.get("value")
        for e in only(objects, "Deployment", "other")["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert env["FOLKMOOT_ENDPOINT_NAME"] == "other"
    only(objects, "Service", "other")


def test_images_by_tag_by_digest_and_by_mirror(render: Render) -> None:
    def images(*values: str) -> tuple[str, str]:
        container = pod_of(render(*values))["spec"]["containers"][0]
        return container["image"], next(e["value"] for e in container["env"] if e["name"] == "FOLKMOOT_RUNTIME_IMAGE")

    digest = "sha256:" + "a" * 64
    assert images() == ("folkmoot/operator:0.1.0", "folkmoot/runtime:0.1.0")
    assert images("global.imageRegistry=mirror.example/x", f"image.digest={digest}", "runtime.image.tag=2.0.0") == (
        f"mirror.example/x/folkmoot/operator@{digest}",
        "mirror.example/x/folkmoot/runtime:2.0.0",
    )


def test_the_export_volume_is_there_when_asked_for(render: Render) -> None:
    assert not any(o["kind"] == "PersistentVolumeClaim" for o in render())
    made = only(render("export.size=5Gi"), "PersistentVolumeClaim", f"{OPERATOR}-export")
    assert made["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    objects = render("export.existingClaim=mine")
    assert not any(o["kind"] == "PersistentVolumeClaim" for o in objects)
    volumes = {v["name"]: v for v in pod_of(objects)["spec"]["volumes"]}
    assert volumes["export"] == {"name": "export", "persistentVolumeClaim": {"claimName": "mine"}}


def test_one_replica_has_no_disruption_budget(render: Render) -> None:
    assert any(o["kind"] == "PodDisruptionBudget" for o in render())
    assert not any(o["kind"] == "PodDisruptionBudget" for o in render("replicaCount=1"))


def test_helm_and_the_operator_manage_different_objects(render: Render) -> None:
    for item in render(
        "export.size=1Gi", "metrics.serviceMonitor.enabled=true", "witness.enabled=true", "timestamps.enabled=true"
    ):
        assert item["metadata"]["labels"][names.LABEL_MANAGED_BY] == "Helm"


# -- admission ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["folkmoot-managed", "folkmoot-labels"])
def test_policies_deny_and_fail_closed(name: str, render: Render) -> None:
    objects = render("serviceAccount.name=custom", 'admission.exemptUsers=["velero"]', 'admission.exemptGroups=["glass"]')
    policy = only(objects, "ValidatingAdmissionPolicy", name)
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert only(objects, "ValidatingAdmissionPolicyBinding", name)["spec"]["validationActions"] == ["Deny"]
    condition = policy["spec"]["matchConditions"][0]["expression"]
    for who in ("system:serviceaccount:folkmoot-system:custom", "system:serviceaccounts:kube-system", "velero", "glass"):
        assert f'"{who}"' in condition
    assert "system:masters" not in condition


def test_policies_can_be_left_out(render: Render) -> None:
    assert not any(o["kind"].startswith("ValidatingAdmissionPolicy") for o in render("admission.enabled=false"))


# -- the rest -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "repliaCount=1",
        "image.tga=x",
        "export.size=5GB",
        "image.digest=sha256:12",
        "federation=A/B",
        "logLevel=LOUD",
        "replicaCount=99",
        "witness.enabeld=true",
        "witness.storage.size=1GB",
        "timestamps.storage.size=1GB",
        "timestamps.url=https://x",
    ],
)
def test_a_value_with_a_slip_is_refused(value: str, run_helm: Any) -> None:
    done = run_helm("template", "folkmoot", "charts/folkmoot", "--kube-version", "1.34.4", "--set", value)
    assert done.returncode != 0
    assert value.split("=")[0].split(".")[-1] in done.stderr or value.split("=")[0].replace(".", "/") in done.stderr


@pytest.mark.parametrize("chart", ["folkmoot", "folkmoot-crds"])
def test_charts_lint(chart: str, run_helm: Any) -> None:
    done = run_helm("lint", "--strict", f"charts/{chart}")
    assert done.returncode == 0, done.stdout


def test_the_crds_chart_is_the_crds_and_keeps_them(render: Render) -> None:
    found = {o["metadata"]["name"]: o for o in render(chart="folkmoot-crds")}
    wanted = {d["metadata"]["name"]: d for d in crd.definitions().values()}
    assert found.keys() == wanted.keys()
    for name, item in found.items():
        assert item["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert item["spec"] == wanted[name]["spec"]


def test_no_chart_looks_things_up_or_rolls_dice() -> None:
    text = "".join(p.read_text() for p in (ROOT / "charts").rglob("*") if p.suffix in (".yaml", ".tpl", ".txt"))
    for word in ("lookup ", "randAlpha", "genCA", "genSelfSigned", "helm.sh/hook"):
        assert word not in text


def test_values_and_schema_name_the_same_keys() -> None:
    values = yaml.safe_load((ROOT / "charts/folkmoot/values.yaml").read_text())
    schema = yaml.safe_load((ROOT / "charts/folkmoot/values.schema.json").read_text())
    assert set(values) == set(schema["properties"])
