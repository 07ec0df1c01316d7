"""The adversarial-parallel gate: structural and adversarial review at the same moment, blind to each other. Veto, never a mean.

Called by folkmoot_core.council. The deterministic probes ran first (they cost nothing and are facts, not opinions); then checks
and both reviews are asked in one step. A missing, late, unparseable or misaddressed review is not an approval. substrate.md
"Adversarial-parallel gate".

The policy is the list `_CHAIN` at the end: each step names one thing that keeps a submission from being approved, and the
first that finds something decides the verdict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from folkmoot_core import prompts
from folkmoot_core.canonical import digest
from folkmoot_core.deliberation import Answers, AskAgent, CheckResult, Finding, Need, Note, ProbeResult, RunCheck
from folkmoot_core.messages import InputRef, TaskResult
from folkmoot_core.resources import GatePolicySpec
from folkmoot_core.resources.common import seconds
from folkmoot_core.shapes import SHAPES

Severity = Literal["Critical", "High", "Medium", "Low", "Informational"]
_PLAIN = re.compile(r"[A-Za-z0-9._/+@=-]{0,200}")
VerdictWord = Literal["Approved", "Revise", "Blocked", "Escalated"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Requirement(_Frozen):
    """One thing that must change, with evidence a program can check: the file exists in the submission or its base."""

    shape: str  # id in the vocabulary, or "" where none fits
    severity: Severity
    file: str
    line: int
    message: str


class Explanation(_Frozen):
    """A reviewer's reason why a probe's finding is in order for this task."""

    shape: str
    file: str
    justification: str


class Review(_Frozen):
    """What a reviewer answers."""

    digest: str
    verdict: Literal["Approved", "Revise", "Blocked"]
    summary: str
    requirements: tuple[Requirement, ...] = Field(max_length=50)
    explained: tuple[Explanation, ...] = Field(max_length=50)


class Submission(_Frozen):
    """What is voted on and gated, named by one digest: of the workspace's manifest, or of the text."""

    number: int
    author: str
    digest: str
    workspace: str | None
    base: str | None  # the session's input workspace: what probes compare with and checks restore tests from
    summary: str
    text: str
    family: str


class Verdict(_Frozen):
    """The gate's word. `findings` hold everything that was found, also what was explained or did not decide."""

    verdict: VerdictWord
    message: str
    findings: tuple[Finding, ...] = ()
    vocabulary: str = ""

    def requirements(self) -> tuple[str, ...]:
        """The findings as lines for the author."""
        return tuple(_line(f) for f in self.findings if f.severity != "Informational")


@dataclass(frozen=True)
class _Evidence:
    """Everything gathered about one submission, before anything is decided."""

    policy: GatePolicySpec
    submission: Submission
    probes: ProbeResult
    checks: dict[str, CheckResult]
    structural: dict[str, Review | str]  # reviewer → its review, or the reason why there is none
    adversarial: dict[str, Review | str]
    families: frozenset[str]

    @property
    def reviews(self) -> dict[str, Review]:
        asked = {**self.structural, **self.adversarial}
        return {name: review for name, review in asked.items() if isinstance(review, Review)}


def reviewers(policy: GatePolicySpec) -> frozenset[str]:
    """Agents that review under this policy; none of them may be the author."""
    return frozenset(r.agent_ref.name for r in (*policy.structural.reviewers, *policy.adversarial.reviewers))


def submission(number: int, author: str, result: TaskResult, base: str | None, said: tuple[str, str]) -> Submission:
    """Name what an author handed in. `said` is its summary and, for a submission without workspace, its text."""
    summary, text = said
    named = result.workspace or digest(text.encode())
    return Submission(
        number=number, author=author, digest=named, workspace=result.workspace, base=base, summary=summary, text=text, family=result.family,
    )  # fmt: skip


