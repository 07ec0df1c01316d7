"""`Council` (councils.folkmoot.dev): agents that decide together, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from folkmoot_core.resources.common import AgentRef, Cause, Decimal, Duration, Name, Spec
from folkmoot_core.resources.rules import Rule, plain_cause, unique


class Coordinator(Spec):
    agent_ref: AgentRef = Field(description="The Agent that plans, routes and, where the tie rule says so, decides a tie.")


class Member(Spec):
    agent_ref: AgentRef = Field(description="The Agent.")
    role: Name = Field(
        description="Role in this council: composer, gate, builder, voice, concierge, queen, countersigner, or one of your own."
    )
    weight: int = Field(default=1, ge=0, le=100, description="Votes this member has; 0: it works but does not vote.")


class Quorum(Spec):
    minimum: int = Field(default=1, ge=1, le=100, description="Votes (members, not weight) that must have been cast.")
    threshold: Decimal = Field(default="0.5", description="Share of cast weight that must be in favour: strictly more than this.")
    tie: Literal["Reject", "Coordinator", "Escalate"] = Field(
        default="Escalate", description="What happens at exactly the threshold."
    )

    rules = (
        Rule(
            "double(self.threshold) < 1.0",
            "threshold must be below 1: strictly more than this share is needed, and nothing is more than all; 0.5 is a majority",
            lambda q: float(q.threshold) < 1.0,
            ".threshold",
        ),
    )


class Timing(Spec):
    critical: Duration = Field(default="30s", description="ACK deadline of a critical handoff.")
    routine: Duration = Field(default="60s", description="ACK deadline of a routine message.")
    task: Duration = Field(default="10m", description="Longest time a member may take for one task.")


class GatePolicyRef(Spec):
    name: Name = Field(description="A GatePolicy in this namespace.")


class CouncilSpec(Spec):
    """Agents that decide together."""

    cause: Cause = Field(description="Purpose in the first person.")
    coordinator: Coordinator = Field(description="Who plans and routes.")
    members: tuple[Member, ...] = Field(min_length=1, max_length=32, description="Who works and votes.")
    quorum: Quorum = Field(default=Quorum(), description="How votes are counted.")
    gate_policy_ref: GatePolicyRef | None = Field(
        default=None, description="The gate that a submission must pass. None: the vote alone decides."
    )
    timing: Timing = Field(default=Timing(), description="Deadlines.")
    suspend: bool = Field(default=False, description="Pause: no new session is opened.")

    rules = (
        plain_cause(),
        Rule(
            "self.quorum.minimum <= self.members.filter(m, m.weight > 0).size()",
            "quorum.minimum is more than the members with a weight above 0, so it can never be reached: lower it or add members",
            lambda c: c.quorum.minimum <= sum(m.weight > 0 for m in c.members),
            ".quorum.minimum",
        ),
        unique(
            "members",
            lambda m: m.agent_ref.name,
            "members names the same Agent twice: give it one entry with one role",
            "self.members.all(m, self.members.exists_one(n, n.agentRef.name == m.agentRef.name))",
        ),
    )
