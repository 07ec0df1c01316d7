"""From a `Ref` to its reconcile; what escapes one becomes a condition and a retry, by the table in reactions.py."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from folkmoot_core.conditions import summarize
from folkmoot_core.errors import Conflict, FolkmootError, Unavailable
from folkmoot_operator.kinds import OWN, Key
from folkmoot_operator.queue import Again, Retry
from folkmoot_operator.reconcile import agent, council, gatepolicy, installation, reactions, session, status, tenant
from folkmoot_operator.reconcile.context import Context, Ref
from folkmoot_operator.reconcile.status import News

log = logging.getLogger(__name__)
_RECONCILERS: Final[dict[str, Callable[[Context, Key], Awaitable[Again]]]] = {
    "Tenant": tenant.reconcile, "Agent": agent.reconcile, "Council": council.reconcile, "GatePolicy": gatepolicy.reconcile,
    "Session": session.reconcile, "Cancellation": session.cancel, "Sweep": session.sweep, "Installation": installation.reconcile,
}  # fmt: skip
_KINDS: Final = {kind.kind: kind for kind in OWN}


async def reconcile(ctx: Context, ref: Ref) -> Again:
    """Reconcile one piece of work; raises `Retry` for what time may mend."""
    key = Key(ref.namespace, ref.name)
    try:
        return await _RECONCILERS[ref.kind](ctx, key)
    except FolkmootError as error:
        log.warning("reconcile could not finish", extra={"ref": str(ref), "reason": error.reason, "error": error.message})
        if not isinstance(error, Unavailable | Conflict):
            await _tell(ctx, ref, key, error)
        raise Retry(reactions.retry_after(error)) from error


async def _tell(ctx: Context, ref: Ref, key: Key, error: FolkmootError) -> None:
    """Say it on the object; the API server may refuse even that, and then the log has it."""
    kind = _KINDS.get(ref.kind)
    raw = ctx.cache.get(kind, key) if kind is not None else None
    if kind is None or raw is None:
        return
    condition = reactions.condition(error)
    found = (condition,) if condition.type == "Ready" else (condition, *summarize([condition], [condition.type]))
    try:
        await status.write(ctx, kind, raw, News(found))
    except FolkmootError as second:
        log.warning("its status could not be written", extra={"ref": str(ref), "error": second.message})
