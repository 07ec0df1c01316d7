"""What a verification found: checks, each with what it proves, and what the log says of itself. Filled by `audit`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.note import VerifierKey

MAX_FINDINGS = 20  # of each check; the rest is counted


@dataclass
class Check:
    """One thing that was looked at. It holds when nothing was found."""

    name: str
    says: str
    """What it proves when it holds."""
    findings: list[str] = field(default_factory=list)
    total: int = 0

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return self.total == 0

    def find(self, what: str) -> None:
        """It does not hold, because."""
        self.total += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(what)


@dataclass(frozen=True)
class Anchor:
    """A timestamp by a third party that verified."""

    size: int
    authority: str
    time: str
    """RFC 3339, as the authority signed it."""
    pinned: bool
    """The authority's certificates came from elsewhere than the log."""


@dataclass
class Report:
    """What verification found."""

    key: VerifierKey
    key_given: bool
    """The key came from elsewhere than the log itself."""
    checkpoint: Checkpoint | None = None
    signed: bytes = b""
    """The checkpoint as the signed note that was read."""
    signers: list[str] = field(default_factory=list)
    """Who signed or cosigned it, of those whose keys are known, in words."""
    checks: list[Check] = field(default_factory=list)
    types: Counter[str] = field(default_factory=Counter)
    producers: Counter[str] = field(default_factory=Counter)
    first: str = ""
    last: str = ""
    tenant: str = ""
    opened: dict[str, int] = field(default_factory=dict)
    """Of the commitments asked for, those that entries carry, with the first such entry."""
    erasures: set[int] = field(default_factory=set)
    """Positions of entries that say that content was erased."""
    erased: int = 0
    """Commitments whose content is gone, as one of these says."""
    pruned: int = 0
    """Entries below this position are gone by retention; their leaf hashes are there."""
    anchors: list[Anchor] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Every check holds."""
        return all(check.ok for check in self.checks)

    def check(self, name: str, says: str) -> Check:
        """Begin a check."""
        self.checks.append(Check(name, says))
        return self.checks[-1]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        point = self.checkpoint
        return {
            "ok": self.ok, "origin": point.origin if point else "", "size": point.size if point else 0,
            "root": point.root.hex() if point else "", "key": self.key.vkey(), "keyGiven": self.key_given,
            "signers": self.signers, "tenant": self.tenant, "first": self.first, "last": self.last, "pruned": self.pruned,
            "erased": self.erased, "types": dict(sorted(self.types.items())),
            "producers": dict(sorted(self.producers.items())), "notes": self.notes,
            "anchors": [{"size": a.size, "authority": a.authority, "time": a.time, "pinned": a.pinned} for a in self.anchors],
            "checks": [{"name": c.name, "ok": c.ok, "says": c.says, "found": c.total, "findings": c.findings} for c in self.checks],
        }  # fmt: skip
