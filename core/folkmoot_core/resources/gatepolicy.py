"""`GatePolicy` (gatepolicies.folkmoot.dev): what a submission must pass before it counts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from folkmoot_core.resources.common import NAMED_LIST, AgentRef, Duration, Name, Spec
from folkmoot_core.resources.rules import Rule, unique

ShapeGlob = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z0-9-]+\*?)$", max_length=64)]


class Reviewer(Spec):
    agent_ref: AgentRef = Field(description="An Agent in this namespace; never the author of what it reviews.")


def _agent_of(reviewer: Reviewer) -> str:
    return reviewer.agent_ref.name


_TWICE = "reviewers names the same Agent twice: one review each"
_ONCE = "!has(self.reviewers) || self.reviewers.all(r, self.reviewers.exists_one(s, s.agentRef.name == r.agentRef.name))"


class Check(Spec):
    name: Name = Field(description="Name shown in the verdict.")
    run: Annotated[str, StringConstraints(min_length=1, max_length=4096)] = Field(
        description="Command run in the checks sandbox over the submission, with the original tests restored and without network."
    )
    timeout: Duration = Field(default="5m", description="Longest time; then it counts as failed.")


class Structural(Spec):
    reviewers: tuple[Reviewer, ...] = Field(
        default=(), max_length=8, description="Review whether the submission does what it says."
    )
    checks: tuple[Check, ...] = Field(
        default=(), max_length=16, description="Commands that must exit 0.", json_schema_extra=NAMED_LIST
    )

    rules = (
        unique("reviewers", _agent_of, _TWICE, _ONCE),
        unique("checks", lambda c: c.name, "checks has the same name twice; name each check once"),
    )


class Shapes(Spec):
    allow: tuple[ShapeGlob, ...] = Field(default=("*",), max_length=64, description="Threat shapes whose probes run.")
    deny: tuple[ShapeGlob, ...] = Field(
        default=(), max_length=64, description="Threat shapes whose probes do not run. Wins over allow."
    )


class Adversarial(Spec):
    reviewers: tuple[Reviewer, ...] = Field(default=(), max_length=8, description="Review how the submission games its checks.")
    shapes: Shapes = Field(default=Shapes(), description="Vocabulary of known ways to fail.")

    rules = (unique("reviewers", _agent_of, _TWICE, _ONCE),)


_COUNT = "self.structural.reviewers.size() + self.adversarial.reviewers.size()"


def _reviewers(policy: GatePolicySpec) -> int:
    return len(policy.structural.reviewers) + len(policy.adversarial.reviewers)


class GatePolicySpec(Spec):
    """What a submission must pass."""

    mode: Literal["Enforce", "Audit"] = Field(default="Enforce", description="Audit: runs and records, holds nothing back.")
    structural: Structural = Field(default=Structural(), description="Structural correctness.")
    adversarial: Adversarial = Field(default=Adversarial(), description="Adversarial gameability.")
    families: int = Field(default=2, ge=1, le=8, description="Distinct observed model families among author and reviewers.")
    max_submissions: int = Field(default=1, ge=1, le=10, description="Submissions at most; then the gate escalates.")
    timeout: Duration = Field(default="10m", description="Longest time of one gate run; a missing review is not an approval.")

    rules = (
        Rule(
            "self.structural.reviewers.size() > 0 && self.adversarial.reviewers.size() > 0",
            "a gate approves only if both reviews do: name at least one agent in structural.reviewers and one in adversarial.reviewers",
            lambda g: bool(g.structural.reviewers and g.adversarial.reviewers),
        ),
        Rule(
            f"self.families <= 1 + {_COUNT}",
            "families is more than the author and the reviewers together, so it can never be met: lower it or add reviewers",
            lambda g: g.families <= 1 + _reviewers(g),
            ".families",
        ),
    )
