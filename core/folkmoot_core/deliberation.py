"""What a deliberation asks for and is told: the vocabulary between the pure protocols and the conductor that drives them.

A deliberation (folkmoot_core.council, folkmoot_core.gate) is a generator: it yields a tuple of needs that may be met at the
same time, is sent the answers by need id, and finally returns an Outcome. It does no I/O, so the conductor replays it after
a crash: stored answers are sent again and only what was never answered is asked. Need ids are therefore deterministic and
unique within a session ("plan", "work/1/builder", "vote/1/athena", "gate/1/structural/athena", "gate/1/check/tests").
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from folkmoot_core.calls import OutputSchema
from folkmoot_core.messages import InputRef, TaskKind, TaskResult


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AskAgent(_Frozen):
    """One task for one agent, sent over the bus. The conductor turns it into a Task with deadlines and token limits."""

    kind: Literal["ask"] = "ask"
    id: str
    agent: str
    task: TaskKind
    prompt: str
    inputs: tuple[InputRef, ...] = ()
    workspace: str | None = None
    output: OutputSchema | None = None
    timeout_seconds: int


class RunCheck(_Frozen):
    """Run a command over a workspace in the checks sandbox, with the files of `base` that look like tests restored first."""

    kind: Literal["check"] = "check"
    id: str
    name: str
    run: str
    workspace: str
    base: str | None
    timeout_seconds: int


class RunProbes(_Frozen):
    """Run the deterministic probes over the difference of two workspaces (pure; the conductor only fetches the blobs)."""

    kind: Literal["probes"] = "probes"
    id: str
    base: str | None
    workspace: str
    shapes_allow: tuple[str, ...]
    shapes_deny: tuple[str, ...]


class Note(_Frozen):
    """Something for the record: an entry of the ledger and an event of the session. Answered with None."""

    kind: Literal["note"] = "note"
    id: str
    entry: str  # an EntryType
    data: dict[str, Any]
    detail: dict[str, Any] = {}  # joins `data` in the session's event, for the person who follows; never in the ledger
    commits_to: str = ""  # digest of what the entry commits to with a salt (a workspace manifest, a result)
    actor: str = ""  # agent name; empty: the conductor


Need = Annotated[AskAgent | RunCheck | RunProbes | Note, Field(discriminator="kind")]


class CheckResult(_Frozen):
    """Answer to RunCheck. `output` is the last 4 KiB, already free of control characters."""

    exit_code: int | None  # None: it could not be run or was killed
    timed_out: bool = False
    output: str = ""
    error: str = ""


class Finding(_Frozen):
    """One confirmed hit of a probe or one item of a review."""

    shape: str  # id in the vocabulary, or "" for a free requirement
    severity: Literal["Critical", "High", "Medium", "Low", "Informational"]
    file: str = ""
    line: int = 0
    message: str
    hard: bool = False  # True: the gate cannot approve whatever the reviewers say
    source: str = ""  # "probe", "check:<name>", "structural:<agent>", "adversarial:<agent>"


class ProbeResult(_Frozen):
    """Answer to RunProbes."""

    vocabulary: str  # version
    findings: tuple[Finding, ...] = ()
    files: dict[str, int] = {}  # path → lines, of base and submission: what a reviewer's evidence is checked against
    diff: str = ""  # digest of the unified diff, an artefact stored by whoever ran the probes; voters and reviewers read it
    error: str = ""  # not empty: the probes could not run, which is not an approval


Answer = TaskResult | CheckResult | ProbeResult | None
Answers = Mapping[str, Answer]


class Outcome(_Frozen):
    """How a deliberation ended."""

    phase: Literal["Succeeded", "Failed"]
    reason: str = ""  # CamelCase
    message: str = ""  # one sentence
    result: str = ""  # text result: the answer, or the decision in words
    workspace: str | None = None  # digest of the decided artefact set
    verdict: Literal["", "Approved", "Revise", "Blocked", "Escalated"] = ""
    submission: int = 0
    findings: tuple[Finding, ...] = ()
    votes_for: int = 0
    votes_against: int = 0
    dissent: tuple[str, ...] = ()  # agents that voted otherwise than the decision
    unfinished: tuple[str, ...] = ()  # for the closing note


Deliberation = Generator[tuple[Need, ...], Answers, Outcome]
