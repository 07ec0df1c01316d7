"""The rendered chart: the installation's own services, its witness and its timestamp authority, and who reaches them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import yaml
from rendered import OPERATOR, Object, Render, only, pod_of

from folkmoot_core import names
from folkmoot_core.plan import network
from folkmoot_core.plan.types import Installation
from folkmoot_runtime import settings as runtime_settings
from folkmoot_runtime.tsa import __main__ as tsa_process

# -- the witness ----------------------------------------------------------------------------------------------------------


def witness_of(objects: list[Object]) -> Object:
    found: Object = only(objects, "StatefulSet", names.SA_WITNESS)["spec"]
    return found


def test_without_a_witness_nothing_speaks_of_one(render: Render) -> None:
    objects = render("witness.enabled=false")
    assert not any(o["metadata"]["name"] == names.SA_WITNESS for o in objects)
    assert not any("WITNESS" in e["name"] for e in pod_of(objects)["spec"]["containers"][0]["env"])
    assert "component: witness" not in yaml.safe_dump(objects)


def test_the_witness_is_called_what_its_certificate_says(render: Render) -> None:
    objects = render("witness.enabled=true", "fullnameOverride=other", "nameOverride=another")
    given = {
        e["name"]: e.get("value")
        for e in only(objects, "Deployment", "other")["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    certified = names.service_names(names.SA_WITNESS, "folkmoot-system")
    for key, port in (
        ("FOLKMOOT_WITNESS_URL", names.PORT_WITNESS),
        ("FOLKMOOT_WITNESS_OPERATOR_URL", names.PORT_WITNESS_OPERATOR),
    ):
        url = urlsplit(given[key] or "")
        assert (url.scheme, url.port, url.hostname in certified) == ("https", port, True)
    spec = witness_of(objects)
    assert spec["serviceName"] == spec["template"]["spec"]["serviceAccountName"] == names.SA_WITNESS
    only(objects, "ServiceAccount", names.SA_WITNESS)
    service = only(objects, "Service", names.SA_WITNESS)["spec"]
    assert service["clusterIP"] == "None"
    assert service["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    assert spec["selector"]["matchLabels"] == service["selector"]
    ports = {"witness": names.PORT_WITNESS, "operator": names.PORT_WITNESS_OPERATOR}
    assert {p["name"]: p["port"] for p in service["ports"]} == ports
    assert {p["name"]: p["containerPort"] for p in spec["template"]["spec"]["containers"][0]["ports"]} == ports


def test_tenants_policies_know_the_witnesses_pods(render: Render) -> None:
    inst = Installation("folkmoot-system", "f", "https://o", "o", "r", "i", "{}", "ca", "1")
    labels = witness_of(render("witness.enabled=true", "nameOverride=other"))["template"]["metadata"]["labels"]
    assert network.witness_peer(inst)["podSelector"]["matchLabels"].items() <= labels.items()
    assert not network.operator_peer(inst)["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_witness_reads_every_variable_it_is_given_and_needs_no_other(render: Render) -> None:
    spec = witness_of(render("witness.enabled=true"))["template"]["spec"]
    container = spec["containers"][0]
    env = {e["name"]: e.get("value", "folkmoot-system") for e in container["env"]}
    found = runtime_settings.from_environment(env)
    assert (found.tenant, found.operator_url) == ("system", "https://folkmoot-operator.folkmoot-system.svc:8443")
    source = Path(runtime_settings.__file__).read_text()
    assert [key for key in env if f"{key.removeprefix('FOLKMOOT_')}" not in source] == []
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    assert mounts == {
        str(found.data): "data",
        str(found.run): "run",
        "/tmp": "tmp",  # noqa: S108 - a mount point
        names.TRUST_DIR: "trust",
        names.TOKEN_DIR: "tokens",
    }
    volumes = {v["name"]: v for v in spec["volumes"]}
    assert volumes["trust"]["configMap"]["name"] == names.TRUST_CONFIGMAP
    tokens = [s["serviceAccountToken"] for s in volumes["tokens"]["projected"]["sources"]]
    assert [(t["audience"], t["path"]) for t in tokens] == [(names.AUDIENCE_OPERATOR, names.AUDIENCE_OPERATOR)]
    assert volumes["run"]["emptyDir"]["medium"] == "Memory"


def test_the_witness_meets_pod_security_restricted_under_its_own_uid(render: Render) -> None:
    spec = witness_of(render("witness.enabled=true"))["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    security = spec["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (
        names.UID_WITNESS,
        names.FS_GROUP,
        names.FS_GROUP,
    )
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    container = spec["containers"][0]["securityContext"]
    assert container == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def test_the_witness_is_one_and_its_memory_stays(render: Render) -> None:
    spec = witness_of(render("witness.enabled=true", "witness.storage.size=2Gi", "witness.storage.className=apart"))
    assert spec["replicas"] == 1
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    claim = spec["volumeClaimTemplates"][0]["spec"]
    assert (claim["resources"]["requests"]["storage"], claim["storageClassName"]) == ("2Gi", "apart")
    assert "storageClassName" not in witness_of(render("witness.enabled=true"))["volumeClaimTemplates"][0]["spec"]


def test_the_witness_has_the_images_registry_pull_secrets_and_places_of_the_rest(render: Render) -> None:
    objects = render(
        "witness.enabled=true", "global.imageRegistry=mirror.example", 'imagePullSecrets=["one"]', "nodeSelector.disk=ssd"
    )
    spec = witness_of(objects)["template"]["spec"]
    assert spec["containers"][0]["image"] == "mirror.example/folkmoot/runtime:0.1.0"
    assert (spec["imagePullSecrets"], spec["nodeSelector"]) == ([{"name": "one"}], {"disk": "ssd"})


def ways(policy: Object, direction: str) -> set[tuple[str, int]]:
    """(component of the peer, port) of a policy's rules; peers elsewhere than in this namespace by what their namespace is."""
    found = set()
    for rule in policy["spec"][direction]:
        peers = rule["from" if direction == "ingress" else "to"]
        for peer in peers:
            labels = peer.get("podSelector", {}).get("matchLabels", {})
            where = (peer.get("namespaceSelector") or {}).get("matchLabels", {})
            whom = labels.get("app.kubernetes.io/component") or where.get("kubernetes.io/metadata.name") or "anybody"
            found |= {(f"tenants' {whom}" if where.get(names.LABEL_MANAGED_BY) else whom, p["port"]) for p in rule["ports"]}
    return found


