"""The installation's own objects, in the operator's namespace: what its witness trusts. Enqueued at start, when the cluster's
keys change, and when somebody touched them."""

from __future__ import annotations

from folkmoot_core import names
from folkmoot_core.errors import Conflict
from folkmoot_core.plan import installation
from folkmoot_operator.kinds import Key, Kind, Obj, labels_of
from folkmoot_operator.queue import Again
from folkmoot_operator.reconcile.context import Context


async def reconcile(ctx: Context, _: Key) -> Again:
    """Apply what differs."""
    outcome = await ctx.applier.converge([installation.trust(ctx.installation())], (), _ours)
    if outcome.foreign:
        raise Conflict("; ".join(str(one) for one in outcome.foreign))
    return Again()


def _ours(_kind: Kind, live: Obj) -> bool:
    labels = labels_of(live)
    return labels.get(names.LABEL_MANAGED_BY) == names.MANAGER and not labels.get(names.LABEL_TENANT)
