"""How a council decides: plan, parallel work, votes on a digest, the gate, at most `maxSubmissions` rounds.

Called by the conductor, which meets the needs that these generators yield and replays them after a crash. Nothing here does
I/O, and nothing is read from prose: plans, votes and reviews are structured output, validated; what does not validate is
not a plan, not a vote, not an approval. substrate.md "Council mode".
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from folkmoot_core import gate, prompts, tally
from folkmoot_core.deliberation import (
    Answers,
    AskAgent,
    Deliberation,
    Need,
    Note,
    Outcome,
    ProbeResult,
    RunProbes,
)
from folkmoot_core.document import SessionOrder, TenantDocument
from folkmoot_core.gate import Submission
from folkmoot_core.messages import InputRef, TaskResult
from folkmoot_core.resources import CouncilSpec, GatePolicySpec
from folkmoot_core.resources.common import seconds

Model = TypeVar("Model", bound=BaseModel)
Round = Generator[tuple[Need, ...], Answers, Outcome | None]


class DeliberationContext(BaseModel):
    """All that a deliberation knows. Frozen at the session's acceptance: a document that changes later changes nothing here."""

    model_config = ConfigDict(frozen=True)

    session: SessionOrder
    document: TenantDocument
    workspace: str | None = None  # digest of the input workspace's manifest
    inputs: tuple[InputRef, ...] = ()
    previous_note: str = ""


class Assignment(BaseModel):
    """One member's part: `work` makes the submission, `opinion` is advice to its author."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    member: str
    kind: Literal["work", "opinion"]
    instruction: str


class Plan(BaseModel):
    """The coordinator's plan: exactly one member works, others may give opinions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: str
    assignments: tuple[Assignment, ...] = Field(min_length=1)


class Work(BaseModel):
    """What an author says of its submission. `answer` is the submission itself where there is no workspace."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: str
    answer: str


@dataclass
class _Council:
    """One deliberation's view of its council. Mutable only in what the rounds hand to one another."""

    context: DeliberationContext
    spec: CouncilSpec
    policy: GatePolicySpec | None
    author: str = ""
    instruction: str = ""
    opinions: dict[str, str] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    workspace: str | None = None

    @property
    def task_seconds(self) -> int:
        return seconds(self.spec.timing.task)


def answer(context: DeliberationContext) -> Deliberation:
    """A session whose target is one Agent: one task, its answer is the result."""
    order = context.session.spec
    need = AskAgent(
        id="answer", agent=order.target.name, task="answer", prompt=prompts.answer(order.task, context.previous_note),
        inputs=context.inputs, workspace=context.workspace, timeout_seconds=seconds(order.budget.wall_clock),
    )  # fmt: skip
    result = _result((yield (need,)), "answer")
    if result.status != "done":
        return Outcome(phase="Failed", reason=result.reason or "TaskFailed", message=result.error, unfinished=(order.task[:200],))
    text = result.output if isinstance(result.output, str) else str(result.output)
    return Outcome(phase="Succeeded", reason="Answered", message="the agent answered", result=text, workspace=result.workspace)


def deliberate(context: DeliberationContext) -> Deliberation:
    """A session whose target is a Council."""
    target = context.session.spec.target.name
    entry = next((c for c in context.document.councils if c.name == target), None)
    if entry is None:
        return Outcome(phase="Failed", reason="TargetNotFound", message=f"Council {target} is not in the tenant's configuration")
    council = _Council(context, entry.spec, _policy(context.document, entry.spec), workspace=context.workspace)
    refused = yield from _plan(council)
    if refused is not None:
        return refused
    rounds = council.policy.max_submissions if council.policy else 1
    for number in range(1, rounds + 1):
        ended = yield from _round(council, number, last=number == rounds)
        if ended is not None:
            return ended
    raise AssertionError("the last round always ends")  # pragma: no cover - _round(last=True) returns an outcome


def _plan(council: _Council) -> Round:
    """Ask the coordinator who does what; refuse a plan that names nobody to do the work."""
    spec, context = council.spec, council.context
    members = {m.agent_ref.name: m.role for m in spec.members}
    reviewers = gate.reviewers(council.policy) if council.policy else frozenset()
    need = AskAgent(
        id="plan", agent=spec.coordinator.agent_ref.name, task="plan",
        prompt=prompts.plan(spec.cause, context.session.spec.task, members, reviewers, context.previous_note),
        inputs=context.inputs, output=prompts.schema("plan", Plan), timeout_seconds=council.task_seconds,
    )  # fmt: skip
    result = _result((yield (need,)), "plan")
    plan = _parse(result, Plan)
    if plan is None:
        return _failed(
            "PlanInvalid", f"coordinator {need.agent} gave no usable plan: {result.error or 'it does not fit the schema'}"
        )
    workers = [a for a in plan.assignments if a.kind == "work"]
    unknown = sorted({a.member for a in plan.assignments} - set(members))
    if unknown or len(workers) != 1:
        return _failed("PlanInvalid", f"plan names {len(workers)} authors (expected 1) and unknown members {unknown or 'none'}")
    if workers[0].member in reviewers:
        return _failed(
            "PlanInvalid", f"plan makes {workers[0].member} the author, but the gate has it as a reviewer; choose another"
        )
    council.author, council.instruction = workers[0].member, workers[0].instruction
    yield (
        Note(id="plan/note", entry="council.plan", actor=need.agent, data={"author": council.author, "members": sorted(members)}),
    )
    yield from _opinions(council, [a for a in plan.assignments if a.kind == "opinion"])
    return None


