"""The law map as data: what each clause asks, which entries support it, what is checked, and what stays with people.

Words matter here. A log *supports* a duty; no log and no software fulfils one. `coverage` holds a log against this table,
`docs/article-12.md` is made from it (`tests/docs/test_article_12.py`). Every date and draft is stated with what is known of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

FLOOR_DAYS: Final = 184  # six months are never more than 184 days; 180 would be too short
DEFAULT_DAYS: Final = 366

CARE: Final = (
    "This map is not legal advice. Regulation (EU) 2024/1689 (the AI Act) was changed by Regulation (EU) 2026/1744, in force since "
    "27 July 2026: by what was read, Articles 6 to 27 (but for 6(5)), so 12, 19 and 26 too, apply from 2 December 2027 to systems of Annex III and "
    "from 2 August 2028 to those of Annex I; Articles 50, 72 and 73 are outside of what was moved. None of this was checked against the "
    "Official Journal, and neither was the amended wording: a lawyer must confirm it before anybody relies on it.",
    "A platform for agents is not high-risk by itself: that depends on the intended purpose of what runs on it. The tenant is usually the "
    "deployer (Article 26), sometimes the provider (Articles 12 and 19).",
    "The law asks for automatic recording, not for tamper evidence. That the log cannot be rewritten unnoticed is more than Article 12 asks.",
    "The standards that will spell this out are drafts: prEN 18229-1 (AI trustworthiness framework, Part 1: Logging; in enquiry, publication "
    "planned for May 2027) and ISO/IEC DIS 24970 (AI system logging). Their texts were not at hand; the entries were designed against the "
    "public outlines, and no conformity is claimed.",
)  # fmt: skip

Check = Literal[
    "sequence", "heartbeat", "configuration", "sessions", "retention", "keys", "anchors", "outcomes", "commitments", "refusals",
    "reads", "holds", "by-people", "none",
]  # fmt: skip


@dataclass(frozen=True)
class Clause:
    """One clause. `asks` is our reading in one sentence, not the law's text."""

    id: str
    asks: str
    supports: str
    """How the log supports it."""
    kinds: tuple[str, ...] = ()
    """Kinds of entries that are the evidence."""
    fields: tuple[str, ...] = ()
    """Fields of them that matter."""
    checks: tuple[Check, ...] = ()
    says: str = ""
    """What the checks look at, for the page."""
    open: str = ""
    """What stays undone here whatever the log holds; a gap, said so."""
    expected: bool = True
    """Whether a log without any of these entries has a gap: nothing need ever be erased or held."""
    only: Literal["", "biometric"] = ""
    """Applies only to remote biometric identification (Annex III, 1(a))."""


_ACTS = ("model.call.intent", "model.call.outcome", "tool.call.intent", "tool.call.outcome")
_BIOMETRIC = "Only for remote biometric identification (Annex III, 1(a)). "

