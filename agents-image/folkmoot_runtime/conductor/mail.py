"""The conductor's inbox: results go to the tasks, and only what had its effect on disk is taken off the bus.

Runs for the life of the process. A bus that is away is waited for; a message that cannot be handled stays for the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from folkmoot_core.errors import FolkmootError
from folkmoot_runtime.bus.interface import Bus, Delivery
from folkmoot_runtime.conductor.reports import Presence
from folkmoot_runtime.conductor.tasks import Tasks

log = logging.getLogger(__name__)
BLOCK: Final = 2.0  # seconds one receive waits
RETRY: Final = 1.0
ALIVE_EVERY: Final = 10.0


class Mail:
    """Run `run` until cancelled."""

    def __init__(self, bus: Bus, tasks: Tasks, presence: Presence) -> None:
        self._bus = bus
        self._tasks = tasks
        self._presence = presence

    async def run(self) -> None:
        """Receive and say "alive", for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._receive())
            group.create_task(self._beat())

    async def _receive(self) -> None:
        while True:
            try:
                deliveries = await self._bus.receive(BLOCK)
            except FolkmootError as error:
                log.warning("bus does not answer", extra={"error": error.message})
                await asyncio.sleep(RETRY)
                continue
            for delivery in deliveries:
                await self._handle(delivery)

    async def _handle(self, delivery: Delivery) -> None:
        """The edge: a message that breaks us is recorded and left in hand; the others are still handled."""
        envelope = delivery.envelope
        try:
            if envelope.kind == "result":
                await self._tasks.accept(envelope)
            elif envelope.kind == "heartbeat":
                self._presence.seen(envelope.sender)
            await self._bus.done(delivery.id)
        except FolkmootError as error:
            log.warning("message left in hand", extra={"request_id": envelope.request_id, "error": error.message})
        except Exception:
            log.exception("message left in hand", extra={"request_id": envelope.request_id, "kind": envelope.kind})

    async def _beat(self) -> None:
        while True:
            with contextlib.suppress(FolkmootError):  # `_receive` says that the bus is away
                await self._bus.alive()
            await asyncio.sleep(ALIVE_EVERY)
