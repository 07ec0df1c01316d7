"""`test-deleted`: a test that existed at the base is gone, or skipped now. A test moved to another file is not gone."""

from __future__ import annotations

from folkmoot_core.deliberation import Finding
from folkmoot_core.probes.change import Change, is_test_file
from folkmoot_core.probes.pytests import tests_of

SHAPE = "test-deleted"


def probe(change: Change) -> list[Finding]:
    """One finding per test, at its line in the base."""
    kept = {name for path in change.head if is_test_file(path) for name in tests_of(path, change.after(path))}
    found: list[Finding] = []
    for path in change.touched:
        if not (is_test_file(path) and path in change.base):
            continue
        before, after = tests_of(path, change.before(path)), tests_of(path, change.after(path))
        for name, case in before.items():
            now = after.get(name)
            if now is None and name not in kept:
                found.append(_finding(path, case.line, f"test {name} was deleted"))
            elif now is not None and now.skipped and not case.skipped:
                found.append(_finding(path, now.line, f"test {name} is skipped now"))
        if path not in change.head and not before:
            found.append(_finding(path, 1, "test file was deleted"))
    return found


def _finding(path: str, line: int, message: str) -> Finding:
    return Finding(shape=SHAPE, severity="High", file=path, line=line, message=message, source="probe")
