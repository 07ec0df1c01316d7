"""What a probe looks at: the files before and after, as text where they are text. Bounded, and never executed."""

from __future__ import annotations

import ast
import difflib
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

MAX_TEXT = 1024 * 1024  # bytes of one file that are looked at
MAX_DIFF = 256 * 1024


def is_test_file(path: str) -> bool:
    """Files that say what is right: tests and their harness. Checks restore these from the base before they run."""
    pure = PurePosixPath(path)
    name = pure.name
    harness = name in {"conftest.py", "pytest.ini", "tox.ini"}
    return harness or name.startswith("test_") or name.endswith("_test.py") or bool({"tests", "test"} & set(pure.parts[:-1]))


@dataclass(frozen=True)
class Change:
    """Base and head as path → bytes."""

    base: dict[str, bytes]
    head: dict[str, bytes]

    @cached_property
    def touched(self) -> tuple[str, ...]:
        """Paths that are new, gone or different, sorted."""
        paths = set(self.base) | set(self.head)
        return tuple(sorted(p for p in paths if self.base.get(p) != self.head.get(p)))

    def before(self, path: str) -> str:
        """Text at base; empty when the file was not there or is not text."""
        return _text(self.base.get(path, b""))

    def after(self, path: str) -> str:
        """Text at head."""
        return _text(self.head.get(path, b""))

    def added_lines(self, path: str) -> list[tuple[int, str]]:
        """(line number at head, text) of each line that head adds."""
        old, new = self.before(path).splitlines(), self.after(path).splitlines()
        matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
        return [
            (number + 1, new[number])
            for tag, _, _, first, last in matcher.get_opcodes()
            if tag in {"insert", "replace"}
            for number in range(first, last)
        ]

    def diff(self) -> str:
        """Unified diff of all touched text files, cut at 256 KiB."""
        out: list[str] = []
        for path in self.touched:
            old, new = self.before(path).splitlines(keepends=True), self.after(path).splitlines(keepends=True)
            out.extend(difflib.unified_diff(old, new, f"a/{path}", f"b/{path}"))
        text = "".join(line if line.endswith("\n") else line + "\n" for line in out)
        return text if len(text) <= MAX_DIFF else text[:MAX_DIFF] + "\n[cut]\n"

    def line_counts(self) -> dict[str, int]:
        """path → number of lines, the larger of base and head."""
        paths = sorted(set(self.base) | set(self.head))
        return {p: max(self.before(p).count("\n"), self.after(p).count("\n")) + 1 for p in paths}


def parse_python(path: str, source: str) -> ast.Module | None:
    """The syntax tree, or None for what is not Python (then text probes still apply)."""
    if not path.endswith(".py"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in somebody's test is not our warning
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _text(data: bytes) -> str:
    if len(data) > MAX_TEXT or b"\0" in data[:8192]:
        return ""
    return data.decode("utf-8", errors="replace")
