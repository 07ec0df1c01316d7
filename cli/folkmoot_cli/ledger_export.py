"""`folkmoot ledger export`: a directory for an auditor, or the entries as OCSF events to a file, standard output or OTLP.

The directory is made from the tenant's evidence (`session evidence`), or from `--source`, is verified after it was written, and has a
page that names three commands, none of them ours. Nothing in a source decides where a file is written: paths are made here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import httpx2

from folkmoot_cli import door, ledger, verify
from folkmoot_cli.ledger_read import Follow
from folkmoot_cli.logfiles import Found, LogFiles
from folkmoot_cli.openings import ERASED, INSIDE
from folkmoot_cli.otlp import Otlp
from folkmoot_cli.sources import Read, open_source, read_file
from folkmoot_core.errors import Invalid, Missing
from folkmoot_core.ledger import anchor, export, ocsf, tiles
from folkmoot_core.ledger.audit import Verified
from folkmoot_core.ledger.findings import Report

SUMS = "SHA256SUMS"


def run(args: argparse.Namespace) -> int:
    """0 when it is written and verifies."""
    if args.format == "ocsf":
        return _events(args)
    if args.otlp or args.follow:
        raise Invalid("--otlp and --follow go with --format ocsf")
    if not args.target:
        raise Invalid("say which directory to make: folkmoot ledger export DIRECTORY")
    target = Path(args.target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Invalid(f"{target} is there already and is not an empty directory")
    with _evidence(args) as read:
        found = verify.checked(
            read, verify.trust_of(args), pinned=verify.pinned_of(args.tsa_ca), progress=verify.Progress("verifying")
        )
        written = _directory(read, found, target)
    with open_source(str(target)) as read:
        report = verify.checked(read, verify.trust_of(args), progress=verify.Progress("verifying the copy")).report
    _said(args, report, target, written)
    return 0 if report.ok else 1


@contextmanager
def _evidence(args: argparse.Namespace) -> Iterator[Read]:
    """The source, or a fresh copy of the tenant's evidence, content and openings with it; that is on record in the log."""
    if args.source:
        with open_source(args.source, args.token_file, args.ca_file) as read:
            yield read
        return
    kubectl, namespace = ledger.place_of(args)
    with tempfile.TemporaryDirectory(prefix="folkmoot-export-") as scratch:
        tar = Path(scratch) / "evidence.tar"
        with door.through_kubectl(kubectl, namespace, door.AUDITORS) as conductor:
            conductor.evidence(tar)
        with open_source(str(tar)) as read:
            yield read


def _directory(read: Read, found: Verified, target: Path) -> int:
    """Copy what belongs to a log. Returns how many files."""
    point = found.report.checkpoint
    if point is None:
        raise Invalid(f"checkpoint: {found.report.checks[0].findings[0]}")
    if len(found.rows) < point.size:  # a checkpoint may promise more files than anybody could look for
        raise Invalid(
            f"the source has the first {len(found.rows)} of {point.size} entries: what is not whole is not copied; folkmoot verify says more"
        )
    sums: list[str] = []

    def write(path: str, data: bytes) -> None:
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        sums.append(f"{hashlib.sha256(data).hexdigest()}  {path}\n")

    try:
        stamps = export.stamps_of((entry.facts for _, entry in found.anchors), read(anchor.CLOSING))
        anchored = sorted({path for stamp in stamps for path in stamp.paths()})
        there = set()
        for path in [*export.BESIDE, anchor.CLOSING, *anchored, *_artifacts(read), *tiles.paths_of(point.size)]:
            # The one that was verified: a log that is being written may have another by now, which promises more than is copied.
            data = found.report.signed if path == tiles.CHECKPOINT else read(path)
            if data is not None:
                there.add(path)
                write(path, data)
            elif path == tiles.VKEY:
                raise Missing(f"the source has no {path}")
        write(tiles.README, export.readme(stamp for stamp in stamps if there.issuperset(stamp.paths())).encode())
        (target / SUMS).write_text("".join(sorted(sums, key=lambda one: one[66:])))
    except OSError as error:
        raise Invalid(f"cannot write below {target}: {error.strerror or error}") from error
    return len(sums)


def _artifacts(read: Read) -> list[str]:
    """The content that the openings name, by digest."""
    found: list[str] = []
    for name in (INSIDE, ERASED):
        data = read(name)
        if data is None:
            continue
        found.append(name)
        for line in data.splitlines():
            digest = _digest(line)
            if digest and (path := f"artifacts/{digest}") not in found:
                found.append(path)
    return list(dict.fromkeys(found))


def _digest(line: bytes) -> str:
    try:
        value = json.loads(line).get("digest", "").removeprefix("sha256:")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return value if len(value) == 64 and not set(value) - set("0123456789abcdef") else ""


def _said(args: argparse.Namespace, report: Report, target: Path, written: int) -> None:
    if args.output == "json":
        sys.stdout.write(json.dumps({"directory": str(target), "files": written, **report.as_json()}, indent=2) + "\n")
    else:
        state = "verified" if report.ok else "NOT VERIFIED: see folkmoot verify"
        sys.stdout.write(f"{target}: {written} files, {state}; {target / tiles.README} says how to check it without us\n")


# -- events -------------------------------------------------------------------------------------------------------------


def _events(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        read = stack.enter_context(ledger.opened(args))
        log = LogFiles(read, verify.trust_of(args))
        sink = _sink(args, stack)
        count = _send(log, sink, args.first, verify.Progress("exporting"))
        if args.follow:
            for before in Follow(args.timeout).more(log):
                count += _send(log, sink, max(before, args.first))
    if args.otlp or args.target not in ("", "-"):
        sys.stderr.write(f"{count} events; go on with --first {log.point.size}\n")
    return 0


def _send(log: LogFiles, sink: Otlp | _Lines, first: int, progress: verify.Progress | None = None) -> int:
    count = 0
    for found in log.entries(first, log.point.size):
        made = event(found)
        if made is not None:
            sink.put(found.index, made)
            count += 1
        if progress is not None:
            progress(found.index + 1, log.point.size)
    sink.flush()
    return count


def event(found: Found) -> dict[str, Any] | None:
    """An entry's OCSF event; None for a leaf that is no entry."""
    return None if found.entry is None else ocsf.event(found.entry, found.leaf, found.raw)


class _Lines:
    """A JSON object per line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def put(self, index: int, event: dict[str, Any]) -> None:
        self._out.write(json.dumps(event, separators=(",", ":"), ensure_ascii=False) + "\n")

    def flush(self) -> None:
        self._out.flush()


def _sink(args: argparse.Namespace, stack: ExitStack) -> Otlp | _Lines:
    if args.otlp:
        if args.target:
            raise Invalid("events go to --otlp or to a file, not to both")
        client = stack.enter_context(httpx2.Client(headers=_headers(args.otlp_header), trust_env=False))
        return Otlp(args.otlp, client)
    if args.target in ("", "-"):
        return _Lines(sys.stdout)
    try:
        return _Lines(stack.enter_context(Path(args.target).open("a", encoding="utf-8")))
    except OSError as error:
        raise Invalid(f"cannot write {args.target}: {error.strerror}") from error


def _headers(given: list[str]) -> dict[str, str]:
    """Values come from files, so that no secret is on a command line."""
    made = {}
    for one in given:
        name, mark, path = one.partition("=")
        if not name or not mark:
            raise Invalid(f"--otlp-header {one[:40]!r}: expected NAME=FILE")
        made[name] = read_file(Path(path)).decode(errors="replace").strip()
    return made
