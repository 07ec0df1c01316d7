"""Deterministic probes: a shape, a function from a change to findings, nothing else. They run before any review and cost nothing.

To add one: a module with `SHAPE` (an id of folkmoot_core.shapes) and `probe(change) -> list[Finding]`, a line in `PROBES`, and
fixtures of what it must and must not find. Findings are `hard` only where no explanation can help (runtime.md §4.4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from folkmoot_core.deliberation import Finding, ProbeResult
from folkmoot_core.probes import (
    assertion_weakened,
    harness_tampered,
    prompt_injection,
    secret_committed,
    test_deleted,
    unread_content,
)
from folkmoot_core.probes.change import Change, is_test_file
from folkmoot_core.shapes import VOCABULARY, selected

__all__ = ["MAX_FINDINGS", "PROBES", "Change", "is_test_file", "run"]

MAX_FINDINGS: Final = 200
PROBES: Final[tuple[tuple[str, Callable[[Change], list[Finding]]], ...]] = (
    (test_deleted.SHAPE, test_deleted.probe),
    (assertion_weakened.SHAPE, assertion_weakened.probe),
    (harness_tampered.SHAPE, harness_tampered.probe),
    (unread_content.SHAPE, unread_content.probe),
    (secret_committed.SHAPE, secret_committed.probe),
    (prompt_injection.SHAPE, prompt_injection.probe),
)


def run(base: dict[str, bytes], head: dict[str, bytes], allow: tuple[str, ...], deny: tuple[str, ...]) -> ProbeResult:
    """All selected probes over the difference of two file sets. `diff` stays empty: whoever stores the diff fills it in."""
    change = Change(base, head)
    findings = [f for shape, probe in PROBES if selected(shape, allow, deny) for f in probe(change)]
    findings.sort(key=lambda f: not f.hard)  # a flood of soft findings must not push a hard one over the limit
    return ProbeResult(vocabulary=VOCABULARY, findings=tuple(findings[:MAX_FINDINGS]), files=change.line_counts())
