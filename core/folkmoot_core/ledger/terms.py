"""On what terms a log publishes: whose cosignatures a checkpoint must carry before anybody may see it. Pure.

The installation's own witness must always cosign (wiring.md §7, "checkpoint fence"); of the witnesses that a manifest names, as
many as its quorum says. The same terms, as a C2SP tlog-policy, lie beside the log for whoever verifies it.
"""

from __future__ import annotations

from typing import Final

from folkmoot_core.document import AuditEntry
from folkmoot_core.ledger import policy
from folkmoot_core.ledger.note import parse_vkey
from folkmoot_core.ledger.policy import Group, Policy
from folkmoot_core.resources.audit import CLUSTER

__all__ = ["CLUSTER", "EVERYBODY", "PARTNERS", "policy_of"]
PARTNERS: Final = "PARTNERS"  # upper case: no name in a manifest is
EVERYBODY: Final = "EVERYBODY"


def policy_of(vkeys: tuple[str, ...], audit: AuditEntry) -> Policy:
    """The policy of a log with these keys; raises `Invalid` for keys that are none."""
    logs = tuple(policy.Log(parse_vkey(vkey)) for vkey in vkeys)
    witnesses = tuple(policy.Witness(w.name, parse_vkey(w.key), w.url) for w in audit.witnesses)
    partners = tuple(w.name for w in audit.witnesses if w.name != CLUSTER)
    groups = []
    needed = [CLUSTER] if any(w.name == CLUSTER for w in audit.witnesses) else []
    if partners and audit.witness_quorum:
        groups.append(Group(PARTNERS, min(audit.witness_quorum, len(partners)), partners))
        needed.append(PARTNERS)
    if len(needed) == 2:
        groups.append(Group(EVERYBODY, 2, tuple(needed)))
        needed = [EVERYBODY]
    return Policy(logs, witnesses, tuple(groups), needed[0] if needed else policy.NONE)
