"""What a probe looks at: the files before and after, as text where they are text. Bounded, and never executed."""

from __future__ import annotations

import ast
import difflib
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

MAX_TEXT = 1024 * 1024  # bytes of one file that are looked at
MAX_DIFF = 256 * 1024
TEST_SETTINGS = frozenset({"conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini"})
SETTINGS = TEST_SETTINGS | {"pyproject.toml", "setup.cfg"}  # these two hold other things beside the tests' settings
STARTUP = frozenset({"sitecustomize.py", "usercustomize.py"})  # the interpreter runs them before anything else, and *.pth
RUNNER = sys.stdlib_module_names | {"pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py"}


def is_test_file(path: str) -> bool:
    """Files that say what is right: tests and their harness. Checks restore these from the base before they run."""
    pure = PurePosixPath(path)
    name = pure.name
    return (
        name in TEST_SETTINGS
        or name.startswith("test_")
        or name.endswith("_test.py")
        or bool({"tests", "test"} & set(pure.parts[:-1]))
    )


def steering(base: Iterable[str]) -> Callable[[str], bool]:
    """Tells of a path whether it decides what runs when the tests of `base` are run, whatever they say: settings, start-up
    hooks, and new modules that stand in front of the runner's own or the standard library's, because their directory comes
    first on the import path."""
    paths = [PurePosixPath(path) for path in base]
    roots = {PurePosixPath()} | {parent for path in paths if is_test_file(str(path)) for parent in path.parents}
    known = {place for path in paths for place in _places(path, roots)}

    def steers(path: str) -> bool:
        pure = PurePosixPath(path)
        if pure.name in SETTINGS | STARTUP or pure.suffix == ".pth" or pure.parts[0] == ".local":
            return True
        return any(first.split(".", 1)[0] in RUNNER and (root, first) not in known for root, first in _places(pure, roots))

    return steers


def _places(path: PurePosixPath, roots: Collection[PurePosixPath]) -> Iterator[tuple[PurePosixPath, str]]:
    """(root, what an import from there would name) for every root that the path lies under."""
    for depth, parent in enumerate(reversed(path.parents)):
        if parent in roots:
            yield parent, path.parts[depth]


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
        """(line number at head, text) of each line that head has more often than base. Counted, not aligned: aligning takes
        time that grows with the product of both, and a submission could make that hours."""
        known = Counter(self.before(path).splitlines())
        added: list[tuple[int, str]] = []
        for number, line in enumerate(self.after(path).splitlines(), 1):
            if known[line]:
                known[line] -= 1
            else:
                added.append((number, line))
        return added

    def diff(self) -> str:
        """Unified diff of all touched text files, cut at 256 KiB."""
        out: list[str] = []
        for path in self.touched:
            old, new = self.before(path).splitlines(keepends=True), self.after(path).splitlines(keepends=True)
            out.extend(difflib.unified_diff(old, new, f"a/{path}", f"b/{path}"))
        text = "".join(line if line.endswith("\n") else line + "\n" for line in out)
        return text if len(text) <= MAX_DIFF else text[:MAX_DIFF] + "\n[cut]\n"

    @cached_property
    def unread(self) -> tuple[str, ...]:
        """Touched paths whose content `diff` cannot show: nobody who reads the difference has seen it."""
        sides = ((path, side.get(path, b"")) for path in self.touched for side in (self.base, self.head))
        return tuple(sorted({path for path, data in sides if data and not _text(data)}))

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
