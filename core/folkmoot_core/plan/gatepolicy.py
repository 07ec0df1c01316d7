"""Is a GatePolicy usable: are its reviewers there, and can it ever approve anything?"""

from __future__ import annotations

from collections.abc import Collection

from folkmoot_core.conditions import REASON_ACCEPTED, REASON_REF_NOT_FOUND, REASON_RESOLVED, Condition, false, true
from folkmoot_core.plan.views import GateView


def check(gate: GateView, agents: Collection[str]) -> tuple[Condition, ...]:
    """`Accepted` and `ResolvedRefs` of a GatePolicy, from the names of the Agents in its namespace."""
    wanted = [
        (side, reviewer.agent_ref.name)
        for side, block in (("structural", gate.spec.structural), ("adversarial", gate.spec.adversarial))
        for reviewer in block.reviewers
    ]
    missing = [f"{side} reviewer: Agent {name} not found" for side, name in wanted if name not in agents]
    if missing:
        sentence = f"{'; '.join(missing)}; create them in namespace {gate.meta.namespace} or correct the names"
        return true("Accepted", REASON_ACCEPTED), false("ResolvedRefs", REASON_REF_NOT_FOUND, sentence)
    return true("Accepted", REASON_ACCEPTED), true("ResolvedRefs", REASON_RESOLVED)
