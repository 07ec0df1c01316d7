"""Drives a deliberation from a table of answers, as the conductor does: shared by the tests of council and gate."""

from __future__ import annotations

from folkmoot_core.council import DeliberationContext, answer, deliberate
from folkmoot_core.deliberation import AskAgent, CheckResult, Note, Outcome, ProbeResult, RunCheck, RunProbes
from folkmoot_core.document import CouncilEntry, GateEntry, Identity, SessionOrder, TenantDocument
from folkmoot_core.identity import GrantsV1
from folkmoot_core.messages import TaskResult
from folkmoot_core.resources import CouncilSpec, GatePolicySpec, SessionSpec

FAMILIES = {"loom": "claude", "builder": "gpt", "athena": "gemini", "sable": "deepseek"}
BASE = "sha256:" + "0" * 64


def workspace(number):
    return "sha256:" + str(number) * 64


def done(need, output, **more):
    agent = need.agent
    return TaskResult(
        task=need.id, session="s", status="done", output=output, family=FAMILIES.get(agent, ""), model_observed=agent, **more
    )


def failed(need, reason="Timeout", error="it took too long"):
    return TaskResult(task=need.id, session="s", status="failed", reason=reason, error=error)


def context(*, target="Council", base=BASE, council=None, gate=None, document=None, note=""):
    spec = {
        "cause": "We decide.", "coordinator": {"agentRef": {"name": "loom"}}, "gatePolicyRef": {"name": "code"},
        "members": [{"agentRef": {"name": n}, "role": "voice"} for n in ("builder", "athena", "sable")], "quorum": {"minimum": 2},
        **(council or {}),
    }  # fmt: skip
    policy = {
        "structural": {"reviewers": [{"agentRef": {"name": "athena"}}], "checks": [{"name": "tests", "run": "pytest"}]},
        "adversarial": {"reviewers": [{"agentRef": {"name": "sable"}}]}, "families": 3, "maxSubmissions": 2, **(gate or {}),
    }  # fmt: skip
    identity = Identity(name="acme", scope="l/a/a", cause="I.", seed="0" * 64, commitment="0" * 64, grants=GrantsV1())
    made = TenantDocument(
        tenant="acme", tenant_uid="u", namespace="folkmoot-acme", generation=1, identity=identity,
        councils=(CouncilEntry(name="shipping", spec=CouncilSpec.model_validate(spec)),),
        gates=(GateEntry(name="code", spec=GatePolicySpec.model_validate(policy)),),
    )  # fmt: skip
    name = "shipping" if target == "Council" else "loom"
    order = SessionOrder(
        uid="s",
        name="s1",
        generation=1,
        spec=SessionSpec.model_validate({"target": {"kind": target, "name": name}, "task": "Mend it."}),
    )
    return DeliberationContext(session=order, document=document or made, workspace=base, previous_note=note)


class Table:
    """Answers by need id prefix, honest by default; `asked` keeps every need in order, one list per step."""

    def __init__(self, **answers):
        self.answers = {key.replace("__", "/"): value for key, value in answers.items()}
        self.asked = []

    def drive(self, generator):
        given = None
        while True:
            try:
                needs = generator.send(given) if given is not None else next(generator)
            except StopIteration as stop:
                outcome: Outcome = stop.value
                return outcome
            ids = [need.id for step in self.asked for need in step] + [need.id for need in needs]
            assert len(ids) == len(set(ids)), "need ids are unique within a session"
            self.asked.append(needs)
            given = {need.id: self.answer(need) for need in needs}

    def decide(self, made):
        return self.drive(deliberate(made) if made.session.spec.target.kind == "Council" else answer(made))

    def answer(self, need):
        if isinstance(need, Note):
            return None
        for prefix in sorted(self.answers, key=len, reverse=True):
            if need.id.startswith(prefix):
                chosen = self.answers[prefix]
                return chosen(need) if callable(chosen) else chosen
        return self.honest(need)

    def honest(self, need):
        match need:
            case RunCheck():
                return CheckResult(exit_code=0, output="5 passed")
            case RunProbes():
                return ProbeResult(vocabulary="v", files={"f.py": 10, "tests/test_f.py": 20}, diff="sha256:" + "d" * 64)
            case AskAgent(task="plan"):
                return done(need, {"summary": "s", "assignments": [{"member": "builder", "kind": "work", "instruction": "mend"}]})
            case AskAgent(task="work"):
                number = int(need.id.split("/")[1])
                return done(
                    need, {"summary": "did it", "answer": "done"}, workspace=workspace(number) if need.workspace else None
                )
            case AskAgent(task="vote"):
                return done(need, {"vote": "For", "digest": digest_in(need.prompt), "reason": "fine"})
            case AskAgent(task="review"):
                return done(need, review(need))
            case AskAgent():
                return done(need, "an opinion")

    def needs(self, kind=None):
        return [need for step in self.asked for need in step if kind is None or isinstance(need, kind)]

    def step_of(self, need_id):
        return next(n for n, step in enumerate(self.asked) if any(need.id == need_id for need in step))


def digest_in(prompt):
    return prompt.split("digest is ")[1].split()[0].rstrip(".")


def review(need, verdict="Approved", requirements=(), explained=()):
    return {
        "digest": digest_in(need.prompt), "verdict": verdict, "summary": "because", "requirements": list(requirements),
        "explained": list(explained),
    }  # fmt: skip
