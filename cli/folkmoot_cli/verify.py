"""`folkmoot verify SOURCE`: check a log directory, an exported tar or a URL, and say in plain words what holds.

No cluster is asked and nothing of the log is believed: `folkmoot_core.ledger.audit` recomputes everything; this module finds
the files, holds openings against commitments, and prints.
"""

from __future__ import annotations

import argparse
import json
import ssl
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from folkmoot_core.canonical import commit, sha256_hex
from folkmoot_core.errors import FolkmootError, Invalid, LimitReached, Missing, Unauthorized, Unavailable
from folkmoot_core.ledger.audit import Check, Read, Report, verify_log
from folkmoot_core.ledger.note import parse_vkey

FORMATS = ("table", "json")
OPENINGS = "artifacts/openings.jsonl"
MAX_FILE = 64 * 1024 * 1024  # bytes; a bundle has at most 17 MB, an artefact 10 MiB
MAX_LINE = 4096
TIMEOUT = 30.0  # seconds that one file of a URL may take


def add_parser(subparsers: Any, summary: str = "check a log directory, an exported bundle or a URL") -> None:
    """`verify`."""
    parser = subparsers.add_parser(
        "verify", help=summary, description=summary, epilog="Exit code 0: every check holds. 1: one does not. 3: nothing to check.",
    )  # fmt: skip
    parser.add_argument("source", help="directory, tar (as `session evidence` writes it) or https:// prefix of the log")
    parser.add_argument("--key", help="the log's vkey, or a file with it; without it the log's own is used, which proves less")
    parser.add_argument("--origin", help="the log's origin, where it is not the key's name")
    parser.add_argument(
        "--open", dest="openings", help='further openings: lines of {"commit", "salt", "path"}; paths from its folder'
    )
    parser.add_argument("--token-file", help="bearer token for a URL")
    parser.add_argument("--ca-file", help="certificate authority for a URL")
    parser.add_argument("-o", "--output", choices=FORMATS, default="table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when every check holds, else 1."""
    with open_source(args.source, args.token_file, args.ca_file) as read:
        report = verify(read, key_text(args.key), args.origin, Path(args.openings) if args.openings else None)
    sys.stdout.write(json.dumps(report.as_json(), indent=2) + "\n" if args.output == "json" else render(report))
    return 0 if report.ok else 1


def verify(read: Read, vkey: str | None = None, origin: str | None = None, openings: Path | None = None) -> Report:
    """Check a log through a reader of its paths, with the openings in it and those of a further file."""
    report = verify_log(read, vkey, origin)
    inside = read(OPENINGS)
    if inside is not None:
        _check_openings(report, inside, OPENINGS, lambda opening: read(f"artifacts/{_hex(opening, 'digest')}"))
    if openings is not None:
        _check_openings(report, _file(openings), str(openings), lambda opening: _beside(openings, opening))
    return report


def render(report: Report) -> str:
    """For people."""
    point = report.checkpoint
    lines = [f"{'VERIFIED' if report.ok else 'NOT VERIFIED'}  {point.origin if point else report.key.name}"]
    if point is not None:
        lines += [f"  {point.size} entries of tenant {report.tenant or '(unnamed)'}, {report.first} to {report.last}"]
        lines += [f"  root {point.root.hex()}"]
    lines += [f"  key  {report.key.vkey()}", ""]
    for check in report.checks:
        lines.append(f"  {'ok  ' if check.ok else 'FAIL'}  {check.name:<11} {check.says}")
        lines += [f"        {finding}" for finding in check.findings]
        if check.total > len(check.findings):
            lines.append(f"        and {check.total - len(check.findings)} more")
    lines += ["", *(f"  {count:>8}  {kind}" for kind, count in sorted(report.types.items()))]
    if not report.key_given:
        lines += ["", "  The key was taken from the log itself: this shows that the log is whole, not whose it is. Compare the key",
                  "  with one you got another way, or give it with --key."]  # fmt: skip
    return "\n".join([*lines, *(f"  {note}" for note in report.notes)]) + "\n"


def key_text(given: str | None) -> str | None:
    """A vkey given as text or as a file."""
    if given is None or _is_vkey(given):
        return given
    return _file(Path(given)).decode(errors="replace").strip()


def _is_vkey(text: str) -> bool:
    try:
        parse_vkey(text)
    except Invalid:
        return False
    return True


# -- openings -----------------------------------------------------------------------------------------------------------


def _check_openings(report: Report, lines: bytes, name: str, content_of: Callable[[dict[str, Any]], bytes | None]) -> None:
    """Each opening's content must give the commitment that an entry carries."""
    check = report.check("openings", f"content opens the salted commitments of entries ({name})")
    opened = absent = foreign = 0
    for number, line in enumerate(lines.splitlines(), 1):
        try:
            opening = _parse(line)
            committed = _hex(opening, "commit")
            content = content_of(opening)
        except FolkmootError as error:
            check.find(f"line {number}: {error.message}")
            continue
        if content is None:
            absent += 1
        elif _opens(check, number, opening, committed, content):
            opened += committed in report.commitments
            foreign += committed not in report.commitments
    report.notes.append(f"{name}: {opened} commitments opened")
    if absent:
        report.notes.append(f"{name}: {absent} openings have no content here")
    if foreign:
        report.notes.append(f"{name}: {foreign} openings belong to no entry up to this checkpoint")


def _opens(check: Check, number: int, opening: dict[str, Any], committed: str, content: bytes) -> bool:
    digest = opening.get("digest")
    if digest is not None and _hex(opening, "digest") != sha256_hex(content):
        check.find(f"line {number}: the content's SHA-256 is not {digest}")
        return False
    try:
        found = commit(bytes.fromhex(str(opening.get("salt"))), content)
    except (ValueError, Invalid):
        check.find(f"line {number}: the salt is not 32 bytes in hex")
        return False
    if found != committed:
        check.find(f"line {number}: content and salt give {found}, the opening says {committed}")
        return False
    return True


def _parse(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise Invalid(f"longer than {MAX_LINE} bytes")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Invalid("not JSON") from error
    if not isinstance(value, dict):
        raise Invalid("not an object")
    return value


def _hex(opening: dict[str, Any], field: str) -> str:
    text = str(opening.get(field, "")).removeprefix("sha256:")
    if len(text) != 64 or any(c not in "0123456789abcdef" for c in text):
        raise Invalid(f"{field}: expected 64 lowercase hex digits")
    return text


def _beside(openings: Path, opening: dict[str, Any]) -> bytes | None:
    """Content named by a path from the openings' own folder, and not out of it."""
    folder = openings.parent.resolve()
    path = (folder / str(opening.get("path", ""))).resolve()
    if not path.is_relative_to(folder):
        raise Invalid(f"path {str(opening.get('path'))[:100]!r} leads out of {folder}")
    return _file(path) if path.is_file() else None


# -- sources ------------------------------------------------------------------------------------------------------------


def open_source(source: str, token_file: str | None = None, ca_file: str | None = None) -> AbstractContextManager[Read]:
    """A reader of the log's files."""
    if urlsplit(source).scheme in ("http", "https"):
        return _url(source, token_file, ca_file)
    path = Path(source)
    if path.is_dir():
        return _directory(path)
    if path.is_file():
        return _tar(path)
    raise Missing(f"{source}: no such directory or file; expected an exported log, a tar of one, or its https:// prefix")


@contextmanager
def _directory(directory: Path) -> Iterator[Read]:
    def read(path: str) -> bytes | None:
        file = directory / path
        return _file(file) if file.is_file() else None

    yield read


@contextmanager
def _tar(path: Path) -> Iterator[Read]:
    """Plain tar only: what is compressed can grow without bound while it is searched."""
    try:
        with tarfile.open(path, "r:") as archive:
            members = {member.name.removeprefix("./"): member for member in archive if member.isfile()}

            def read(name: str) -> bytes | None:
                member = members.get(name)
                opened = archive.extractfile(member) if member is not None else None
                return _bounded(opened.read(MAX_FILE + 1), name) if opened is not None else None

            yield read
    except (tarfile.TarError, EOFError) as error:
        raise Invalid(f"{path}: not a tar file that can be read: {error}") from error


@contextmanager
def _url(source: str, token_file: str | None, ca_file: str | None) -> Iterator[Read]:
    parts = urlsplit(source)
    headers = {}
    if token_file is not None:
        if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise Invalid(f"{source}: a token is sent over https only")
        headers["Authorization"] = f"Bearer {_file(Path(token_file)).decode(errors='replace').strip()}"
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"{ca_file}: no certificate authority can be read from it") from error
    with httpx2.Client(base_url=source.rstrip("/") + "/", headers=headers, verify=context, timeout=TIMEOUT) as client:
        yield lambda path: _get(client, path)


def _get(client: httpx2.Client, path: str) -> bytes | None:
    try:
        with client.stream("GET", path) as answer:
            if answer.status_code == httpx2.codes.NOT_FOUND:
                return None
            if answer.status_code in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
                raise Unauthorized(f"{answer.url}: {answer.status_code}; give a token with --token-file (folkmoot-auditor's)")
            if answer.status_code != httpx2.codes.OK:
                raise Unavailable(f"{answer.url} answered {answer.status_code}")
            data = bytearray()
            for chunk in answer.iter_bytes():
                data += chunk
                _check_size(len(data), path)
            return bytes(data)
    except httpx2.HTTPError as error:
        raise Unavailable(f"{client.base_url}{path}: {type(error).__name__}") from error


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _bounded(file.read(MAX_FILE + 1), str(path))
    except OSError as error:
        raise Missing(f"{path}: {error.strerror}") from error


def _bounded(data: bytes, name: str) -> bytes:
    _check_size(len(data), name)
    return data


def _check_size(size: int, name: str) -> None:
    if size > MAX_FILE:
        raise LimitReached(f"{name} is larger than {MAX_FILE} bytes")