def test_nobody_reaches_the_witness_but_brokers_and_the_operator(render: Render) -> None:
    objects = render("witness.enabled=true")
    own = only(objects, "NetworkPolicy", names.SA_WITNESS)
    assert ways(own, "ingress") == {("tenants' broker", names.PORT_WITNESS), ("operator", names.PORT_WITNESS_OPERATOR)}
    assert ways(own, "egress") == {("kube-system", 53), ("operator", names.PORT_OPERATOR)}
    operators = only(objects, "NetworkPolicy", OPERATOR)
    assert ("witness", names.PORT_OPERATOR) in ways(operators, "ingress")
    assert ("witness", names.PORT_WITNESS_OPERATOR) in ways(operators, "egress")
    assert not any(o["kind"] == "NetworkPolicy" for o in render("witness.enabled=true", "networkPolicy.enabled=false"))


# -- the timestamp authority ------------------------------------------------------------------------------------------------


def timestamps_of(objects: list[Object]) -> Object:
    found: Object = only(objects, "StatefulSet", names.SA_TIMESTAMPS)["spec"]
    return found


def test_without_a_timestamp_authority_nothing_speaks_of_one(render: Render) -> None:
    assert "timestamps" not in yaml.safe_dump(render("timestamps.enabled=false"))


def test_the_timestamp_authority_is_called_what_its_certificate_says(render: Render) -> None:
    objects = render("timestamps.enabled=true", "fullnameOverride=other", "nameOverride=another")
    spec = timestamps_of(objects)
    assert spec["serviceName"] == spec["template"]["spec"]["serviceAccountName"] == names.SA_TIMESTAMPS
    only(objects, "ServiceAccount", names.SA_TIMESTAMPS)
    service = only(objects, "Service", names.SA_TIMESTAMPS)["spec"]
    assert service["clusterIP"] == "None"
    assert service["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    assert spec["selector"]["matchLabels"] == service["selector"]
    assert [p["port"] for p in service["ports"]] == [names.PORT_TIMESTAMPS]
    assert [p["containerPort"] for p in spec["template"]["spec"]["containers"][0]["ports"]] == [names.PORT_TIMESTAMPS]


def test_a_tenants_broker_finds_its_way_to_the_timestamp_authority() -> None:
    host = f"{names.SA_TIMESTAMPS}.folkmoot-system.svc"
    assert host in names.service_names(names.SA_TIMESTAMPS, "folkmoot-system")
    assert network.service_namespace(host, "cluster.local") == "folkmoot-system"


def test_the_timestamp_authority_reads_every_variable_it_is_given_and_needs_no_other(render: Render) -> None:
    spec = timestamps_of(render("timestamps.enabled=true", "timestamps.name=Ours"))["template"]["spec"]
    container = spec["containers"][0]
    env = {e["name"]: e.get("value", "folkmoot-system") for e in container["env"]}
    assert env.pop(tsa_process.NAME) == "Ours"
    found = runtime_settings.from_environment(env)
    assert (found.tenant, found.operator_url) == ("system", "https://folkmoot-operator.folkmoot-system.svc:8443")
    assert container["command"] == ["python", "-m", "folkmoot_runtime.tsa"]
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    expected = {str(found.data): "data", str(found.run): "run", names.TRUST_DIR: "trust", names.TOKEN_DIR: "tokens"}
    assert expected.items() <= mounts.items()
    tokens = [s["serviceAccountToken"] for v in spec["volumes"] if v["name"] == "tokens" for s in v["projected"]["sources"]]
    assert [(t["audience"], t["path"]) for t in tokens] == [(names.AUDIENCE_OPERATOR, names.AUDIENCE_OPERATOR)]


def test_the_timestamp_authority_meets_pod_security_restricted_and_its_key_stays(render: Render) -> None:
    spec = timestamps_of(render("timestamps.enabled=true", "timestamps.storage.size=2Gi", "timestamps.storage.className=apart"))
    pod = spec["template"]["spec"]
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsNonRoot"]) == (names.UID_TIMESTAMPS, True)
    assert pod["automountServiceAccountToken"] is False
    container = pod["containers"][0]["securityContext"]
    assert container == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert spec["replicas"] == 1
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    claim = spec["volumeClaimTemplates"][0]["spec"]
    assert (claim["resources"]["requests"]["storage"], claim["storageClassName"]) == ("2Gi", "apart")


def test_nobody_reaches_the_timestamp_authority_but_brokers(render: Render) -> None:
    objects = render("timestamps.enabled=true")
    own = only(objects, "NetworkPolicy", names.SA_TIMESTAMPS)
    assert ways(own, "ingress") == {("tenants' broker", names.PORT_TIMESTAMPS)}
    assert ways(own, "egress") == {("kube-system", 53), ("operator", names.PORT_OPERATOR)}
    operators = only(objects, "NetworkPolicy", OPERATOR)
    assert ("timestamps", names.PORT_OPERATOR) in ways(operators, "ingress")
    assert "timestamps" not in {whom for whom, _ in ways(operators, "egress")}
    assert not any(o["kind"] == "NetworkPolicy" for o in render("timestamps.enabled=true", "networkPolicy.enabled=false"))
