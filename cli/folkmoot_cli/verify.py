"""`folkmoot verify SOURCE`: check a log directory, an exported tar, a URL or a `.tlog-proof`, and say in plain words what holds.

No cluster is asked and nothing of the log is believed: `folkmoot_core.ledger.audit` recomputes everything; this module takes the
arguments, brings files, keys, openings and the reader's memory together, and prints.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from folkmoot_cli import openings as opening
from folkmoot_cli import proofs, state, workers
from folkmoot_cli.openings import Openings
from folkmoot_cli.sources import Read, open_source, read_file
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import anchored
from folkmoot_core.ledger.audit import Seen, Trust, Verified, verify_log
from folkmoot_core.ledger.findings import Report
from folkmoot_core.ledger.note import parse_vkey
from folkmoot_core.ledger.policy import Policy
from folkmoot_core.ledger.policy import parse as parse_policy

__all__ = ["add_parser", "key_text", "open_source", "render", "verify", "verify_source"]
FORMATS = ("table", "json")


def add_parser(subparsers: Any, summary: str = "check a log directory, an exported bundle or a URL") -> None:
    """`verify`."""
    parser = subparsers.add_parser(
        "verify", help=summary, description=summary, epilog="Exit code 0: every check holds. 1: one does not. 3: nothing to check.",
    )  # fmt: skip
    parser.add_argument(
        "source", help="directory, tar (as `session evidence` writes it), https:// prefix of the log, or a .tlog-proof"
    )
    add_trust(parser)
    parser.add_argument("--state", help="remembers what was verified here, and demands that the log only grew since")
    parser.add_argument(
        "--open", dest="openings", help='further openings: lines of {"commit", "salt", "path"}; paths from its folder'
    )
    parser.add_argument("--entry", help="with a .tlog-proof: file with the entry's bytes, where the proof does not carry them")
    parser.add_argument("-o", "--output", choices=FORMATS, default="table")
    parser.set_defaults(run=run)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """What the reader believes from elsewhere than the log, and how a URL is reached."""
    trust = parser.add_argument_group("what to believe, and how to reach a URL")
    trust.add_argument("--key", help="the log's vkey, or a file with it; without it the log's own is used, which proves less")
    trust.add_argument("--policy", help="tlog-policy file: the log's keys and the witnesses that must have cosigned")
    trust.add_argument("--origin", help="the log's origin, where it is not the key's name")
    trust.add_argument(
        "--tsa-ca", action="append", default=[], metavar="[NAME=]FILE",
        help="PEM certificates of a timestamp authority, its own first, the root last; without it those beside the log are used",
    )  # fmt: skip
    trust.add_argument("--token-file", help="bearer token for a URL")
    trust.add_argument("--ca-file", help="certificate authority for a URL")


def run(args: argparse.Namespace) -> int:
    """0 when every check holds, else 1."""
    if proofs.is_proof(args.source):
        return proofs.run(args, trust_of(args))
    remembered = state.load(Path(args.state)) if args.state else None
    further = [opening.beside(Path(args.openings))] if args.openings else []
    report = verify_source(
        args.source, trust_of(args, remembered), (args.token_file, args.ca_file),
        further=further, pinned=pinned_of(args.tsa_ca), progress=Progress("verifying"),
    )  # fmt: skip
    if args.state:
        state.save(Path(args.state), report)
    sys.stdout.write(json.dumps(report.as_json(), indent=2) + "\n" if args.output == "json" else render(report))
    return 0 if report.ok else 1


def trust_of(args: argparse.Namespace, seen: Seen | None = None) -> Trust:
    """From the arguments of `add_trust`."""
    return Trust(key_text(args.key), args.origin, policy_of(args.policy), seen)


def verify_source(source: str, trust: Trust, reached: tuple[str | None, str | None] = (None, None), **more: Any) -> Report:
    """Check a directory, a tar or a URL (`reached` by which token and authority), a long local one in several processes; `more` goes
    to `checked`. The whole of `folkmoot verify` but its memory and its words, and what its speed is measured by."""
    with open_source(source, *reached) as read:
        return checked(read, trust, run=workers.runner(source), **more).report


def verify(read: Read, vkey: str | None = None, origin: str | None = None, openings: Path | None = None) -> Report:
    """Check a log through a reader of its paths, with the openings in it and those of a further file."""
    return checked(read, Trust(vkey, origin), [opening.beside(openings)] if openings is not None else []).report


def checked(
    read: Read, trust: Trust, further: Sequence[Openings] = (), pinned: Mapping[str, str] | None = None, **how: Any
) -> Verified:  # fmt: skip
    """The same, for whoever also needs the tree. `pinned` are authorities' certificates; `how` goes to `verify_log`."""
    files = [*opening.inside(read), *further]
    gone = opening.erased(read)
    wanted = {commitment for one in [*files, *([gone] if gone else [])] for commitment in one.wanted()}
    found = verify_log(read, trust, wanted=wanted, **how)
    if found.report.checkpoint is not None:
        anchored.check_anchors(found, read, pinned or {})
        for one in files:
            opening.check(found.report, one)
        if gone is not None:
            opening.check_erased(found.report, gone)
    return found


