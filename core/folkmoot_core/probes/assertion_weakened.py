"""`assertion-weakened`: a test that stays asserts less than it did, or something that cannot fail."""

from __future__ import annotations

from folkmoot_core.deliberation import Finding
from folkmoot_core.probes.change import Change, is_test_file
from folkmoot_core.probes.pytests import TestCase, tests_of

SHAPE = "assertion-weakened"


def probe(change: Change) -> list[Finding]:
    """One finding per test, at its line in the submission."""
    found: list[Finding] = []
    for path in change.touched:
        if not (is_test_file(path) and path in change.base and path in change.head):
            continue
        before, after = tests_of(path, change.before(path)), tests_of(path, change.after(path))
        for name in sorted(before.keys() & after.keys()):
            message = _weaker(before[name], after[name])
            if message:
                line = after[name].line
                found.append(Finding(shape=SHAPE, severity="High", file=path, line=line, message=message, source="probe"))
    return found


def _weaker(before: TestCase, after: TestCase) -> str:
    if len(after.asserts) < len(before.asserts):
        return f"test {before.name} had {len(before.asserts)} assertions and has {len(after.asserts)}"
    if after.trivial > before.trivial:
        return f"test {before.name} has an assertion now that cannot fail"
    return ""
