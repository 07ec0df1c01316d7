"""Content held against the salted commitments that entries carry. Part of `folkmoot verify`.

An opening is a line of JSON, {"commit", "salt", …}, with the content's place. What cannot be parsed is a finding; content that is
not there is said, with the entry that erased it where there is one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folkmoot_cli.sources import Read, read_file
from folkmoot_core.canonical import commit, sha256_hex
from folkmoot_core.errors import FolkmootError, Invalid
from folkmoot_core.ledger.findings import Check, Report

INSIDE = "artifacts/openings.jsonl"
ERASED = "artifacts/erased.jsonl"
MAX_SHOWN = 5
MAX_LINE = 4096
Opening = dict[str, Any]
Content = Callable[[Opening], bytes | None]


@dataclass(frozen=True)
class Openings:
    """One file of them, parsed: a line that is no opening is a sentence about it."""

    name: str
    lines: list[Opening | str]
    content: Content

    def wanted(self) -> set[str]:
        """The commitments to look for in the log."""
        return {line["commit"] for line in self.lines if isinstance(line, dict)}


def inside(read: Read) -> list[Openings]:
    """Those that the export carries."""
    data = read(INSIDE)
    return [] if data is None else [Openings(INSIDE, _parse(data), lambda o: read(f"artifacts/{_hex(o, 'digest')}"))]


def erased(read: Read) -> Openings | None:
    """Commitments that have no content any more, as the export lists them."""
    data = read(ERASED)
    return None if data is None else Openings(ERASED, _parse(data), lambda o: None)


def beside(path: Path) -> Openings:
    """Further ones, whose content is named by paths from their own folder, and not out of it."""
    folder = path.parent.resolve()

    def content(opening: Opening) -> bytes | None:
        file = (folder / str(opening.get("path", ""))).resolve()
        if not file.is_relative_to(folder):
            raise Invalid(f"path {str(opening.get('path'))[:100]!r} leads out of {folder}")
        return read_file(file) if file.is_file() else None

    return Openings(str(path), _parse(read_file(path)), content)


def check(report: Report, openings: Openings) -> None:
    """Each opening's content must give the commitment that an entry carries."""
    found = report.check("openings", f"content opens the salted commitments of entries ({openings.name})")
    opened = absent = foreign = 0
    for number, line in enumerate(openings.lines, 1):
        if isinstance(line, str):
            found.find(f"line {number}: {line}")
            continue
        try:
            content = openings.content(line)
        except FolkmootError as error:
            found.find(f"line {number}: {error.message}")
            continue
        committed = line["commit"]
        if content is None:
            absent += 1
        elif _opens(found, number, line, content):
            opened += committed in report.opened
            foreign += committed not in report.opened
    _say(report, openings, opened, absent, foreign)


def check_erased(report: Report, erased: Openings) -> None:
    """Content that is gone: its entry must still be there with the commitment, and the erasure must be an entry."""
    found = report.check("erased", f"each erasure of content is on record, and the entry it concerns is intact ({erased.name})")
    for number, line in enumerate(erased.lines, 1):
        if isinstance(line, str):
            found.find(f"line {number}: {line}")
            continue
        entry, erasure = line.get("entry"), line.get("erasure")
        if report.opened.get(line["commit"]) is None:
            found.find(f"line {number}: no entry up to this checkpoint carries the commitment {line['commit']}")
        elif erasure not in report.erasures:
            found.find(f"line {number}: entry {str(erasure)[:20]} is no erasure")
        else:
            report.erased += 1
            if report.erased <= MAX_SHOWN:
                at = entry if isinstance(entry, int) else report.opened[line["commit"]]
                report.notes.append(f"entry {at} intact, payload erased under entry #{erasure}")
    if report.erased > MAX_SHOWN:
        report.notes.append(f"and {report.erased - MAX_SHOWN} more payloads erased")


def _say(report: Report, openings: Openings, opened: int, absent: int, foreign: int) -> None:
    report.notes.append(f"{openings.name}: {opened} commitments opened")
    if absent:
        report.notes.append(f"{openings.name}: {absent} openings have no content here")
    if foreign:
        report.notes.append(f"{openings.name}: {foreign} openings belong to no entry up to this checkpoint")


def _opens(found: Check, number: int, opening: Opening, content: bytes) -> bool:
    digest = opening.get("digest")
    try:
        if digest is not None and _hex(opening, "digest") != sha256_hex(content):
            raise Invalid(f"the content's SHA-256 is not {digest}")
        made = commit(_salt(opening), content)
        if made != opening["commit"]:
            raise Invalid(f"content and salt give {made}, the opening says {opening['commit']}")
    except Invalid as error:
        found.find(f"line {number}: {error.message}")
        return False
    return True


def _salt(opening: Opening) -> bytes:
    try:
        salt = bytes.fromhex(str(opening.get("salt")))
    except ValueError as error:
        raise Invalid("the salt is not 32 bytes in hex") from error
    if len(salt) != 32:
        raise Invalid("the salt is not 32 bytes in hex")
    return salt


def _parse(data: bytes) -> list[Opening | str]:
    lines: list[Opening | str] = []
    for line in data.splitlines():
        try:
            lines.append(_opening(line))
        except Invalid as error:
            lines.append(error.message)
    return lines


def _opening(line: bytes) -> Opening:
    if len(line) > MAX_LINE:
        raise Invalid(f"longer than {MAX_LINE} bytes")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Invalid("not JSON") from error
    if not isinstance(value, dict):
        raise Invalid("not an object")
    return {**value, "commit": _hex(value, "commit")}


def _hex(opening: Opening, field: str) -> str:
    text = str(opening.get(field, "")).removeprefix("sha256:")
    if len(text) != 64 or any(c not in "0123456789abcdef" for c in text):
        raise Invalid(f"{field}: expected 64 lowercase hex digits")
    return text