def render(report: Report) -> str:
    """For people."""
    point = report.checkpoint
    lines = [f"{'VERIFIED' if report.ok else 'NOT VERIFIED'}  {point.origin if point else report.key.name}"]
    if point is not None:
        lines += [f"  {point.size} entries of tenant {report.tenant or '(unnamed)'}, {report.first} to {report.last}"]
        lines += [f"  root {point.root.hex()}"]
    lines += [f"  key  {report.key.vkey()}", *(f"  by   {signer}" for signer in report.signers), ""]
    for check in report.checks:
        lines.append(f"  {'ok  ' if check.ok else 'FAIL'}  {check.name:<11} {check.says}")
        lines += [f"        {finding}" for finding in check.findings]
        if check.total > len(check.findings):
            lines.append(f"        and {check.total - len(check.findings)} more")
    lines += ["", *(f"  {count:>8}  {kind}" for kind, count in sorted(report.types.items()))]
    if not report.key_given:
        lines += ["", "  The key was taken from the log itself: this shows that the log is whole, not whose it is. Compare the key",
                  "  with one you got another way, or give it with --key."]  # fmt: skip
    return "".join(f"{plain(line)}\n" for line in [*lines, *(f"  {note}" for note in report.notes)])


def plain(said: str) -> str:
    """A line for a terminal: what a log or a server says of itself moves no cursor and begins no line."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in said)


def key_text(given: str | None) -> str | None:
    """A vkey given as text or as a file."""
    if given is None or _is_vkey(given):
        return given
    return read_file(Path(given)).decode(errors="replace").strip()


def policy_of(given: str | None) -> Policy | None:
    """A policy file that the reader trusts."""
    if given is None:
        return None
    try:
        return parse_policy(read_file(Path(given)).decode(errors="replace"))
    except Invalid as error:
        raise Invalid(f"{given}: {error.message}") from error


def pinned_of(given: Sequence[str]) -> dict[str, str]:
    """Certificates by authority; '' where no name was said."""
    made = {}
    for one in given:
        name, mark, path = one.rpartition("=")
        made[name if mark else ""] = read_file(Path(path)).decode("ascii", "replace")
    return made


def _is_vkey(text: str) -> bool:
    try:
        parse_vkey(text)
    except Invalid:
        return False
    return True


class Progress:
    """Says how far long work is, on standard error, where that is a terminal."""

    def __init__(self, what: str, every: int = 100_000) -> None:
        self._what = what
        self._every = every
        self._next = every
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        if done >= self._next and sys.stderr.isatty():
            sys.stderr.write(f"\r{self._what}: {done} of {total} entries ")
            sys.stderr.flush()
            self._shown, self._next = True, done + self._every
        if self._shown and done >= total:
            sys.stderr.write("\n")
            self._shown = False