def evidence(submitted: Submission, probes: ProbeResult) -> tuple[InputRef, ...]:
    """What voters and reviewers read beside the prompt: the difference, where there is a workspace."""
    if not probes.diff:
        return ()
    return (InputRef(name=f"submission-{submitted.number}.diff", digest=probes.diff, media="text/x-diff"),)


def review(
    policy: GatePolicySpec, task: str, submitted: Submission, probes: ProbeResult
) -> Generator[tuple[Need, ...], Answers, Verdict]:
    """Gather checks and both reviews in one step, decide, and put the verdict on record."""
    number, limit = submitted.number, seconds(policy.timeout)
    inputs = evidence(submitted, probes)
    checks = tuple(
        RunCheck(
            id=f"gate/{number}/check/{c.name}", name=c.name, run=c.run, workspace=submitted.workspace, base=submitted.base,
            timeout_seconds=min(seconds(c.timeout), limit),
        )
        for c in policy.structural.checks if submitted.workspace is not None
    )  # fmt: skip
    structural = _asks("structural", policy, task, submitted, probes, inputs, limit)
    adversarial = _asks("adversarial", policy, task, submitted, probes, inputs, limit)
    needs: tuple[Need, ...] = (*checks, *structural, *adversarial)
    answers = (yield needs) if needs else {}
    gathered = _gather(policy, submitted, probes, answers, (checks, structural, adversarial))
    verdict = decide(gathered)
    yield (*_notes(gathered), _verdict_note(submitted, verdict))
    return verdict


def decide(gathered: _Evidence) -> Verdict:
    """Pure: run the chain; the first step that has something to say decides, nothing said is an approval."""
    findings = _findings(gathered)
    for step in _CHAIN:
        said = step(gathered, findings)
        if said is not None:
            word, message = said
            return Verdict(verdict=word, message=message, findings=findings, vocabulary=gathered.probes.vocabulary)
    return Verdict(verdict="Approved", message="both reviews approve and every check passes", findings=findings,
                   vocabulary=gathered.probes.vocabulary)  # fmt: skip


Said = tuple[VerdictWord, str] | None


def _missing_side(e: _Evidence, _: tuple[Finding, ...]) -> Said:
    """Both kinds of review must exist at all: a policy without reviewers approves nothing."""
    for name, side in (("structural", e.structural), ("adversarial", e.adversarial)):
        if not side:
            return "Escalated", f"the policy names no {name} reviewer; add one, a gate needs both sides"
    return None


def _author_reviews(e: _Evidence, _: tuple[Finding, ...]) -> Said:
    """The author is never a reviewer."""
    if e.submission.author in reviewers(e.policy):
        return "Escalated", f"{e.submission.author} is author and reviewer at once; choose another reviewer"
    return None


def _blocked(e: _Evidence, _: tuple[Finding, ...]) -> Said:
    """Any reviewer may block: no revision of this submission can help."""
    for name, given in sorted(e.reviews.items()):
        if given.verdict == "Blocked":
            return "Blocked", f"{name} blocks: {given.summary[:300]}"
    return None


def _probes_failed(e: _Evidence, _: tuple[Finding, ...]) -> Said:
    """Probes that could not run are not an approval."""
    return ("Escalated", f"the probes could not run: {e.probes.error}") if e.probes.error else None


def _needs_revision(_: _Evidence, findings: tuple[Finding, ...]) -> Said:
    """Requirements of reviewers, failed checks, and probe findings that nobody explained (hard ones cannot be explained)."""
    open_findings = [f for f in findings if f.severity != "Informational"]
    if not open_findings:
        return None
    return "Revise", "; ".join(_line(f) for f in open_findings[:5])


def _reviews_missing(e: _Evidence, _: tuple[Finding, ...]) -> Said:
    """A missing, late or unparseable review is not an approval."""
    for name, given in sorted({**e.structural, **e.adversarial}.items()):
        if isinstance(given, str):
            return "Escalated", f"no usable review by {name}: {given}"
    return None


