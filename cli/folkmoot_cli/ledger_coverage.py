"""`folkmoot ledger coverage`: the law map, held against a log. It verifies the log first: what does not verify is no evidence."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from folkmoot_cli import ledger, verify
from folkmoot_cli.output import table
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import law
from folkmoot_core.ledger.coverage import Answer, Coverage, Setting
from folkmoot_core.ledger.findings import Report


def run(args: argparse.Namespace) -> int:
    """0 when the log verifies, whatever gaps there are; 1 when it does not."""
    if args.map:
        sys.stdout.write(map_page())
        return 0
    wanted = {clause.id for clause in law.CLAUSES}
    if unknown := [one for one in args.clause if one not in wanted]:
        raise Invalid(f"no clause {unknown[0]!r}; there are {', '.join(sorted(wanted))}")
    local = bool(args.source) and Path(args.source).exists()
    # A live log may be silent up to now; an export is silent since it was made, which says nothing.
    until = None if local else datetime.now(UTC)
    collector = Coverage(Setting(args.retention_days, args.silence * 60.0, args.annex_iii_1a, until))
    with ledger.opened(args) as read:
        found = verify.checked(
            read,
            verify.trust_of(args),
            pinned=verify.pinned_of(args.tsa_ca),
            watch=collector.see,
            progress=verify.Progress("reading"),
        )
    report = found.report
    answers = [one for one in collector.answers(report) if not args.clause or one.clause.id in args.clause]
    if args.output == "json":
        whole = {"ok": report.ok, "origin": report.checkpoint.origin if report.checkpoint else "", "care": list(law.CARE),
                 "clauses": [one.as_json() for one in answers]}  # fmt: skip
        sys.stdout.write(json.dumps(whole, indent=2) + "\n")
    else:
        sys.stdout.write(page(report, answers))
    return 0 if report.ok else 1


def map_page() -> str:
    """The map itself as the page docs/article-12.md, which a test holds against this."""
    parts = [
        "# Article 12 of the AI Act, clause by clause\n\n"
        "What each clause about logs asks, what in a tenant's log supports it, what `folkmoot ledger coverage` checks, and what stays open. "
        "Made from `core/folkmoot_core/ledger/law.py` with `folkmoot ledger coverage --map`; the machine checks are in "
        "`core/folkmoot_core/ledger/coverage.py`, the fields in [ledger.md](ledger.md).\n\n## Read this first\n\n",
        *(f"- {said}\n" for said in law.CARE),
        "\n## The clauses\n",
    ]
    for clause in law.CLAUSES:
        parts.append(f"\n### {clause.id}\n\n| | |\n|---|---|\n| asks | {clause.asks} |\n| supports | {clause.supports} |\n")
        if clause.kinds:
            parts.append(f"| entries | {', '.join(f'`{kind}`' for kind in clause.kinds)} |\n")
        if clause.fields:
            parts.append(f"| fields | {', '.join(f'`{field}`' for field in clause.fields)} |\n")
        parts.append(f"| checked | {clause.says} |\n")
        if clause.open:
            parts.append(f"| open | {clause.open} |\n")
    parts.append(
        "\n## Against a log\n\n```sh\n"
        "folkmoot ledger coverage --tenant acme --retention-days 366   # a live log\n"
        "folkmoot ledger coverage --source evidence.tar -o json        # an export, for programs\n```\n\n"
        "The log is verified first. For each clause the answer is `supported` (entries are there and no check found a gap), `gap` (in words), "
        "or `not applicable`. The exit code says only whether the log verifies: a gap is for people to weigh. What is open whatever the log "
        "holds is a gap in every log.\n"
    )
    return "".join(parts)


def page(report: Report, answers: list[Answer]) -> str:
    """For people: a table, then each clause with a gap."""
    rows = [
        {"clause": one.clause.id, "status": one.status, "evidence": sum(spread.count for spread in one.evidence.values()),
         "range": _range(one), "gaps": len(one.gaps)}
        for one in answers
    ]  # fmt: skip
    columns = (("CLAUSE", "clause"), ("STATUS", "status"), ("ENTRIES", "evidence"), ("FIRST..LAST", "range"), ("GAPS", "gaps"))
    point = report.checkpoint
    head = f"Log {point.origin if point else report.key.name}, {point.size if point else 0} entries: "
    head += "verified" if report.ok else "DOES NOT VERIFY, so nothing below is evidence (see folkmoot verify)"
    parts = [f"{head}\n\n", table(rows, columns)]
    for one in answers:
        parts.append(f"\n{one.clause.id}  {one.clause.asks}\n")
        parts += [f"  found  {said}\n" for said in one.found]
        parts += [f"  gap    {said}\n" for said in one.gaps]
    parts += ["\n", *(f"{said}\n" for said in law.CARE)]
    return "".join(parts)


def _range(answer: Answer) -> str:
    if not answer.evidence:
        return ""
    return f"{min(s.first for s in answer.evidence.values())}..{max(s.last for s in answer.evidence.values())}"
