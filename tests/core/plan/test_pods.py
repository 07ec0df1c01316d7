"""Pods: restricted, each with the tokens of the paths it walks and no more, rolled by nothing that moves by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from folkmoot_core import names
from folkmoot_core.errors import Invalid
from folkmoot_core.plan import agent as agent_plan
from folkmoot_core.plan import broker, core, quantities
from folkmoot_core.plan import tenant as tenant_plan
from folkmoot_core.plan.types import Installation
from folkmoot_core.plan.views import AgentView, TenantView

Object = dict[str, Any]


def workloads(objects: list[Object]) -> list[Object]:
    return [o for o in objects if o["kind"] in ("StatefulSet", "Deployment")]


def containers(objects: list[Object]) -> dict[str, tuple[Object, Object]]:
    """`<workload>/<container>` → (container, pod spec)."""
    found = {}
    for workload in workloads(objects):
        spec = workload["spec"]["template"]["spec"]
        for container in spec["containers"]:
            found[f"{workload['metadata']['name']}/{container['name']}"] = (container, spec)
    return found


def test_the_pods_of_a_tenant(objects: list[Object]) -> None:
    assert set(containers(objects)) == {
        "core/bus", "core/router", "core/ledger", "core/conductor", "broker/broker", "sandbox-checks/sandbox", "agent-builder/agent",
        "sandbox-builder/sandbox", "agent-reader/agent",
    }  # fmt: skip


def test_every_pod_meets_pod_security_restricted(objects: list[Object]) -> None:
    for name, (container, spec) in containers(objects).items():
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["runAsUser"] > 0
        assert all("hostPath" not in volume for volume in spec["volumes"])


def test_containers_of_the_core_have_users_of_their_own(objects: list[Object]) -> None:
    """The ledger knows by the Unix socket's peer uid who appends."""
    users = {name: c["securityContext"]["runAsUser"] for name, (c, _) in containers(objects).items() if name.startswith("core/")}
    assert users == {
        "core/bus": names.UID_BUS, "core/router": names.UID_ROUTER, "core/ledger": names.UID_LEDGER, "core/conductor": names.UID_CONDUCTOR,
    }  # fmt: skip


def mounted(container: Object, spec: Object) -> dict[str, Object]:
    """Mount path → volume, for one container."""
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    return {
        mount["mountPath"]: {**volumes.get(mount["name"], {}), "subPath": mount.get("subPath")}
        for mount in container["volumeMounts"]
    }


TOKENS = {  # wiring.md §1, by who walks which path
    "core/bus": set(),
    "core/router": {names.AUDIENCE_OPERATOR, names.AUDIENCE_CONDUCTOR, names.AUDIENCE_BUS},
    "core/ledger": {names.AUDIENCE_OPERATOR, names.AUDIENCE_BROKER, names.AUDIENCE_CONDUCTOR},
    "core/conductor": {names.AUDIENCE_OPERATOR, names.AUDIENCE_BUS, names.AUDIENCE_BROKER, names.AUDIENCE_SANDBOX},
    "broker/broker": {names.AUDIENCE_OPERATOR, names.AUDIENCE_LEDGER, names.AUDIENCE_CONDUCTOR},
    "agent-builder/agent": {
        names.AUDIENCE_BUS, names.AUDIENCE_BROKER, names.AUDIENCE_LEDGER, names.AUDIENCE_CONDUCTOR, names.AUDIENCE_SANDBOX,
    },
    "agent-reader/agent": {names.AUDIENCE_BUS, names.AUDIENCE_BROKER, names.AUDIENCE_LEDGER, names.AUDIENCE_CONDUCTOR},
    "sandbox-builder/sandbox": set(),
    "sandbox-checks/sandbox": set(),
}  # fmt: skip


def test_each_container_holds_the_tokens_of_its_own_paths(objects: list[Object]) -> None:
    found = {}
    for name, (container, spec) in containers(objects).items():
        volume = mounted(container, spec).get(names.TOKEN_DIR, {})
        sources = [source["serviceAccountToken"] for source in volume.get("projected", {}).get("sources", ())]
        assert all(source["path"] == source["audience"] for source in sources)
        found[name] = {source["audience"] for source in sources}
    assert found == TOKENS