def _opinions(council: _Council, assignments: list[Assignment]) -> Generator[tuple[Need, ...], Answers, None]:
    """Advice, asked of everybody at once. A member that fails to give any is simply not heard."""
    context = council.context
    needs = tuple(
        AskAgent(
            id=f"opinion/{a.member}", agent=a.member, task="answer", prompt=prompts.opinion(context.session.spec.task, a.instruction),
            inputs=context.inputs, timeout_seconds=council.task_seconds,
        )
        for a in assignments if a.member != council.author
    )  # fmt: skip
    if not needs:
        return
    answers = yield needs
    for need in needs:
        result = _result(answers, need.id)
        if result.status == "done" and isinstance(result.output, str):
            council.opinions[need.agent] = result.output


def _round(council: _Council, number: int, *, last: bool) -> Round:
    """One submission: work → what changed → votes → gate. Returns None when the author should revise."""
    order = council.context.session.spec
    need = AskAgent(
        id=f"work/{number}", agent=council.author, task="work",
        prompt=prompts.work(order.task, council.instruction, council.opinions, council.requirements, number),
        inputs=council.context.inputs, workspace=council.workspace, output=prompts.schema("work", Work),
        timeout_seconds=council.task_seconds,
    )  # fmt: skip
    result = _result((yield (need,)), need.id)
    work = _parse(result, Work)
    if work is None:
        return _failed(
            result.reason or "WorkInvalid", f"author {council.author}: {result.error or 'its answer does not fit the schema'}"
        )
    submission = gate.submission(number, council.author, result, council.context.workspace, (work.summary, work.answer))
    council.workspace = submission.workspace
    probes = yield from _probe(council, submission)
    yield (
        Note(
            id=f"submission/{number}", entry="gate.submission", actor=council.author, commits_to=submission.workspace or "",
            data={"submission": number, "gen_ai.response.model": result.model_observed, "family": result.family},
        ),
    )  # fmt: skip
    counted = yield from _vote(council, submission, probes)
    if counted.decision != "Accepted":
        return _not_accepted(counted, submission)
    if council.policy is None:
        return _succeeded(counted, submission, None)
    verdict = yield from gate.review(council.policy, order.task, submission, probes)
    if verdict.verdict == "Approved" or council.policy.mode == "Audit":
        return _succeeded(counted, submission, verdict)
    if verdict.verdict == "Revise" and not last:
        council.requirements = verdict.requirements()
        return None
    return _gate_ended(counted, submission, verdict)


def _probe(council: _Council, submission: Submission) -> Generator[tuple[Need, ...], Answers, ProbeResult]:
    if submission.workspace is None:
        return ProbeResult(vocabulary="none")  # a text submission: there is no difference of files to probe
    shapes = council.policy.adversarial.shapes if council.policy else None
    need = RunProbes(
        id=f"probes/{submission.number}", base=council.context.workspace, workspace=submission.workspace,
        shapes_allow=shapes.allow if shapes else ("*",), shapes_deny=shapes.deny if shapes else (),
    )  # fmt: skip
    found = (yield (need,))[need.id]
    return found if isinstance(found, ProbeResult) else ProbeResult(vocabulary="", error="the probes gave no answer")


def _vote(council: _Council, submission: Submission, probes: ProbeResult) -> Generator[tuple[Need, ...], Answers, tally.Count]:
    """Every member with weight votes at the same moment on the same digest, without seeing the others' votes."""
    order, number = council.context.session.spec, submission.number
    weights = {m.agent_ref.name: m.weight for m in council.spec.members}
    inputs = gate.evidence(submission, probes)
    voters = [name for name, weight in weights.items() if weight > 0]
    votes = yield from _ask_votes(council, [(f"vote/{number}/{v}", v) for v in voters], submission, inputs)
    counted = tally.count(votes, weights, submission.digest, council.spec.quorum)
    if counted.decision == "Tie" and council.spec.quorum.tie != "Escalate":
        accepted = False
        if council.spec.quorum.tie == "Coordinator":
            coordinator = council.spec.coordinator.agent_ref.name
            casting = yield from _ask_votes(council, [(f"vote/{number}/casting", coordinator)], submission, inputs)
            # A casting vote that is missing, unreadable or on another digest is not one in favour.
            given = casting.get(coordinator)
            accepted = given is not None and given.vote == "For" and given.digest == submission.digest
        counted = tally.settle(counted, votes, submission.digest, accepted=accepted)
    yield (
        Note(
            id=f"vote/{number}/decision", entry="council.decision", commits_to=submission.workspace or "",
            data={
                "submission": number, "task": order.target.name, "decision": counted.decision, "for": counted.votes_for,
                "against": counted.votes_against, "abstained": counted.abstained, "dissent": list(counted.dissent),
            },
        ),
    )  # fmt: skip
    return counted


