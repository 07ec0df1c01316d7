"""One level-triggered `reconcile` per kind: read the cache → parse → plan (pure) → apply what differs → conditions → status.

Reached alike from a change, a child's change, a report, a timer and the resync; never told what changed. A `Ref` names the work.
"""

from folkmoot_operator.reconcile.context import INSTALLATION, Context, Ref
from folkmoot_operator.reconcile.dispatch import reconcile

__all__ = ["INSTALLATION", "Context", "Ref", "reconcile"]
