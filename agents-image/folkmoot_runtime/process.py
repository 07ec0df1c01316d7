"""The life of a process: logs, work until SIGTERM, an exit code. Every `__main__` of the runtime ends in `main`.

Exit code 0: it was asked to stop and did. 1: it cannot go on — the environment, the volume or the log does not allow it — and
says why, one critical line per reason. Anything else is a fault of ours and ends with its traceback.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from folkmoot_core.errors import FolkmootError
from folkmoot_runtime import log as logs

log = logging.getLogger(__name__)
CANNOT_GO_ON = 1


def main(
    component: str, work: Callable[[], Coroutine[Any, Any, None]], loop: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> int:
    """Run `work` to its end or to SIGTERM or SIGINT, by which it is cancelled: what it must put away belongs in its `finally`.
    `loop` makes the event loop, where it is not to be asyncio's own."""
    logs.configure(component)
    reasons: list[str] = []
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(_until_signalled(work))
    except* FolkmootError as group:
        reasons = _reasons(group)
    for reason in reasons:
        log.critical("cannot go on", extra={"component": component, "reason": reason})
    return CANNOT_GO_ON if reasons else 0


async def _until_signalled(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    running = asyncio.create_task(work())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        log.info("stopped")


def _reasons(group: BaseExceptionGroup[FolkmootError]) -> list[str]:
    found: list[str] = []
    for error in group.exceptions:
        found += _reasons(error) if isinstance(error, BaseExceptionGroup) else [error.message]
    return found