def _ask_votes(
    council: _Council, asked: list[tuple[str, str]], submission: Submission, inputs: tuple[InputRef, ...]
) -> Generator[tuple[Need, ...], Answers, dict[str, tally.Vote]]:
    order = council.context.session.spec
    needs = tuple(
        AskAgent(
            id=need_id, agent=agent, task="vote", prompt=prompts.vote(order.task, submission.digest, submission.summary, submission.text),
            inputs=inputs, output=prompts.schema("vote", tally.Vote), timeout_seconds=council.task_seconds,
        )
        for need_id, agent in asked
    )  # fmt: skip
    answers = yield needs
    votes = {need.agent: vote for need in needs if (vote := _parse(_result(answers, need.id), tally.Vote)) is not None}
    yield tuple(
        Note(
            id=f"{need.id}/note", entry="council.vote", actor=need.agent, commits_to=submission.workspace or "",
            data={"submission": submission.number, "vote": votes[need.agent].vote if need.agent in votes else "Missing"},
            detail={"reason": votes[need.agent].reason[:300] if need.agent in votes else ""},
        )
        for need in needs
    )  # fmt: skip
    return votes


def _succeeded(counted: tally.Count, submission: Submission, verdict: gate.Verdict | None) -> Outcome:
    held = verdict is not None and verdict.verdict != "Approved"
    message = f"the gate runs in Audit mode; it would have said {verdict.verdict}" if verdict and held else "the council decided"
    return Outcome(
        phase="Succeeded", reason="Decided", message=message, result=submission.summary if submission.workspace else submission.text,
        workspace=submission.workspace, verdict=verdict.verdict if verdict else "", submission=submission.number,
        findings=verdict.findings if verdict else (), votes_for=counted.votes_for, votes_against=counted.votes_against,
        dissent=counted.dissent,
    )  # fmt: skip


def _not_accepted(counted: tally.Count, submission: Submission) -> Outcome:
    reasons = {"Rejected": "CouncilRejected", "Tie": "Escalated", "NoQuorum": "QuorumNotReached"}
    return Outcome(
        phase="Failed", reason=reasons[counted.decision], submission=submission.number, workspace=submission.workspace,
        message=f"{counted.votes_for} for, {counted.votes_against} against, {counted.abstained} abstained: {counted.decision}",
        votes_for=counted.votes_for, votes_against=counted.votes_against, dissent=counted.dissent, unfinished=(submission.summary,),
    )  # fmt: skip


def _gate_ended(counted: tally.Count, submission: Submission, verdict: gate.Verdict) -> Outcome:
    final = "Blocked" if verdict.verdict == "Blocked" else "Escalated"
    return Outcome(
        phase="Failed", reason="GateBlocked" if final == "Blocked" else "GateDeadlock", verdict=final, submission=submission.number,
        message=verdict.message, workspace=submission.workspace, findings=verdict.findings, votes_for=counted.votes_for,
        votes_against=counted.votes_against, dissent=counted.dissent, unfinished=verdict.requirements(),
    )  # fmt: skip


def _policy(document: TenantDocument, spec: CouncilSpec) -> GatePolicySpec | None:
    if spec.gate_policy_ref is None:
        return None
    found = next((g.spec for g in document.gates if g.name == spec.gate_policy_ref.name), None)
    # A gate that is referred to and not there must not become "no gate": such a council is not in an acknowledged document,
    # and if it ever were, nobody reviews it and the families cannot be met.
    return found or GatePolicySpec(families=8)


def _result(answers: Answers, need_id: str) -> TaskResult:
    found = answers.get(need_id)
    if isinstance(found, TaskResult):
        return found
    return TaskResult(task=need_id, session="", status="failed", reason="NoAnswer", error=f"{need_id} was not answered")


def _parse(result: TaskResult, model: type[Model]) -> Model | None:
    """Structured output or nothing: prose is never searched for a verdict."""
    if result.status != "done":
        return None
    try:
        return model.model_validate(result.output)
    except ValidationError:
        return None


def _failed(reason: str, message: str) -> Outcome:
    return Outcome(phase="Failed", reason=reason, message=message)
