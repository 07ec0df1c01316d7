"""Is a Council usable: are its members, its coordinator and its gate there, can its quorum be reached?"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from folkmoot_core.conditions import REASON_ACCEPTED, REASON_REF_NOT_FOUND, REASON_RESOLVED, Condition, false, true
from folkmoot_core.plan.views import CouncilView


def check(council: CouncilView, agents: Collection[str], gates: Collection[str]) -> tuple[Condition, ...]:
    """`Accepted` and `ResolvedRefs` of a Council, from the names of the Agents and GatePolicies in its namespace."""
    voters = [m for m in council.spec.members if m.weight > 0]
    if council.spec.quorum.minimum > len(voters):
        accepted = false(
            "Accepted",
            "QuorumUnreachable",
            f"quorum.minimum is {council.spec.quorum.minimum}, but only {len(voters)} members have a weight above 0; lower it or add members",
        )
    else:
        accepted = true("Accepted", REASON_ACCEPTED)
    missing = list(_missing(council, agents, gates))
    if missing:
        sentence = f"{'; '.join(missing)}; create them in namespace {council.meta.namespace} or correct the names"
        return accepted, false("ResolvedRefs", REASON_REF_NOT_FOUND, sentence)
    return accepted, true("ResolvedRefs", REASON_RESOLVED)


def _missing(council: CouncilView, agents: Collection[str], gates: Collection[str]) -> Iterator[str]:
    if (name := council.spec.coordinator.agent_ref.name) not in agents:
        yield f"coordinator: Agent {name} not found"
    for member in council.spec.members:
        if member.agent_ref.name not in agents:
            yield f"member {member.role}: Agent {member.agent_ref.name} not found"
    reference = council.spec.gate_policy_ref
    if reference is not None and reference.name not in gates:
        yield f"gatePolicyRef: GatePolicy {reference.name} not found"
