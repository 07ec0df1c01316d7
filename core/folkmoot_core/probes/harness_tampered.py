"""`harness-tampered`: what decides which tests run, or how a test run ends, was changed. Checks put the harness back as far as
they can; code under test that ends the process, nobody can put back."""

from __future__ import annotations

import re

from folkmoot_core.deliberation import Finding
from folkmoot_core.probes.change import Change, is_test_file, steering

SHAPE = "harness-tampered"
MAX_LINE = 4096
_MIXED = ("pyproject.toml", "setup.cfg")  # hold other things beside the tests' settings
_COMMANDS = frozenset({"Makefile", "makefile", "GNUmakefile", "justfile", "noxfile.py"})
_ENDS_A_RUN = re.compile(
    r"\bos\s*\.\s*(?:_exit|abort)\b|\bpytest\s*\.\s*exit\b|\bcollect_ignore|\b__test__\s*=|\bpytestmark\s*=.*(?:skip|xfail)"
    r"|\ballow_module_level\b|\bpytest_plugins\b|\bdef\s+pytest_\w+"
)


def probe(change: Change) -> list[Finding]:
    """One finding per file of the harness, and per added line that ends or empties a test run. Without tests at the base there
    is no harness."""
    found: list[Finding] = []
    if not any(is_test_file(path) for path in change.base):
        return found
    steers = steering(change.base)
    for path in change.touched:
        name = path.rsplit("/", 1)[-1]
        if name in _COMMANDS or (steers(path) and (name not in _MIXED or _settings(change, path))):
            found.append(_finding(path, 0, "the file decides what runs when the tests are run"))
        elif path.endswith(".py"):
            lines = (number for number, line in change.added_lines(path) if _ENDS_A_RUN.search(line[:MAX_LINE]))
            found += [_finding(path, number, "the line can end or empty a test run without a failure") for number in lines]
    return found


def _settings(change: Change, path: str) -> bool:
    return _about_tests(change.before(path)) != _about_tests(change.after(path))


def _about_tests(text: str) -> list[str]:
    """Lines of sections about pytest, and whatever else names it."""
    inside, lines = False, []
    for line in text.splitlines():
        if line.lstrip().startswith("["):
            inside = "pytest" in line
        if inside or "pytest" in line:
            lines.append(line)
    return lines


def _finding(path: str, line: int, message: str) -> Finding:
    return Finding(shape=SHAPE, severity="High", file=path, line=line, message=message, source="probe")
