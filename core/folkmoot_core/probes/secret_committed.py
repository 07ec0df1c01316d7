"""`secret-committed`: the submission adds a credential. The finding names file and line and never the value."""

from __future__ import annotations

import math
import re
from collections import Counter

from folkmoot_core.deliberation import Finding
from folkmoot_core.probes.change import Change

SHAPE = "secret-committed"
MAX_LINE = 4096

# (what it is, pattern): formats published by their issuers
_KNOWN: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    ("an AWS access key id", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})\b")),
    ("a model provider's API key", re.compile(r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{24,}")),
    ("a Google API key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b")),
    ("a Slack token", re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{20,}")),
    ("a JSON web token", re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}")),
)
_ASSIGNED = re.compile(r"(?i)(?:password|passwd|secret|api_?key|token)\w*[\"']?\s*[:=]\s*[\"']([^\"'\s]{16,})[\"']")
ENTROPY_BITS = 3.5  # per character: above English words and placeholders, below random base64 (about 5)


def probe(change: Change) -> list[Finding]:
    """Looks at added lines alone: what was there before is not this submission's doing."""
    found: list[Finding] = []
    for path in change.touched:
        for number, line in change.added_lines(path):
            what = _secret_in(line[:MAX_LINE])
            if what:
                message = f"the line holds what looks like {what}"
                found.append(
                    Finding(shape=SHAPE, severity="Critical", file=path, line=number, message=message, hard=True, source="probe")
                )
    return found


def _secret_in(line: str) -> str:
    for what, pattern in _KNOWN:
        if pattern.search(line):
            return what
    assigned = _ASSIGNED.search(line)
    return "a credential in an assignment" if assigned and _entropy(assigned.group(1)) > ENTROPY_BITS else ""


def _entropy(text: str) -> float:
    """Shannon entropy per character, in bits."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
