"""An Agent's plan: authority first, then pods; identities; the prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from folkmoot_core import identity
from folkmoot_core.plan import agent as agent_plan
from folkmoot_core.plan import identities
from folkmoot_core.plan.types import Installation, Problem
from folkmoot_core.plan.views import AgentView, TenantView

MakeTenant = Callable[..., TenantView]
MakeAgent = Callable[..., AgentView]
KEY = {"name": "keys", "key": "k"}


def replicas(plan: Any) -> dict[str, int]:
    return {o["metadata"]["name"]: o["spec"]["replicas"] for o in plan.objects if o["kind"] == "Deployment"}


def test_with_tools_comes_a_sandbox_of_the_same_size(tenant: MakeTenant, agent: MakeAgent, inst: Installation) -> None:
    plan = agent_plan.plan(agent(tools={"builtin": {"bash": "Allow"}}, replicas=3), tenant(), inst)
    assert replicas(plan) == {"agent-builder": 3, "sandbox-builder": 3}
    env = {e["name"]: e.get("value") for e in sandbox_container(plan)["env"]}
    assert env["FOLKMOOT_SANDBOX_CALLER"] == "agent-builder"
    assert env["FOLKMOOT_SANDBOX_TOOLS"] == "bash"


def sandbox_container(plan: Any) -> dict[str, Any]:
    found: dict[str, Any] = plan.get("Deployment", "sandbox-builder")["spec"]["template"]["spec"]["containers"][0]
    return found


def test_without_tools_there_is_none(tenant: MakeTenant, agent: MakeAgent, inst: Installation) -> None:
    plan = agent_plan.plan(agent(), tenant(), inst)
    assert replicas(plan) == {"agent-builder": 1}
    assert {o["kind"] for o in plan.objects} == {"ServiceAccount", "Deployment"}


def test_roll_outs_fit_into_a_full_quota(tenant: MakeTenant, agent: MakeAgent, inst: Installation) -> None:
    plan = agent_plan.plan(agent(tools={"builtin": {"bash": "Allow"}}), tenant(), inst)
    surges = [o["spec"]["strategy"]["rollingUpdate"]["maxSurge"] for o in plan.objects if o["kind"] == "Deployment"]
    assert surges == [0, 0]


@pytest.mark.parametrize(
    ("of_tenant", "of_agent", "reason"),
    [
        ({"suspend": True}, {}, "Suspended"),
        ({}, {"suspend": True}, "Suspended"),
        ({"deleted": "2026-01-01T00:00:00Z"}, {}, "Suspended"),
    ],
)
def test_what_is_stopped_has_no_pods(of_tenant: Any, of_agent: Any, reason: str, tenant: MakeTenant, agent: MakeAgent,
                                     inst: Installation) -> None:  # fmt: skip
    plan = agent_plan.plan(agent(**of_agent), tenant(**of_tenant), inst)
    assert replicas(plan) == {"agent-builder": 0}
    assert plan.conditions[0].reason == reason


def test_a_model_that_the_tenant_does_not_list_is_refused_by_name(
    tenant: MakeTenant, agent: MakeAgent, inst: Installation
) -> None:
    narrow = tenant(
        providers=[{"name": "claude", "type": "Anthropic", "apiKeySecretRef": KEY, "models": [{"name": "claude-haiku"}]}]
    )
    plan = agent_plan.plan(agent(), narrow, inst)
    assert replicas(plan) == {"agent-builder": 0}
    assert (plan.conditions[0].type, plan.conditions[0].status, plan.conditions[0].reason) == (
        "Accepted",
        "False",
        "GrantExceedsParent",
    )
    assert "models='claude/claude-sonnet-5-5'" in plan.conditions[0].message
    assert "claude/claude-haiku" in plan.conditions[0].message


def test_a_provider_that_the_tenant_does_not_list(tenant: MakeTenant, agent: MakeAgent, inst: Installation) -> None:
    plan = agent_plan.plan(agent(model={"provider": "mistral", "name": "m"}), tenant(), inst)
    assert replicas(plan) == {"agent-builder": 0}
    assert (plan.conditions[1].type, plan.conditions[1].reason) == ("ResolvedRefs", "ProviderNotAllowed")
    assert "claude, fake, house" in plan.conditions[1].message


def test_content_does_not_leave_its_regions(tenant: MakeTenant, agent: MakeAgent, inst: Installation) -> None:
    placed = [{"name": "claude", "type": "Anthropic", "apiKeySecretRef": KEY, "region": "us"}]
    plan = agent_plan.plan(agent(), tenant(providers=placed, residency={"regions": ["eu"]}), inst)
    assert plan.conditions[0].reason == "ResidencyRefused"
    assert replicas(plan) == {"agent-builder": 0}
    allowed = agent_plan.plan(agent(), tenant(providers=placed, residency={"regions": ["eu", "us"]}), inst)
    assert allowed.conditions[0].status == "True"


def test_identities_are_recomputable_from_the_manifests(tenant: MakeTenant, agent: MakeAgent, inst: Installation) -> None:
    found = identities.agent_identity(agent(), tenant(organization="acme-group"), inst)
    parent = identities.tenant_identity(tenant(organization="acme-group"), inst)
    assert parent.scope == "moot/acme-group/acme"
    assert found.scope == "moot/acme-group/acme/builder"
    assert found.seed == identity.seed("builder", found.scope, "I build.")
    assert found.commitment == identity.commitment(found.seed, parent.commitment, found.grants.digest())
    assert parent.commitment == identity.commitment(parent.seed, identity.ROOT_PARENT, parent.grants.digest())


def test_the_organization_is_the_tenants_name_where_none_is_given(tenant: MakeTenant, inst: Installation) -> None:
    assert identities.tenant_identity(tenant(), inst).scope == "moot/acme/acme"


def test_commitments_move_with_grants_and_with_nothing_else(tenant: MakeTenant, agent: MakeAgent, inst: Installation) -> None:
    base = identities.agent_identity(agent(), tenant(), inst).commitment
    tools = {"builtin": {"bash": "Allow"}}
    moved = [
        identities.agent_identity(agent(tools=tools), tenant(), inst),
        identities.agent_identity(agent(model={"provider": "claude", "name": "other"}), tenant(), inst),
        identities.agent_identity(agent(), tenant(providers=[*tenant().spec.manifest()["providers"][:1]]), inst),
    ]
    assert len({base, *(m.commitment for m in moved)}) == 4
    same = identities.agent_identity(
        agent(replicas=4, systemPrompt="Hello."), tenant(viewers=[{"kind": "User", "name": "x"}]), inst
    )
    assert same.commitment == base


def test_the_prompt_is_the_specs_or_the_config_maps(agent: MakeAgent) -> None:
    reference = {"configMapKeyRef": {"name": "prompts", "key": "builder"}}
    assert agent_plan.resolve_prompt(agent(systemPrompt="Hi."), None) == "Hi."
    assert agent_plan.resolve_prompt(agent(), None) == ""
    asked = agent(systemPromptFrom=reference)
    assert agent_plan.resolve_prompt(asked, {"data": {"builder": "Build."}}) == "Build."
    for raw, found in ((None, "no ConfigMap of that name"), ({"data": {}}, "without that key")):
        problem = agent_plan.resolve_prompt(asked, raw)
        assert isinstance(problem, Problem)
        assert found in problem.message
        assert problem.reason == "RefNotFound"
    assert isinstance(agent_plan.resolve_prompt(asked, {"data": {"builder": "x" * 100_001}}), Problem)