def test_a_ledger_must_have_the_installations_witness_where_there_is_one(
    tenant: Callable[..., TenantView], installation: Callable[..., Installation]
) -> None:
    def environments(inst: Installation) -> dict[str, dict[str, str]]:
        found = core.stateful_set(tenant(), inst)["spec"]["template"]["spec"]["containers"]
        return {c["name"]: {e["name"]: e.get("value", "") for e in c["env"]} for c in found}

    url = "https://folkmoot-witness.folkmoot-system.svc:8447"
    without, having = environments(installation()), environments(installation(witness_url=url))
    assert having["ledger"].pop("FOLKMOOT_WITNESS") == "required"
    assert having == without
    assert environments(installation(witness_url=url, witness_key="learnt later")) == environments(installation(witness_url=url))


def test_the_key_that_keys_rest_under_is_in_ledger_and_conductor_alone(
    tenant: Callable[..., TenantView], inst: Installation
) -> None:
    pod = core.stateful_set(tenant(core={"keyEncryption": {"secretRef": {"name": "kek", "key": "k"}}}), inst)["spec"]["template"][
        "spec"
    ]
    having = {}
    for container in pod["containers"]:
        volume = mounted(container, pod).get(core.KEK_DIR)
        env = {e["name"]: e.get("value") for e in container["env"]}
        assert (volume is not None) == ("FOLKMOOT_KEK_FILE" in env)
        if volume is not None:
            having[container["name"]] = (volume["secret"], volume["subPath"], env["FOLKMOOT_KEK_FILE"])
    secret = {"secretName": "kek", "optional": True, "defaultMode": 0o440, "items": [{"key": "k", "path": "key"}]}
    assert having == dict.fromkeys(("ledger", "conductor"), (secret, None, f"{core.KEK_DIR}/key"))
    assert core.KEK_VOLUME not in str(core.stateful_set(tenant(), inst))


