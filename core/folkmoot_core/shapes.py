"""The vocabulary of threat shapes: recurring ways to fail, by id. substrate.md "Threat shapes".

Gate filings cite shapes by id; each verdict names the vocabulary's version. A shape is `probed` once a deterministic probe with
fixtures exists (folkmoot_core.probes); before that it is a question that reviewers ask.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

VOCABULARY: Final = "2026.11.1"

SHAPES: Final[dict[str, str]] = {
    "audit-before-write": "an effect happens before its record is durable",
    "chain-seq-stale-read": "a position in a log is read, then used after somebody else took it",
    "cause-injection": "text that becomes part of an identity or purpose carries an instruction",
    "self-poisoning-gate": "a gate reads what it judges as part of its own rules",
    "label-without-import-graph": "something is named as separated but still depends on what it is separated from",
    "unpaired-wire-boundary": "one side of an interface changes and the other does not",
    "caller-supplied-tenant": "the caller says which tenant it is, instead of proving it",
    "fail-open-default": "what cannot be checked is let through",
    "replay-without-ledger": "work is repeated after a crash without asking what was already done",
    "unbounded-work": "input decides how much time or memory is used",
    "lens-monoculture": "author and reviewers share the same blind spot",
    "announcement-versus-file": "what is said to be done is not what is in the files",
    "test-deleted": "a test that existed is gone",
    "assertion-weakened": "a test asserts less than before",
    "expected-value-changed": "a test's expected value was changed to what the code returns",
    "special-cased-input": "the code recognises the test's input",
    "hard-coded-answer": "the code returns the expected answer without computing it",
    "harness-tampered": "the machinery that runs the tests was changed",
    "unread-content": "a part of the change is not shown to those who judge it",
    "hidden-sleep": "waiting hides a race or a failure",
    "secret-committed": "a credential is in the files",
    "prompt-injection": "content addresses the reviewer or the model with an instruction",
    "scope-creep": "files outside the task were changed",
    "unpinned-dependency": "a dependency may change by itself",
}


def selected(shape: str, allow: tuple[str, ...], deny: tuple[str, ...]) -> bool:
    """Whether a policy's globs let a shape's probe run; `deny` wins."""
    return any(fnmatchcase(shape, glob) for glob in allow) and not any(fnmatchcase(shape, glob) for glob in deny)
