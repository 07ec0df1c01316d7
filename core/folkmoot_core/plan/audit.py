"""What a Tenant's `spec.audit` and the installation's witness become: the audit part of the tenant's document. Pure.

`problems` is asked for every manifest (`views.parse_tenant`), so `entry` is only ever given keys and certificates that can be used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from folkmoot_core.document import AuditEntry, TimestampAuthorityEntry, WitnessEntry
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.note import COSIGNATURE, MLDSA44, parse_vkey
from folkmoot_core.ledger.timestamp import is_oid, read_authority
from folkmoot_core.plan.types import Installation, Problem
from folkmoot_core.resources.audit import CLUSTER, Audit
from folkmoot_core.resources.common import seconds

_DAY = 86400


def problems(audit: Audit) -> Iterator[Problem]:
    """What no schema can see of keys and certificates, each with its field."""
    seen: dict[str, str] = {}
    for index, witness in enumerate(audit.witnesses):
        field = f"spec.audit.witnesses[{index}].key"
        yield from _tried(field, partial(check_cosigner, witness.key))
        if (other := seen.setdefault(witness.key, witness.name)) != witness.name:
            yield Problem(field, f"is the key of witness {other} too, and would count twice; give each witness its own key")
    for index, authority in enumerate(audit.timestamps.authorities):
        field = f"spec.audit.timestamps.authorities[{index}].certificates"
        yield from _tried(field, partial(read_authority, authority.name, authority.certificates))
        if authority.policy and not is_oid(authority.policy):
            field = f"spec.audit.timestamps.authorities[{index}].policy"
            yield Problem(field, f"{authority.policy[:80]!r} is not an object identifier such as 1.2.3")


def entry(audit: Audit, inst: Installation) -> AuditEntry:
    """The document's audit part: the installation's witness first, once its key is known.

    Until then the document names no such witness; a ledger that must have one publishes nothing on such terms
    (`folkmoot_core.ledger.terms`), so that not knowing the key never reads as not needing it.
    """
    own = (
        [WitnessEntry(name=CLUSTER, key=inst.witness_key, url=inst.witness_url)] if inst.witness_url and inst.witness_key else []
    )
    partners = [WitnessEntry(name=w.name, key=w.key, url=w.url) for w in sorted(audit.witnesses, key=lambda w: w.name)]
    authorities = sorted(audit.timestamps.authorities, key=lambda a: a.name)
    return AuditEntry(
        witnesses=(*own, *partners),
        witness_quorum=len(partners) if audit.witness_quorum is None else audit.witness_quorum,
        authorities=tuple(
            TimestampAuthorityEntry(name=a.name, url=a.url, certificates=a.certificates, policy=a.policy or "")
            for a in authorities
        ),
        anchor_entries=audit.timestamps.every_entries,
        anchor_seconds=audit.timestamps.every_seconds,
        retention_days=-(-seconds(audit.retention) // _DAY),  # rounded up: never shorter than was asked for
    )


def check_cosigner(vkey: str) -> None:
    """Raises `Invalid` for a text that is no vkey of a cosigner."""
    algorithm = parse_vkey(vkey).algorithm
    if algorithm not in (COSIGNATURE, MLDSA44):
        raise Invalid(
            f"expected the vkey of a cosigner, type 04 or 06, found type {algorithm:02x}: that key signs no cosignatures"
        )


def _tried(field: str, check: Callable[[], object]) -> Iterator[Problem]:
    try:
        check()
    except Invalid as error:
        yield Problem(field, error.message)
