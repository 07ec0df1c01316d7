"""An Agent becomes pods, and is Ready only when they run and its identity is bound under its current grants."""

from __future__ import annotations

from folkmoot_core.document import AgentReport, Report
from folkmoot_operator.kinds import AGENT, CONFIG_MAP, COUNCIL, DEPLOYMENT, GATE_POLICY, NAMESPACE, SERVICE_ACCOUNT, TENANT, Key
from folkmoot_operator.reconcile.context import PROMPT_SECONDS

NS = "folkmoot-acme"


async def test_an_agent_becomes_pods_and_is_ready_when_bound(world):
    await world.tenant()
    await world.settle()
    await world.agent(tools={"builtin": {"bash": "Allow"}})
    await world.settle()
    names_of = {o["metadata"]["name"] for o in world.kube.all(DEPLOYMENT, NS)}
    assert {"agent-reviewer", "sandbox-reviewer", "sandbox-checks"} <= names_of
    assert world.kube.peek(SERVICE_ACCOUNT, "agent-reviewer", NS)["metadata"]["ownerReferences"][0]["kind"] == "Agent"
    assert world.condition(AGENT, "reviewer", "Ready", NS)["reason"] == "PodsNotReady"
    await world.pods_run()
    await world.settle()
    assert world.condition(AGENT, "reviewer", "IdentityBound", NS)["reason"] == "NotReported"
    assert world.condition(AGENT, "reviewer", "Ready", NS)["status"] == "False"
    await world.report_bound()
    assert world.condition(AGENT, "reviewer", "Ready", NS)["status"] == "True"
    assert world.condition(AGENT, "reviewer", "ProviderAvailable", NS)["status"] == "True"
    assert world.kube.peek(TENANT, "acme")["status"]["agents"] == 1
    assert [a.name for a in world.conductor.documents["acme"].agents] == ["reviewer"]


async def test_changed_grants_need_a_new_binding(world):
    await world.tenant()
    await world.settle()
    await world.agent()
    await world.ready()
    await world.kube.patch(AGENT, Key(NS, "reviewer"), {"spec": {"tools": {"builtin": {"read": "Allow"}}}})
    await world.settle()
    await world.pods_run()
    await world.settle()
    assert world.condition(AGENT, "reviewer", "IdentityBound", NS)["reason"] == "Outdated"
    assert world.condition(AGENT, "reviewer", "Ready", NS)["status"] == "False"
    await world.report_bound(sequence=2)
    assert world.condition(AGENT, "reviewer", "Ready", NS)["status"] == "True"


async def test_an_agent_that_is_dropped_goes_with_its_children_and_from_the_document(world):
    await world.tenant()
    await world.settle()
    await world.agent()
    await world.ready()
    await world.kube.delete(AGENT, Key(NS, "reviewer"))
    await world.settle()
    assert world.kube.peek(DEPLOYMENT, "agent-reviewer", NS) is None
    assert world.conductor.documents["acme"].agents == ()
    assert world.kube.peek(TENANT, "acme")["status"]["agents"] == 0


async def test_tools_that_are_taken_away_take_the_sandbox_along(world):
    await world.tenant()
    await world.settle()
    await world.agent(tools={"builtin": {"bash": "Allow"}})
    await world.ready()
    await world.kube.patch(AGENT, Key(NS, "reviewer"), {"spec": {"tools": None}})
    await world.settle()
    assert world.kube.peek(DEPLOYMENT, "sandbox-reviewer", NS) is None
    assert world.kube.peek(DEPLOYMENT, "agent-reviewer", NS)
    assert world.kube.peek(DEPLOYMENT, "sandbox-checks", NS)


async def test_more_than_the_tenant_has_is_refused_and_runs_nothing(world):
    await world.tenant(
        providers=[{"name": "script", "type": "Scripted", "models": [{"name": "small"}], "script": {"name": "s", "key": "k"}}]
    )
    await world.settle()
    await world.agent(model={"provider": "script", "name": "big"})
    await world.settle()
    accepted = world.condition(AGENT, "reviewer", "Accepted", NS)
    assert (accepted["status"], accepted["reason"]) == ("False", "GrantExceedsParent")
    assert world.condition(AGENT, "reviewer", "Stalled", NS)["status"] == "True"
    deployment = world.kube.peek(DEPLOYMENT, "agent-reviewer", NS)
    assert deployment is None or deployment["spec"]["replicas"] == 0


async def test_an_agent_outside_any_tenant_waits_for_one(world):
    await world.create(NAMESPACE, "free", {})
    await world.create(AGENT, "a", {"cause": "I wait.", "model": {"provider": "script", "name": "m"}}, "free")
    await world.settle()
    assert world.condition(AGENT, "a", "ResolvedRefs", "free")["reason"] == "TenantNotFound"
    assert world.kube.all(DEPLOYMENT) == []


