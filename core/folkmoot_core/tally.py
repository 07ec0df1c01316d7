"""Counting votes: weights, quorum, threshold, ties. Exact arithmetic; a vote counts only for the digest it names."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

from pydantic import BaseModel, ConfigDict

from folkmoot_core.resources.council import Quorum

Choice = Literal["For", "Against", "Abstain"]
Decision = Literal["Accepted", "Rejected", "Tie", "NoQuorum"]


class Vote(BaseModel):
    """One member's structured vote. `digest` is what the member says it voted on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vote: Choice
    digest: str
    reason: str


class Count(BaseModel):
    """The result. `dissent` are the members that voted otherwise than the decision; it is kept, never averaged away."""

    model_config = ConfigDict(frozen=True)

    decision: Decision
    votes_for: int
    votes_against: int
    abstained: int
    dissent: tuple[str, ...]


def count(votes: Mapping[str, Vote], weights: Mapping[str, int], digest: str, quorum: Quorum) -> Count:
    """Count `votes` (member → vote) on `digest`. Members without weight, and votes on another digest, are not cast."""
    cast = {m: v for m, v in votes.items() if weights.get(m, 0) > 0 and v.digest == digest}
    in_favour = _members(cast, "For")
    against = _members(cast, "Against")
    decision = _decide(
        voters=len(in_favour) + len(against),
        in_favour=sum(weights[m] for m in in_favour),
        against=sum(weights[m] for m in against),
        quorum=quorum,
    )
    dissent = {"Accepted": against, "Rejected": in_favour}.get(decision, ())
    abstained = len(cast) - len(in_favour) - len(against)
    return Count(
        decision=decision, votes_for=len(in_favour), votes_against=len(against), abstained=abstained, dissent=tuple(dissent)
    )


def settle(tied: Count, votes: Mapping[str, Vote], digest: str, *, accepted: bool) -> Count:
    """A tie, decided by the council's rule; those who voted otherwise are its dissent."""
    losing: Choice = "Against" if accepted else "For"
    dissent = _members({m: v for m, v in votes.items() if v.digest == digest}, losing)
    decision: Decision = "Accepted" if accepted else "Rejected"
    return tied.model_copy(update={"decision": decision, "dissent": dissent})


def _decide(*, voters: int, in_favour: int, against: int, quorum: Quorum) -> Decision:
    # An abstention is present but not a vote cast: a council of abstainers decides nothing.
    if voters < quorum.minimum:
        return "NoQuorum"
    share = Fraction(in_favour, in_favour + against)
    threshold = Fraction(quorum.threshold)
    if share > threshold:
        return "Accepted"
    return "Tie" if share == threshold else "Rejected"


def _members(votes: Mapping[str, Vote], choice: Choice) -> tuple[str, ...]:
    return tuple(sorted(member for member, vote in votes.items() if vote.vote == choice))