def test_tokens_for_sandboxes_live_as_short_as_the_api_server_allows(objects: list[Object]) -> None:
    seconds = {
        source["serviceAccountToken"]["expirationSeconds"]
        for _, spec in containers(objects).values()
        for volume in spec["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
        if source["serviceAccountToken"]["audience"] == names.AUDIENCE_SANDBOX
    }
    assert seconds == {600}


def test_a_sandbox_has_no_account_no_secret_and_no_names(objects: list[Object]) -> None:
    for name, (_, spec) in containers(objects).items():
        if name.startswith("sandbox"):
            assert "serviceAccountName" not in spec
            assert not any("secret" in volume or "projected" in volume for volume in spec["volumes"])
            assert spec["dnsPolicy"] == "None"


def test_keys_are_mounted_in_the_broker_alone_and_wait_for_their_secret(objects: list[Object]) -> None:
    holders = {name for name, (_, spec) in containers(objects).items() if any("secret" in volume for volume in spec["volumes"])}
    assert holders == {"broker/broker"}
    container, spec = containers(objects)["broker/broker"]
    volume = mounted(container, spec)[f"{broker.KEYS_DIR}/claude"]
    assert volume["secret"]["optional"] is True
    assert volume["secret"]["items"] == [{"key": "k", "path": "key"}]
    assert volume["subPath"] is None  # with one, the kubelet would never renew the file
    assert mounted(container, spec)[f"{broker.CA_DIR}/house"]["configMap"]["items"] == [{"key": "ca.pem", "path": "ca.crt"}]
    assert mounted(container, spec)[f"{broker.SCRIPTS_DIR}/fake"]["configMap"]["items"] == [
        {"key": "a.yaml", "path": "script.yaml"}
    ]


def test_ledger_and_conductor_share_a_claim_but_no_directory(objects: list[Object]) -> None:
    found = {name: mounted(*pair)["/data"]["subPath"] for name, pair in containers(objects).items() if name.startswith("core/")}
    assert len(set(found.values())) == len(found)
    assert all(found.values())


def test_sockets_are_shared_by_those_who_speak_over_them(objects: list[Object]) -> None:
    def users(volume: str) -> set[str]:
        return {
            name for name, (c, _) in containers(objects).items() if any(m["name"] == volume for m in c["volumeMounts"])
        }  # fmt: skip

    assert users("ledger-socket") == {"core/ledger", "core/conductor", "core/router"}
    assert users("bus-socket") == {"core/bus", "core/router"}


def test_keys_in_memory_lie_in_a_directory_of_the_container(objects: list[Object]) -> None:
    for name, (container, spec) in containers(objects).items():
        volume = mounted(container, spec)["/run/folkmoot"]
        assert volume["emptyDir"]["medium"] == "Memory"
        assert volume["name"].endswith(container["name"]), name


def templates(objects: list[Object]) -> dict[str, Object]:
    return {o["metadata"]["name"]: o["spec"] for o in workloads(objects)}


def test_a_new_operator_rolls_no_pod(
    tenant: Callable[..., TenantView], agent: Callable[..., AgentView], installation: Any
) -> None:
    old, new = installation(version="1.0.0"), installation(version="2.0.0", jwks="{}", ca_bundle="other", issuer="other")

    def all_of(inst: Installation) -> dict[str, Object]:
        return templates([*tenant_plan.plan(tenant(), inst).objects, *agent_plan.plan(agent(), tenant(), inst).objects])

    assert all_of(old) == all_of(new)


def test_an_adopted_tenant_keeps_its_sets(tenant: Callable[..., TenantView], inst: Installation) -> None:
    """Selector and claim templates are immutable: nothing of the Tenant's uid may be in them."""
    assert templates(list(tenant_plan.plan(tenant(uid="a"), inst).objects)) == templates(
        list(tenant_plan.plan(tenant(uid="b"), inst).objects)
    )


def test_resources_asked_for_win_and_stay_consistent(tenant: Callable[..., TenantView], agent: Callable[..., AgentView],
                                                     inst: Installation) -> None:  # fmt: skip
    asked = agent(resources={"requests": {"cpu": 2}, "limits": {"memory": "32Mi"}})
    found = containers(list(agent_plan.plan(asked, tenant(), inst).objects))["agent-builder/agent"][0]["resources"]
    assert found == {"requests": {"cpu": "2", "memory": "32Mi"}, "limits": {"cpu": "2", "memory": "32Mi"}}


def test_placement_reaches_agent_and_sandbox(tenant: Callable[..., TenantView], agent: Callable[..., AgentView],
                                             inst: Installation) -> None:  # fmt: skip
    asked = agent(nodeSelector={"pool": "agents"}, priorityClassName="low", tools={"builtin": {"bash": "Allow"}})
    isolated = tenant(isolation={"runtimeClassName": "gvisor"})
    found = containers(list(agent_plan.plan(asked, isolated, inst).objects))
    for name in ("agent-builder/agent", "sandbox-builder/sandbox"):
        assert found[name][1]["nodeSelector"] == {"pool": "agents"}
        assert found[name][1]["priorityClassName"] == "low"
    assert found["sandbox-builder/sandbox"][1]["runtimeClassName"] == "gvisor"
    assert "runtimeClassName" not in found["agent-builder/agent"][1]


def test_pull_secrets_reach_every_pod(tenant: Callable[..., TenantView], installation: Callable[..., Installation]) -> None:
    plan = tenant_plan.plan(tenant(), installation(image_pull_secrets=("mirror",)))
    assert all(spec["imagePullSecrets"] == [{"name": "mirror"}] for _, spec in containers(list(plan.objects)).values())


@pytest.mark.parametrize(
    ("given", "cpu", "memory"),
    [(("500m", "1"), "1500m", None), (("2", "2"), "4", None), (("1Gi", "512Mi"), None, "1536Mi"), (("1Gi", "1Gi"), None, "2Gi"),
     (("100", "1k"), None, "1100"), ((), "0", "0")],
)  # fmt: skip
def test_quantities_are_summed(given: tuple[str, ...], cpu: str | None, memory: str | None) -> None:
    assert cpu is None or quantities.cpu(given) == cpu
    assert memory is None or quantities.memory(given) == memory


def test_a_quantity_that_is_none_is_refused() -> None:
    with pytest.raises(Invalid, match="expected a number"):
        quantities.value("much")


def test_a_request_and_limit_that_contradict_are_the_authors_to_mend(tenant: Callable[..., TenantView], agent: Callable[..., AgentView],
                                                                     inst: Installation) -> None:  # fmt: skip
    """Both were asked for: the API server's refusal says it better than a silent change."""
    asked = agent(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})
    found = containers(list(agent_plan.plan(asked, tenant(), inst).objects))["agent-builder/agent"][0]["resources"]
    assert (found["requests"]["cpu"], found["limits"]["cpu"]) == ("2", "1")
