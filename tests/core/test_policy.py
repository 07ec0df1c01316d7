"""May this call go out? Each check refuses alone, with a reason and a sentence that names what was found."""

from __future__ import annotations

from typing import Any

import pytest

from folkmoot_core import policy
from folkmoot_core.calls import CallEnvelope, Message, ModelRequest, TextPart
from folkmoot_core.document import AgentEntry, Identity, TenantDocument
from folkmoot_core.identity import GrantsV1
from folkmoot_core.policy import Allowed, Refused, observed_family
from folkmoot_core.resources.agent import AgentModel, AgentSpec
from folkmoot_core.resources.tenant import ModelSpec, Price, ProviderSpec

PRICE = Price(input="1", output="2")


def agent(name: str = "ana", **changes: Any) -> AgentEntry:
    identity = Identity(name=name, scope=f"f/o/t/{name}", cause="I help.", seed="a" * 64, commitment="b" * 64, grants=GrantsV1())
    model = AgentModel(provider="claude", name="claude-s", max_output_tokens=1000)
    spec = AgentSpec(cause="I help.", model=model, suspend=changes.pop("suspend", False))
    return AgentEntry(name=name, spec=spec, identity=identity, **changes)


def document(**changes: Any) -> TenantDocument:
    fields: dict[str, Any] = {
        "tenant": "acme",
        "tenant_uid": "u",
        "namespace": "folkmoot-acme",
        "generation": 1,
        "identity": agent("acme").identity,
        "agents": (agent(),),
        "providers": (
            ProviderSpec(name="claude", type="Anthropic", region="eu", models=(ModelSpec(name="claude-s", price=PRICE),)),
            ProviderSpec(name="other", type="OpenAI"),
        ),
    }
    return TenantDocument(**{**fields, **changes})


def call(**changes: Any) -> CallEnvelope:
    tokens = changes.pop("tokens", 1000)
    request = ModelRequest(messages=(Message(role="user", parts=(TextPart(text="hi"),)),), max_output_tokens=tokens)
    fields: dict[str, Any] = {"session": "s", "task": "s/t", "step": 0, "provider": "claude", "model": "claude-s"}
    return CallEnvelope(request=request, **{**fields, **changes})


def test_a_call_within_the_rules_is_allowed_with_provider_and_price() -> None:
    verdict = policy.decide(call(), "ana", document())
    assert isinstance(verdict, Allowed)
    assert (verdict.provider.name, verdict.price, verdict.agent.name) == ("claude", PRICE, "ana")


@pytest.mark.parametrize(
    ("reason", "asked", "name", "world", "says"),
    [
        ("TenantSuspended", {}, "ana", {"suspended": True}, "acme"),
        ("AgentUnknown", {}, "eve", {}, "eve"),
        ("AgentSuspended", {}, "ana", {"agents": (agent(suspended=True),)}, "ana"),
        ("AgentSuspended", {}, "ana", {"agents": (agent(suspend=True),)}, "ana"),
        ("ProviderUnknown", {"provider": "nowhere"}, "ana", {}, "claude, other"),
        ("ModelNotAgents", {"model": "claude-dear"}, "ana", {}, "claude-dear"),
        ("ModelNotAgents", {"provider": "other"}, "ana", {}, "claude/claude-s"),
        (
            "ModelNotAllowed",
            {},
            "ana",
            {"providers": (ProviderSpec(name="claude", type="Anthropic", models=(ModelSpec(name="x"),)),)},
            "claude-s",
        ),
        ("ResidencyViolated", {}, "ana", {"residency": ("onprem",)}, "eu"),
        (
            "ResidencyViolated",
            {},
            "ana",
            {"residency": ("eu",), "providers": (ProviderSpec(name="claude", type="Anthropic"),)},
            "no region",
        ),
        ("OutputTokensExceeded", {"tokens": 1001}, "ana", {}, "1001"),
    ],
)
def test_each_rule_refuses_alone(reason: str, asked: dict[str, Any], name: str, world: dict[str, Any], says: str) -> None:
    verdict = policy.decide(call(**asked), name, document(**world))
    assert isinstance(verdict, Refused)
    assert verdict.reason == reason
    assert says in verdict.message


def test_an_empty_model_list_allows_any_model_of_the_provider() -> None:
    world = document(providers=(ProviderSpec(name="claude", type="Anthropic"),))
    verdict = policy.decide(call(), "ana", world)
    assert isinstance(verdict, Allowed)
    assert verdict.price is None


HOUSE = ProviderSpec(
    name="house", type="OpenAICompatible", models=(ModelSpec(name="owl", family="owl"), ModelSpec(name="emu-v2", family="emu"))
)


@pytest.mark.parametrize(
    ("requested", "observed", "family"),
    [
        ("owl", "owl", "owl"),  # declared for the very model
        ("owl", "owl-2026-01-01", "owl"),  # a dated version of it
        ("owl", "owlish", ""),  # not a version
        ("owl", "emu-v2", "emu"),  # another listed model counts as what it is
        ("owl", "stranger", ""),  # another model, undeclared: never counts as distinct
        ("owl", "claude-9", "claude"),  # the table knows better than the declaration
        ("owl", "", ""),
    ],
)
def test_family_is_that_of_the_model_that_answered(requested: str, observed: str, family: str) -> None:
    assert observed_family(HOUSE, requested, observed) == family


def test_scripted_never_has_a_family() -> None:
    provider = ProviderSpec(name="s", type="Scripted", models=(ModelSpec(name="claude-x", family="claude"),))
    assert observed_family(provider, "claude-x", "claude-x") == ""
