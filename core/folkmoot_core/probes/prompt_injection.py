"""`prompt-injection`: added text addresses the reviewer or the model. An instruction inside an artefact is a finding, not an order."""

from __future__ import annotations

import re

from folkmoot_core.deliberation import Finding
from folkmoot_core.probes.change import Change

SHAPE = "prompt-injection"
MAX_LINE = 4096
_WHO = r"(?:reviewers?|graders?|judges?|evaluators?|assistants?|llms?|language models?|ai models?|ai agents?)"
_PATTERNS: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:previous|prior|above|earlier|all|your)\b.{0,30}\b(?:instructions?|prompts?|rules|guidelines)\b",
        rf"\b(?:dear|note to|attention|instructions? (?:to|for)|message (?:to|for))\b.{{0,20}}\b{_WHO}\b",
        rf"\b{_WHO}\b.{{0,40}}\b(?:must|should|shall|please|have to)\b.{{0,40}}\b(?:approve|accept|pass|vote|ignore|return)\b",
        r"\b(?:respond|answer|reply|output)\b.{0,20}\bonly\b.{0,20}\b(?:approved|pass|yes|for)\b",
        r"<\|?(?:system|im_start|endoftext)\|?>",
        r"\byou are (?:now|no longer)\b.{0,60}\b(?:assistant|model|reviewer|agent|mode)\b",
    )
)
_INVISIBLE = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u2064\U000e0000-\U000e007f]")


def probe(change: Change) -> list[Finding]:
    """Names of new files and added lines of every text file, comments and documentation included."""
    found: list[Finding] = []
    for path in change.touched:
        words = re.sub(r"[\W_]+", " ", path)
        if path not in change.base and (_INVISIBLE.search(path) or any(p.search(words) for p in _PATTERNS)):
            found.append(_finding(path, 0, "the file's name addresses a reviewer or model with an instruction"))
        for number, line in change.added_lines(path):
            text = line[:MAX_LINE]
            if _INVISIBLE.search(text):
                found.append(_finding(path, number, "the line holds invisible or direction-changing characters"))
            elif any(pattern.search(text) for pattern in _PATTERNS):
                found.append(_finding(path, number, "the line addresses a reviewer or model with an instruction"))
    return found


def _finding(path: str, line: int, message: str) -> Finding:
    return Finding(shape=SHAPE, severity="Critical", file=path, line=line, message=message, hard=True, source="probe")