CLAUSES: Final[tuple[Clause, ...]] = (
    Clause(
        "12(1)", "The system technically allows events to be recorded automatically over its lifetime.",
        "Model calls, messages, votes and gates are recorded by broker, router and conductor, not by the agent, before and after "
        "each effect and without being asked, from the tenant's first day (log.opened) to its last (log.closed). Heartbeats tell silence from absence.",
        ("log.opened", "heartbeat", "log.key.rotated", "log.degraded", "log.frozen", "log.closed", *_ACTS), ("seq", "prev", "ce.recordedtime"),
        ("sequence", "heartbeat", "keys"),
        "no gap in seq; no silence longer than the limit (15 minutes, of heartbeats every 5) while the log was open; the keys named in entry 0 and in "
        "each rotation",
        open="Tool calls are recorded by the agent's own process, before and after each: that is automatic, but it is the agent's word.",
    ),
    Clause(
        "12(2)(a)", "Events are recorded that help to identify situations of risk (Article 79(1)) or a substantial modification (Article 3(23)).",
        "Gate verdicts, probes and refusals are entries of their own. Each action carries the digest of the tenant document in force, and each change of "
        "that document is an entry.",
        ("config.changed", "identity.bound", "gate.probe", "gate.check", "gate.review", "gate.verdict", "bus.refused"), ("config", "data.verdict", "data.shapes"),
        ("configuration", "refusals"), "every action carries a config digest, and that digest was introduced by a config.changed entry before it",
        open="The log holds digests of models, prompts and tools through the tenant document; whether a change is substantial is for people to judge.",
    ),
    Clause(
        "12(2)(b)", "Events are recorded that make post-market monitoring (Article 72) easier.",
        "Outcomes of model and tool calls with model, tokens, cost, attempts and refusals; votes, dissent and verdicts.",
        ("model.call.outcome", "tool.call.outcome", "task.result", "council.decision", "gate.verdict", "session.end"),
        ("gen_ai.response.model", "gen_ai.usage.*", "folkmoot.outcome", "folkmoot.reason"), ("outcomes",),
        "each call that was announced has an outcome", open="There are no evaluation scores and no rate of human overrides yet.",
    ),
    Clause(
        "12(2)(c)", "Events are recorded that let the deployer monitor operation (Article 26(5)).",
        "Start and end of each session, who acted in it, plans, votes, verdicts, cancellations; found by period with `folkmoot ledger search`.",
        ("session.start", "session.end", "session.cancelled", "task.sent", "task.result", "council.plan", "council.vote", "council.decision"),
        ("ce.subject", "actor", "ce.time"), ("sessions",), "each session that started also ended, by id",
    ),
    Clause(
        "12(3)(a)", _BIOMETRIC + "Start and end date and time of each use.", "Each session's start and end, with its times.",
        ("session.start", "session.end"), ("ce.subject", "ce.time", "ce.recordedtime"), ("sessions",), "each session that started also ended, by id",
        only="biometric",
    ),
    Clause(
        "12(3)(b)", _BIOMETRIC + "The reference database against which input data was checked.",
        "A tool call names its tool; its arguments are committed to.", ("tool.call.intent",), ("gen_ai.tool.name", "payload.commit"), ("commitments",),
        "tool calls carry a commitment to their arguments",
        open="There is no field for a reference database and its version: a tool of the tenant's must put them into its arguments.", only="biometric",
    ),
    Clause(
        "12(3)(c)", _BIOMETRIC + "The input data for which the search led to a match.",
        "Content is sealed outside the log; the entry holds a salted commitment that the content opens.", _ACTS, ("payload.commit", "payload.size"), ("commitments",),
        "calls carry commitments; `folkmoot verify` holds the openings against them", only="biometric",
    ),
    Clause(
        "12(3)(d)", _BIOMETRIC + "The natural persons who verified the results (Article 14(5): at least two).",
        "Nothing yet: people do not decide through this version.", (), (), ("by-people",), "entries of decisions by people", only="biometric",
    ),
    Clause(
        "13(3)(f)", "The instructions describe how logs are collected, stored and interpreted.",
        "docs/ledger.md for the formats, README.txt in each export, this map, and verifiers that are not ours.", ("log.opened",), (), ("none",), "nothing: it is about documents",
    ),
    Clause(
        "14", "People can oversee the system, and stop it.", "Cancelled sessions and refusals of the gate are on record.",
        ("session.cancelled", "gate.verdict"), ("actor",), ("by-people",), "entries of decisions by people",
    ),
    Clause(
        "18", "The provider keeps the technical documentation for ten years. That is documentation, not logs.",
        "The log names its keys; who keeps exports keeps keys, policy and timestamps with them.", ("log.opened", "log.key.rotated"), ("data.vkey",), ("keys",),
        "the keys named in entry 0 and in each rotation", open="Keeping documents for ten years is outside this software.",
    ),
    Clause(
        "19(1)", "The provider keeps the logs, as far as they are under its control, for an appropriate period of at least six months, unless other law, "
        "data protection above all, says otherwise.",
        "Retention is a setting of the tenant; less than 184 days is refused. What is pruned is named by an entry first, and every proof still checks.",
        ("retention.pruned", "legal.hold", "legal.hold.released", "erasure"), ("data.minimum",), ("retention",),
        "the retention setting, where it is given, against 184 days; what was pruned, and on what entry's word",
        open="Financial institutions keep the logs in their own documentation (Article 19(2)): export them.",
        expected=False,
    ),
    Clause(
        "20, 21(2)", "Corrective action; authorities get access to the logs on reasoned request.",
        "`folkmoot ledger export` writes one directory that verifies without us; who read and who took a copy is on record.",
        ("evidence.exported", "evidence.read"), ("data.reader",), ("reads",), "reads and exports that are on record",
        expected=False,
    ),
    Clause(
        "26(5)", "The deployer monitors, suspends on risk, and informs provider and authority of serious incidents.",
        "Cancelled sessions, refusals, frozen logs and changes of configuration, suspensions among them, with their times.",
        ("session.cancelled", "gate.verdict", "config.changed", "log.frozen"), ("ce.time",), ("refusals",), "refusals and cancellations",
        open="There are no entries for incidents and notices yet: when somebody was informed is not on record.",
    ),
    Clause(
        "26(6)", "The deployer keeps the logs, as far as they are under its control, for at least six months, unless other law says otherwise.",
        "As for 19(1).", ("retention.pruned", "legal.hold", "legal.hold.released"), ("data.minimum",), ("retention",), "as for 19(1)",
        expected=False,
    ),
    Clause(
        "72", "Post-market monitoring collects and reviews data over the system's lifetime.",
        "The same outcomes as 12(2)(b), exported with `folkmoot ledger export --format ocsf`.", ("model.call.outcome", "tool.call.outcome", "gate.verdict"),
        ("gen_ai.response.model",), ("outcomes",), "each call that was announced has an outcome", open="The plan for monitoring is a document of the provider's.",
    ),
    Clause(
        "73", "Serious incidents are reported within 15, 10 or 2 days; the system is not altered before in a way that affects later evaluation (73(6)).",
        "A legal hold stops pruning and erasure, and is an entry; the log shows what was changed and when, with timestamps by a third party where they are configured.",
        ("legal.hold", "legal.hold.released", "config.changed", "anchor"), ("ce.time",), ("holds", "anchors"), "holds, their release, and how often the log was timestamped",
        open="There are no entries for incidents yet: the clock of 73 runs outside this log.",
        expected=False,
    ),
)  # fmt: skip
