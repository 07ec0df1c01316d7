"""`unread-content`: a part of the change that voters and reviewers are not shown, so that their approval says nothing about it."""

from __future__ import annotations

from folkmoot_core.agent_loop import MAX_TOOL_TEXT
from folkmoot_core.deliberation import Finding
from folkmoot_core.probes.change import Change
from folkmoot_core.prompts import MAX_FENCED

SHAPE = "unread-content"
SHOWN = min(MAX_TOOL_TEXT, MAX_FENCED)  # characters of an input that a prompt holds


def probe(change: Change) -> list[Finding]:
    """One finding per file that is no text or too large, and one for a difference that is cut before it is read."""
    found = [
        _finding(path, "the file is no text, or too large to be shown; its content was read by nobody") for path in change.unread
    ]
    if len(change.diff()) > SHOWN:
        found.append(_finding("", f"the difference has more than {SHOWN} characters, and no more is shown; hand in less at once"))
    return found


def _finding(path: str, message: str) -> Finding:
    return Finding(shape=SHAPE, severity="High", file=path, message=message, source="probe")
