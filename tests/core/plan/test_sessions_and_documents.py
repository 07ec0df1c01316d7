"""What the conductor is handed: the document and session orders; and what Councils and GatePolicies are told."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from folkmoot_core.document import SessionOrder
from folkmoot_core.plan import council, gatepolicy, session, views
from folkmoot_core.plan.document import document
from folkmoot_core.plan.types import Installation, Problems
from folkmoot_core.plan.views import AgentView, CouncilView, GateView, SessionView, TenantView

MakeTenant = Callable[..., TenantView]
MakeAgent = Callable[..., AgentView]


def make_session(**spec: Any) -> SessionView:
    full = {"target": {"kind": "Agent", "name": "builder"}, "task": "Work.", **spec}
    found = views.parse_session(
        {"metadata": {"name": "s", "namespace": "folkmoot-acme", "uid": "u", "generation": 4}, "spec": full}
    )
    assert not isinstance(found, Problems), found
    return found


def make_council(**spec: Any) -> CouncilView:
    full = {
        "cause": "We decide.",
        "coordinator": {"agentRef": {"name": "loom"}},
        "members": [{"agentRef": {"name": "a"}, "role": "x"}],
        **spec,
    }
    found = views.parse_council({"metadata": {"name": "c", "namespace": "folkmoot-acme"}, "spec": full})
    assert not isinstance(found, Problems), found
    return found


def make_gate(**spec: Any) -> GateView:
    sides = {
        side: {"reviewers": [{"agentRef": {"name": name}}]} for side, name in (("structural", "athena"), ("adversarial", "sable"))
    }
    full = {**sides, **spec}
    found = views.parse_gate({"metadata": {"name": "g", "namespace": "folkmoot-acme"}, "spec": full})
    assert not isinstance(found, Problems), found
    return found


def test_inputs_travel_inside_the_order() -> None:
    asked = make_session(
        inputs=[{"name": "repo", "configMapRef": {"name": "tar"}}, {"name": "text", "configMapRef": {"name": "words"}}]
    )
    maps = {"tar": {"binaryData": {"p.tar": base64.b64encode(b"\0tar").decode()}}, "words": {"data": {"a": "ä"}}}
    order = session.order(asked, maps, {"builder"}, set())
    assert isinstance(order, SessionOrder)
    assert base64.b64decode(order.inputs["repo"]["p.tar"]) == b"\0tar"
    assert base64.b64decode(order.inputs["text"]["a"]).decode() == "ä"
    assert (order.uid, order.name, order.generation) == ("u", "s", 4)
    assert session.wanted(asked) == ("tar", "words")


def test_what_is_missing_is_named_and_may_still_come() -> None:
    asked = make_session(inputs=[{"name": "repo", "configMapRef": {"name": "tar"}}])
    found = session.order(asked, {}, set(), {"builder"})
    assert isinstance(found, Problems)
    assert [item.field for item in found.items] == ["spec.target", "spec.inputs[repo].configMapRef"]
    condition = found.conditions()[0]
    assert (condition.type, condition.reason) == ("ResolvedRefs", "RefNotFound")
    assert "Agent builder not found in folkmoot-acme" in condition.message
    assert "ConfigMap tar not found" in condition.message


def test_a_target_is_looked_for_among_its_own_kind() -> None:
    asked = make_session(target={"kind": "Council", "name": "builder"})
    assert isinstance(session.order(asked, {}, {"builder"}, set()), Problems)
    assert isinstance(session.order(asked, {}, set(), {"builder"}), SessionOrder)


def test_inputs_are_bounded() -> None:
    asked = make_session(inputs=[{"name": f"i{n}", "configMapRef": {"name": "big"}} for n in range(5)])
    found = session.order(asked, {"big": {"data": {"a": "x" * 1_000_000}}}, {"builder"}, set())
    assert isinstance(found, Problems)
    assert found.items[0].reason == "InputTooLarge"


def make_document(tenant: TenantView, inst: Installation, agents: list[AgentView], prompts: dict[str, str] | None = None) -> Any:
    return document(tenant, agents, [make_council()], [make_gate()], prompts or {}, inst)


def test_the_document_is_the_whole_set_in_a_stable_order(tenant: MakeTenant, agent: MakeAgent, inst: Installation) -> None:
    one = make_document(tenant(), inst, [agent("b"), agent("a")])
    other = make_document(tenant(), inst, [agent("a"), agent("b")])
    assert one.digest() == other.digest()
    assert [a.name for a in one.agents] == ["a", "b"]
    assert [p.name for p in one.providers] == ["claude", "fake", "house"]
    assert [c.name for c in one.councils] == ["c"]
    assert [g.name for g in one.gates] == ["g"]


def test_agents_without_authority_are_left_out(tenant: MakeTenant, agent: MakeAgent, inst: Installation) -> None:
    stranger = agent("stranger", model={"provider": "nobody", "name": "m"})
    assert [a.name for a in make_document(tenant(), inst, [agent(), stranger]).agents] == ["builder"]


def test_agents_wait_for_their_prompt(tenant: MakeTenant, agent: MakeAgent, inst: Installation) -> None:
    asked = agent(systemPromptFrom={"configMapKeyRef": {"name": "p", "key": "k"}})
    assert make_document(tenant(), inst, [asked]).agents == ()
    assert make_document(tenant(), inst, [asked], {"builder": "Build."}).agents[0].system_prompt == "Build."


def test_suspension_is_in_the_document(tenant: MakeTenant, agent: MakeAgent, inst: Installation) -> None:
    made = make_document(tenant(suspend=True), inst, [agent()])
    assert made.suspended
    assert made.agents[0].suspended
    assert make_document(tenant(), inst, [agent(suspend=True)]).agents[0].suspended


def test_a_council_names_what_it_misses() -> None:
    asked = make_council(gatePolicyRef={"name": "code"})
    accepted, refs = council.check(asked, {"a"}, set())
    assert accepted.status == "True"
    assert refs.reason == "RefNotFound"
    assert "coordinator: Agent loom not found" in refs.message
    assert "gatePolicyRef: GatePolicy code not found" in refs.message
    assert all(c.status == "True" for c in council.check(asked, {"a", "loom"}, {"code"}))


def test_a_council_older_than_the_rule_is_told() -> None:
    spec = make_council().spec
    unreachable = spec.model_copy(update={"quorum": spec.quorum.model_copy(update={"minimum": 4})})
    found = council.check(CouncilView(make_council().meta, unreachable), {"a", "loom"}, set())
    assert (found[0].status, found[0].reason) == ("False", "QuorumUnreachable")


@pytest.mark.parametrize("present", [set(), {"athena", "sable"}])
def test_a_gate_names_what_it_misses(present: set[str]) -> None:
    found = gatepolicy.check(make_gate(), present)[1]
    assert (found.status == "True") == bool(present)
    assert bool(present) or "structural reviewer: Agent athena not found" in found.message


def test_a_member_that_is_missing_is_named_by_role() -> None:
    assert "member x: Agent a not found" in council.check(make_council(), {"loom"}, set())[1].message


def test_what_is_being_deleted_leaves_the_document(tenant: MakeTenant, agent: MakeAgent, inst: Installation) -> None:
    leaving = agent()
    gone = AgentView(replace(leaving.meta, deleted="2026-01-01T00:00:00Z"), leaving.spec)
    assert make_document(tenant(), inst, [gone]).agents == ()
