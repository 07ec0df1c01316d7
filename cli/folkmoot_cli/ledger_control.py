"""`folkmoot ledger status|rotate|anchor`: how the log stands, its keys and its timestamps, asked of the tenant's conductor.

Their parsers hang below `folkmoot ledger` (`ledger.py`). What is asked for is on record in the log, with who asked.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from folkmoot_cli.door import AUDITORS, OWNERS
from folkmoot_cli.privacy import action, opened
from folkmoot_cli.verify import FORMATS, plain
from folkmoot_core.document import LogReport


def add_parsers(actions: Any) -> None:
    """`status`, `rotate` and `anchor`."""
    status = action(actions, "status", _status, "say how the log stands: size, keys, witnesses, timestamps, and what is wrong")
    rotate = action(actions, "rotate", _rotate, "exchange the log's signing keys; the old ones sign for the new")
    anchor = action(actions, "anchor", _anchor, "have the log's newest checkpoint timestamped now")
    for parser in (status, rotate, anchor):
        parser.add_argument("-o", "--output", choices=FORMATS, default="table")


def _status(args: argparse.Namespace) -> int:
    with opened(args, AUDITORS) as door:
        return _show(args, door.log())


def _rotate(args: argparse.Namespace) -> int:
    with opened(args, OWNERS) as door:
        report = door.rotate()
    if args.output == "table":
        sys.stdout.write(
            "the log's keys are exchanged. Who kept the old key goes on with it: folkmoot verify follows the change\n"
        )
    return _show(args, report)


def _anchor(args: argparse.Namespace) -> int:
    with opened(args, AUDITORS) as door:
        return _show(args, door.anchor())


def _show(args: argparse.Namespace, report: LogReport) -> int:
    sys.stdout.write(json.dumps(report.model_dump(mode="json"), indent=2) + "\n" if args.output == "json" else page(report))
    return 0 if report.state != "Frozen" else 1


def page(report: LogReport) -> str:
    """For people."""
    lines = [
        ("log", report.origin),
        ("state", report.state + (f", {report.reason}: {report.message}" if report.reason else "")),
        ("entries", f"{report.entries} durable, {report.size} under the published checkpoint"),
        ("root", report.root or "no checkpoint is published yet"),
        *(("key", vkey) for vkey in report.vkeys),
        ("witnessed", ", ".join(report.witnessed) or "by nobody"),
        ("timestamp", f"{report.anchored} over the first {report.anchored_size} entries" if report.anchored else "none"),
    ]
    return "".join(f"{name:<10}  {plain(said)}\n" for name, said in lines)