def _too_few_families(e: _Evidence, _: tuple[Finding, ...]) -> Said:
    """Distinct observed model families among author and reviewers; the unknown never count."""
    if len(e.families) < e.policy.families:
        seen = ", ".join(sorted(e.families)) or "none"
        return "Escalated", f"{len(e.families)} model families observed ({seen}); the policy asks for {e.policy.families}"
    return None


def _disapproved(e: _Evidence, _: tuple[Finding, ...]) -> Said:
    """A reviewer that says Revise without a requirement that checks out still does not approve."""
    for name, given in sorted(e.reviews.items()):
        if given.verdict != "Approved":
            return "Escalated", f"{name} says {given.verdict} without evidence that a program can check: {given.summary[:300]}"
    return None


_CHAIN: tuple[Callable[[_Evidence, tuple[Finding, ...]], Said], ...] = (
    _author_reviews,
    _missing_side,
    _blocked,
    _probes_failed,
    _needs_revision,
    _reviews_missing,
    _too_few_families,
    _disapproved,
)


def _asks(  # noqa: PLR0913 - the two sides differ in one word; everything else is the same submission
    side: Literal["structural", "adversarial"], policy: GatePolicySpec, task: str, submitted: Submission, probes: ProbeResult,
    inputs: tuple[InputRef, ...], limit: int,
) -> tuple[AskAgent, ...]:  # fmt: skip
    asked = policy.structural.reviewers if side == "structural" else policy.adversarial.reviewers
    facts = tuple(_fact(f) for f in probes.findings)
    return tuple(
        AskAgent(
            id=f"gate/{submitted.number}/{side}/{r.agent_ref.name}", agent=r.agent_ref.name, task="review",
            prompt=prompts.review(side, task, submitted.digest, submitted.summary, submitted.text, facts), inputs=inputs,
            output=prompts.schema("review", Review), timeout_seconds=limit,
        )
        for r in asked
    )  # fmt: skip


def _gather(
    policy: GatePolicySpec, submitted: Submission, probes: ProbeResult, answers: Answers,
    asked: tuple[tuple[RunCheck, ...], tuple[AskAgent, ...], tuple[AskAgent, ...]],
) -> _Evidence:  # fmt: skip
    checks, structural, adversarial = asked
    results = {n.id: answers.get(n.id) for n in (*structural, *adversarial)}
    families = {r.family for r in results.values() if isinstance(r, TaskResult) and r.status == "done" and r.family}
    if submitted.family:
        families.add(submitted.family)
    ran: dict[str, CheckResult] = {}
    for c in checks:
        found = answers.get(c.id)
        ran[c.name] = found if isinstance(found, CheckResult) else CheckResult(exit_code=None, error="it was not run")
    return _Evidence(
        policy=policy, submission=submitted, probes=probes, checks=ran, families=frozenset(families),
        structural={n.agent: _review_of(results[n.id], submitted.digest) for n in structural},
        adversarial={n.agent: _review_of(results[n.id], submitted.digest) for n in adversarial},
    )  # fmt: skip


def _review_of(result: object, wanted: str) -> Review | str:
    if not isinstance(result, TaskResult):
        return "it was not answered"
    if result.status != "done":
        return result.error or result.reason or "the task failed"
    try:
        given = Review.model_validate(result.output)
    except ValidationError:
        return "its answer does not fit the schema"
    return given if given.digest == wanted else "it names another digest than the submission's"


def _findings(e: _Evidence) -> tuple[Finding, ...]:
    """Probes, checks and requirements as findings. What a reviewer explained, or cites without evidence, is kept as Informational."""
    found = [_probe_finding(f, e) for f in e.probes.findings]
    for name, ran in sorted(e.checks.items()):
        if ran.exit_code != 0:
            why = "timed out" if ran.timed_out else ran.error or f"exit code {ran.exit_code}"
            message = f"check {name}: {why}: {_last_line(ran.output)}"
            found.append(Finding(shape="", severity="High", message=message, source=f"check:{name}"))
    for side, reviews in (("structural", e.structural), ("adversarial", e.adversarial)):
        for reviewer, given in sorted(reviews.items()):
            if isinstance(given, Review):
                found.extend(_requirement(r, f"{side}:{reviewer}", e) for r in given.requirements)
    return tuple(found)