async def test_a_prompt_from_a_configmap_is_waited_for_and_read_again(world):
    await world.tenant()
    await world.settle()
    source = {"configMapKeyRef": {"name": "prompts", "key": "p"}}
    await world.agent(systemPromptFrom=source)
    await world.ready()
    assert world.condition(AGENT, "reviewer", "ResolvedRefs", NS)["status"] == "False"
    assert world.conductor.documents["acme"].agents == ()
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "prompts", "namespace": NS}, "data": {"p": "Be brief."}}
    await world.kube.create(CONFIG_MAP, body)
    known = world.ctx.config_maps._values
    for where, (at, value) in list(known.items()):
        known[where] = (at - PROMPT_SECONDS, value)
    await world.again()
    assert world.conductor.documents["acme"].agents[0].system_prompt == "Be brief."
    assert world.condition(AGENT, "reviewer", "ResolvedRefs", NS)["status"] == "True"


async def test_a_suspended_tenant_has_no_agent_pods(world):
    await world.tenant()
    await world.settle()
    await world.agent()
    await world.ready()
    await world.kube.patch(TENANT, Key("", "acme"), {"spec": {"suspend": True}})
    await world.settle()
    assert world.kube.peek(DEPLOYMENT, "agent-reviewer", NS)["spec"]["replicas"] == 0
    assert world.condition(AGENT, "reviewer", "Ready", NS)["reason"] == "Suspended"
    assert world.conductor.documents["acme"].suspended is True


async def test_an_agent_that_falls_silent_is_not_ready(world):
    await world.tenant()
    await world.settle()
    await world.agent()
    await world.ready()
    commitment = world.kube.peek(AGENT, "reviewer", NS)["status"]["identity"]["commitment"]
    silent = AgentReport(name="reviewer", alive=False, identity_bound=True, commitment=commitment)
    raw = world.kube.peek(TENANT, "acme")
    await world.reports.take(raw, NS, Report(reporter="core", sequence=5, agents=(silent,)))
    await world.settle()
    assert world.condition(AGENT, "reviewer", "IdentityBound", NS)["reason"] == "NotAlive"


async def test_a_name_that_is_on_record_under_another_cause_is_a_conflict_of_identity(world):
    await world.tenant()
    await world.settle()
    await world.agent()
    await world.ready()
    impostor = AgentReport(name="reviewer", alive=True, identity_bound=False, bound_seed="ab" * 32)
    raw = world.kube.peek(TENANT, "acme")
    await world.reports.take(raw, NS, Report(reporter="core", sequence=5, agents=(impostor,)))
    await world.settle()
    bound = world.condition(AGENT, "reviewer", "IdentityBound", NS)
    assert (bound["status"], bound["reason"]) == ("False", "IdentityConflict")
    assert "ab" * 32 in bound["message"]
    assert world.condition(AGENT, "reviewer", "Ready", NS)["status"] == "False"
    assert world.condition(AGENT, "reviewer", "Stalled", NS)["status"] == "True"
    own = world.kube.peek(AGENT, "reviewer", NS)["status"]["identity"]
    honest = AgentReport(name="reviewer", alive=True, identity_bound=True, commitment=own["commitment"], bound_seed=own["seed"])
    await world.reports.take(raw, NS, Report(reporter="core", sequence=6, agents=(honest,)))
    await world.settle()
    assert world.condition(AGENT, "reviewer", "Ready", NS)["status"] == "True"


async def test_councils_and_gates_are_ready_once_the_conductor_has_them(world):
    await world.tenant()
    await world.settle()
    gate = {side: {"reviewers": [{"agentRef": {"name": "reviewer"}}]} for side in ("structural", "adversarial")}
    council = {
        "cause": "We decide.", "coordinator": {"agentRef": {"name": "reviewer"}}, "gatePolicyRef": {"name": "code"},
        "members": [{"agentRef": {"name": "reviewer"}, "role": "composer"}],
    }  # fmt: skip
    await world.create(COUNCIL, "two", council, NS)
    await world.settle()
    assert world.condition(COUNCIL, "two", "ResolvedRefs", NS)["reason"] == "RefNotFound"
    await world.create(GATE_POLICY, "code", gate, NS)
    await world.agent()
    await world.settle()
    assert world.condition(COUNCIL, "two", "Ready", NS)["reason"] == "Progressing"
    assert world.condition(GATE_POLICY, "code", "Ready", NS)["status"] == "False"
    await world.ready()
    assert world.condition(COUNCIL, "two", "Ready", NS)["status"] == "True"
    assert world.condition(GATE_POLICY, "code", "Ready", NS)["status"] == "True"
    assert world.kube.peek(COUNCIL, "two", NS)["status"]["members"] == 1
    world.kube.calls.clear()
    world.start()
    await world.settle()
    assert world.kube.writes == []
    await world.kube.patch(COUNCIL, Key(NS, "two"), {"spec": {"quorum": {"minimum": 5}}})
    await world.settle()
    assert world.condition(COUNCIL, "two", "Accepted", NS)["status"] == "False"
    assert world.condition(COUNCIL, "two", "Stalled", NS)["status"] == "True"
