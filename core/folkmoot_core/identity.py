"""QNFT identity: who somebody is (`seed`) and what it may do (`commitment`). architecture.md §5, wiring.md §7.

Both are SHA-256 over UTF-8 fields joined by a single LF without a trailing one, written as lowercase hex, and
recomputable from manifests alone. The vectors in tests/vectors/identity.json were made by an independent script.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Literal

from pydantic import BaseModel, ConfigDict

from folkmoot_core.canonical import canonical_json, sha256_hex
from folkmoot_core.errors import Invalid

SEED_DOMAIN = "qnft/v1"
COMMITMENT_DOMAIN = "qnft/commitment/v1"
ROOT_PARENT = "0" * 64
MAX_CAUSE = 4096


class GrantsV1(BaseModel):
    """The authorization context that a commitment stands on. Unset fields are omitted from the hashed form, so that a
    field added to the API later moves no commitment that does not use it. Lists are sorted sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal["grants/v1"] = "grants/v1"
    models: tuple[str, ...] | None = None  # "<provider>/<model>", or "<provider>/*" at tenant level
    tools: tuple[str, ...] | None = None  # "builtin/<name>:Allow"
    memory: tuple[str, ...] | None = None  # "read:<class>", "write:<class>"
    regions: tuple[str, ...] | None = None
    egress: tuple[str, ...] | None = None
    budgets: tuple[str, ...] | None = None  # "<name>=<amount>"
    gate: str | None = None
    policies: tuple[str, ...] | None = None  # digests

    def digest(self) -> str:
        """SHA-256 hex of the RFC 8785 form without unset fields."""
        fields = self.model_dump(exclude_none=True)
        return sha256_hex(canonical_json({k: sorted(set(v)) if isinstance(v, tuple) else v for k, v in fields.items()}))


def seed(name: str, scope: str, cause: str) -> str:
    """*Who*: hash of name, scope (`federation/organization/tenant[/agent]`) and first-person purpose."""
    check_cause(cause)
    for label, text in (("name", name), ("scope", scope)):
        if not text or any(unicodedata.category(c) == "Cc" for c in text):
            raise Invalid(f"identity {label} {text!r}: expected non-empty text without control characters")
    return _hash(SEED_DOMAIN, *(unicodedata.normalize("NFC", text) for text in (name, scope, cause)))


def commitment(seed_hex: str, parent_commitment: str, grants_digest: str) -> str:
    """*What it may do*: moves whenever the grants, or any ancestor's grants, move."""
    for label, text in (("seed", seed_hex), ("parent commitment", parent_commitment), ("grants digest", grants_digest)):
        if len(text) != 64 or any(c not in "0123456789abcdef" for c in text):
            raise Invalid(f"{label} {text!r}: expected 64 lowercase hex digits")
    return _hash(COMMITMENT_DOMAIN, seed_hex, parent_commitment, grants_digest)


def check_cause(cause: str) -> None:
    """Refuse a cause that would not survive storage: 1–4096 characters, NFC, LF line ends, no other control characters."""
    if not 1 <= len(cause) <= MAX_CAUSE:
        raise Invalid(f"cause has {len(cause)} characters; expected 1 to {MAX_CAUSE}")
    if bad := sorted({f"U+{ord(c):04X}" for c in cause if unicodedata.category(c) == "Cc" and c != "\n"}):
        raise Invalid(f"cause contains control characters {', '.join(bad)}; only LF line ends are allowed")
    if unicodedata.normalize("NFC", cause) != cause:
        raise Invalid("cause is not in Unicode normalisation form C; write it in NFC so that its hash is stable")


def check_narrower(child: GrantsV1, parent: GrantsV1, who: str) -> None:
    """A child's grants are a subset of its parent's; raises `Invalid` naming the first grant that is not."""
    for field in ("models", "tools", "memory", "regions", "egress"):
        allowed, wanted = getattr(parent, field), getattr(child, field)
        if allowed is None or wanted is None:
            continue
        for grant in sorted(wanted):
            if grant not in allowed and f"{grant.split('/')[0]}/*" not in allowed:
                raise Invalid(
                    f"{who}: grant {field}={grant!r} is not among its parent's ({', '.join(sorted(allowed)) or 'none'})",
                    reason="GrantExceedsParent",
                )


def _hash(*fields: str) -> str:
    return hashlib.sha256("\n".join(fields).encode()).hexdigest()
