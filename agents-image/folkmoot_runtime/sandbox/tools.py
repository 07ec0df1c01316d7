"""What each file tool does in a workspace. Text in, text out; wrong use is an answer for the model, not an exception.

`bash` and `grep` run as commands (processes.py). Limits follow managed-agents.md §2.2.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, Final

from folkmoot_core.errors import FolkmootError, Invalid
from folkmoot_core.tools import MAX_READ_LINES
from folkmoot_runtime.sandbox.workspace import IGNORED, Workspace

MAX_TEXT_FILE: Final = 256 * 1024  # bytes of a file that read, edit and grep look at
MAX_ANSWER: Final = 100 * 1024  # characters
MAX_LINE: Final = 2_000
MAX_MATCHES: Final = 200


def run(workspace: Workspace, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
    """(text, error) of one file tool."""
    try:
        return _TOOLS[name](workspace, **arguments)[:MAX_ANSWER], False
    except FolkmootError as error:
        return error.message, True


def _read(workspace: Workspace, path: str, offset: int = 1, limit: int = MAX_READ_LINES) -> str:
    lines = _text(workspace, path).splitlines()
    shown = lines[offset - 1 : offset - 1 + limit]
    return "\n".join(f"{number}\t{line[:MAX_LINE]}" for number, line in enumerate(shown, offset)) or "(no lines here)"


def _write(workspace: Workspace, path: str, content: str) -> str:
    data = content.encode(errors="replace")
    workspace.write(path, data)
    return f"wrote {len(data)} bytes to {path}"


def _edit(workspace: Workspace, path: str, old: str, new: str, all: bool = False) -> str:
    text = _text(workspace, path)
    count = text.count(old)
    if count == 0:
        raise Invalid(f"{path}: the text to replace does not occur")
    if count > 1 and not all:
        raise Invalid(f"{path}: the text to replace occurs {count} times; give more of its surroundings, or set all")
    executable = bool(workspace.resolve(path).stat().st_mode & 0o100)
    workspace.write(path, text.replace(old, new).encode(errors="replace"), executable=executable)
    return f"replaced {count} occurrence{'s' if count > 1 else ''} in {path}"


def _glob(workspace: Workspace, pattern: str) -> str:
    wanted = _segments(pattern)
    found = sorted(name for name, _ in workspace.files() if _fits(name.split("/"), wanted))
    more = f"\n[{len(found) - MAX_MATCHES} more]" if len(found) > MAX_MATCHES else ""
    return ("\n".join(found[:MAX_MATCHES]) or "(no file matches)") + more


def grep_script(workspace: Workspace, pattern: str, path: str = "") -> str:
    """`grep` as a command: a stranger's regular expression can take for ever, and a command has a time limit."""
    where = str(workspace.resolve(path).relative_to(workspace.root.resolve())) if path else "."
    excluded = " ".join(f"--exclude-dir={name}" for name in sorted(IGNORED))
    search = f"grep -rnIE {excluded} -e {shlex.quote(pattern)} -- {shlex.quote(where)}"
    return f"set -o pipefail; {search} | sed 's|^[.]/||' | cut -c1-{MAX_LINE} | sort -t: -k1,1 -k2,2n"


def _text(workspace: Workspace, path: str) -> str:
    data = workspace.read(path, MAX_TEXT_FILE)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"{path}: not a UTF-8 text file") from error


def _segments(pattern: str) -> tuple[str, ...]:
    """The pattern's parts; `**` after `**` says nothing new."""
    pure = PurePosixPath(pattern)
    if pure.is_absolute() or ".." in pure.parts:
        raise Invalid(f"pattern {pattern[:200]!r}: expected one relative to the workspace")
    return tuple(part for at, part in enumerate(pure.parts) if part != "**" or pure.parts[at - 1 : at] != ("**",))


def _fits(name: list[str], pattern: tuple[str, ...]) -> bool:
    """`**` spans directories, `*` and `?` do not. In steps of parts times segments, whatever the pattern: a regular expression
    over the whole path could take for ever."""
    reach = _skip({0}, pattern)  # how much of the pattern the parts so far may have used up
    for part in name:
        stay = {at for at in reach if at < len(pattern) and pattern[at] == "**"}
        step = {at + 1 for at in reach - stay if at < len(pattern) and fnmatchcase(part, pattern[at])}
        reach = _skip(stay | step, pattern)
    return len(pattern) in reach


def _skip(reach: set[int], pattern: tuple[str, ...]) -> set[int]:
    """`**` may stand for nothing at all."""
    return reach | {at + 1 for at in reach if at < len(pattern) and pattern[at] == "**"}


_TOOLS: dict[str, Callable[..., str]] = {"read": _read, "write": _write, "edit": _edit, "glob": _glob}