def _probe_finding(finding: Finding, e: _Evidence) -> Finding:
    if finding.hard:
        return finding
    # Only the adversarial side, whose question this is, may explain a probe's finding away; the author never.
    for name, given in sorted(e.adversarial.items()):
        if isinstance(given, Review):
            for said in given.explained:
                if said.shape == finding.shape and said.file == finding.file and said.justification.strip():
                    message = f"{finding.message} [explained by {name}: {said.justification[:300]}]"
                    return finding.model_copy(update={"severity": "Informational", "message": message})
    return finding


def _requirement(r: Requirement, source: str, e: _Evidence) -> Finding:
    known = e.probes.files
    checkable = not known or (r.file in known and 0 <= r.line <= max(known[r.file], 1))
    return Finding(
        shape=r.shape if r.shape in SHAPES else "", severity=r.severity if checkable else "Informational", file=r.file[:1024], line=max(r.line, 0),
        message=r.message[:1000] if checkable else f"[evidence not found] {r.message[:1000]}", source=source,
    )  # fmt: skip


def _notes(e: _Evidence) -> tuple[Note, ...]:
    """One entry per review, per check and for the probes: what each said, before the verdict."""
    n, manifest = e.submission.number, e.submission.workspace or ""
    probes = Note(
        id=f"gate/{n}/probes/note", entry="gate.probe", commits_to=manifest,
        data={"submission": n, "vocabulary": e.probes.vocabulary, "shapes": sorted({f.shape for f in e.probes.findings})},
    )  # fmt: skip
    checks = [
        Note(
            id=f"gate/{n}/check/{name}/note", entry="gate.check", commits_to=manifest,
            data={"submission": n, "check": name, "exit_code": ran.exit_code, "timed_out": ran.timed_out},
        )
        for name, ran in sorted(e.checks.items())
    ]  # fmt: skip
    reviews = [
        Note(
            id=f"gate/{n}/{side}/{name}/note", entry="gate.review", actor=name, commits_to=manifest,
            data={"submission": n, "side": side, "verdict": given.verdict if isinstance(given, Review) else "Missing"},
            detail={"summary": given.summary[:300] if isinstance(given, Review) else given[:300]},
        )
        for side, sided in (("structural", e.structural), ("adversarial", e.adversarial))
        for name, given in sorted(sided.items())
    ]  # fmt: skip
    return (probes, *checks, *reviews)


def _verdict_note(submitted: Submission, verdict: Verdict) -> Note:
    shapes = sorted({f.shape for f in verdict.findings if f.shape and f.severity != "Informational"})
    return Note(
        id=f"gate/{submitted.number}/verdict", entry="gate.verdict", commits_to=submitted.workspace or "",
        data={"submission": submitted.number, "verdict": verdict.verdict, "shapes": shapes, "vocabulary": verdict.vocabulary},
        detail={"message": verdict.message[:1000], "findings": [_line(f)[:300] for f in verdict.findings[:20]]},
    )  # fmt: skip


def _line(f: Finding) -> str:
    where = f"{f.file}:{f.line}: " if f.file else ""
    return f"{where}{f.shape or f.source}: {f.message}"


def _fact(f: Finding) -> str:
    """A finding for reviewers. It stands outside every fence, and the file's name is the author's."""
    return _line(f if _PLAIN.fullmatch(f.file) else f.model_copy(update={"file": "(a file whose name could be an instruction)"}))


def _last_line(output: str) -> str:
    """What the command itself said last; the sandbox's own remarks stand in brackets."""
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith("[")]
    return lines[-1][:300] if lines else "(no output)"
