"""May this model call go out? The broker asks before anything leaves; the answer is a value, never an exception.

Pure: the call, the agent whose token was verified, and the tenant document in force come in. `CHECKS` is the policy: an
ordered chain of small named checks, the first refusal wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from folkmoot_core.calls import CallEnvelope, family_of
from folkmoot_core.document import AgentEntry, TenantDocument
from folkmoot_core.pricing import price_of
from folkmoot_core.resources.tenant import ModelSpec, Price, ProviderSpec


@dataclass(frozen=True)
class Allowed:
    """The call may go to `provider`; `price` is None when the model has none."""

    agent: AgentEntry
    provider: ProviderSpec
    price: Price | None


@dataclass(frozen=True)
class Refused:
    """The call must not go out: a CamelCase reason and a sentence that says what to change."""

    reason: str
    message: str


@dataclass(frozen=True)
class _Asked:
    call: CallEnvelope
    agent: AgentEntry
    provider: ProviderSpec
    document: TenantDocument


def decide(call: CallEnvelope, agent: str, document: TenantDocument) -> Allowed | Refused:
    """Look the agent and the provider up, then run the chain, for one call of one authenticated agent."""
    # An agent that was deleted keeps its token for minutes.
    entry = next((entry for entry in document.agents if entry.name == agent), None)
    if entry is None:
        return Refused("AgentUnknown", f"agent {agent} is not in the tenant document of {document.tenant}")
    # What is not listed cannot be called.
    provider = next((spec for spec in document.providers if spec.name == call.provider), None)
    if provider is None:
        known = ", ".join(sorted(spec.name for spec in document.providers)) or "none"
        return Refused("ProviderUnknown", f"provider {call.provider!r} is not on the tenant's list ({known})")
    asked = _Asked(call, entry, provider, document)
    for check in CHECKS:
        refusal = check(asked)
        if refusal is not None:
            return refusal
    return Allowed(entry, provider, price_of(provider, call.model))


def _tenant_runs(asked: _Asked) -> Refused | None:
    if asked.document.suspended:
        return Refused("TenantSuspended", f"tenant {asked.document.tenant} is suspended; set spec.suspend to false")
    return None


def _agent_runs(asked: _Asked) -> Refused | None:
    if asked.agent.suspended or asked.agent.spec.suspend:
        return Refused("AgentSuspended", f"agent {asked.agent.name} is suspended; set spec.suspend to false")
    return None


def _model_is_the_agents(asked: _Asked) -> Refused | None:
    own = asked.agent.spec.model
    if (asked.call.provider, asked.call.model) == (own.provider, own.name):
        return None
    return Refused(
        "ModelNotAgents",
        f"agent {asked.agent.name} asked for {asked.call.provider}/{asked.call.model}; its model is {own.provider}/{own.name}",
    )


def _model_listed(asked: _Asked) -> Refused | None:
    listed = sorted(spec.name for spec in asked.provider.models)
    if not listed or asked.call.model in listed:
        return None
    return Refused(
        "ModelNotAllowed",
        f"model {asked.call.model} is not among the models of provider {asked.provider.name} ({', '.join(listed)})",
    )


def _region_allowed(asked: _Asked) -> Refused | None:
    regions = asked.document.residency
    if not regions or asked.provider.region in regions:
        return None
    found = asked.provider.region or "no region"
    return Refused(
        "ResidencyViolated",
        f"provider {asked.provider.name} is in {found}; content of tenant {asked.document.tenant} may go to {', '.join(regions)}",
    )


def _output_bounded(asked: _Asked) -> Refused | None:
    wanted, allowed = asked.call.request.max_output_tokens, asked.agent.spec.model.max_output_tokens
    if wanted <= allowed:
        return None
    return Refused(
        "OutputTokensExceeded",
        f"agent {asked.agent.name} asked for {wanted} output tokens; its maxOutputTokens is {allowed}",
    )


CHECKS: tuple[Callable[[_Asked], Refused | None], ...] = (
    _tenant_runs,  # nothing leaves a paused tenant
    _agent_runs,
    _model_is_the_agents,  # an agent cannot pick a dearer model, or another family than the one its gate counts on
    _model_listed,
    _region_allowed,  # before anything leaves, not after
    _output_bounded,  # the one part of the price that the caller chooses
)


def observed_family(provider: ProviderSpec, requested: str, observed: str) -> str:
    """Family of the model that answered, which is what a gate counts; '' when unknown.

    A family that the tenant declared holds for that model alone: for the name requested, or a dated version of it
    (`qwen3-32b` answering as `qwen3-32b-2026-01`). A server that answers with another model gets none.
    """
    declared: ModelSpec | None = next((spec for spec in provider.models if spec.name == observed), None)
    if declared is None and re.match(rf"{re.escape(requested)}[-@:]", observed):
        declared = next((spec for spec in provider.models if spec.name == requested), None)
    return family_of(observed, declared.family if declared is not None else None, provider_type=provider.type)
