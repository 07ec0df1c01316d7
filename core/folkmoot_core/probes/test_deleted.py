"""`test-deleted`: a test that existed at the base is gone, or skipped now. A test moved to another file, with all that it
asserts, is not gone; one of the same name that was there before, or asserts less, does not stand in for it."""

from __future__ import annotations

from folkmoot_core.deliberation import Finding
from folkmoot_core.probes.change import Change, is_test_file
from folkmoot_core.probes.pytests import TestCase, tests_of

SHAPE = "test-deleted"


def probe(change: Change) -> list[Finding]:
    """One finding per test, at its line in the base."""
    arrived = _arrived(change)
    found: list[Finding] = []
    for path in change.touched:
        if not (is_test_file(path) and path in change.base):
            continue
        before, after = tests_of(path, change.before(path)), tests_of(path, change.after(path))
        for name, case in before.items():
            now = after.get(name)
            if now is None and not any(_stands_in(other, case) for other in arrived.get(name, ())):
                found.append(_finding(path, case.line, f"test {name} was deleted"))
            elif now is not None and now.skipped and not case.skipped:
                found.append(_finding(path, now.line, f"test {name} is skipped now"))
        if path not in change.head and not before:
            found.append(_finding(path, 1, "test file was deleted"))
    return found


def _arrived(change: Change) -> dict[str, list[TestCase]]:
    """name → tests that were not in their file at the base."""
    arrived: dict[str, list[TestCase]] = {}
    for path in change.touched:
        if is_test_file(path):
            before = tests_of(path, change.before(path))
            for name, case in tests_of(path, change.after(path)).items():
                if name not in before:
                    arrived.setdefault(name, []).append(case)
    return arrived


def _stands_in(now: TestCase, before: TestCase) -> bool:
    weaker = len(now.asserts) < len(before.asserts) or now.trivial > before.trivial
    return not weaker and (before.skipped or not now.skipped)


def _finding(path: str, line: int, message: str) -> Finding:
    return Finding(shape=SHAPE, severity="High", file=path, line=line, message=message, source="probe")
