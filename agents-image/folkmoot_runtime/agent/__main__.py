"""The agent process: `python -m folkmoot_runtime.agent`. Its key is made here and dies here.

It starts without any peer: it asks until the conductor knows it and the ledger has bound it, then works. Liveness is the
modification time of run/alive, touched by the event loop; it never depends on another pod.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from folkmoot_core import names
from folkmoot_core.errors import FolkmootError, Invalid
from folkmoot_core.messages import Task, TaskResult
from folkmoot_core.signing import SigningKey
from folkmoot_core.workspace import Lease
from folkmoot_runtime import process
from folkmoot_runtime.agent.binding import Binding
from folkmoot_runtime.agent.mailbox import Mailbox
from folkmoot_runtime.agent.peers import Broker, Conductor, Peer, Sandbox
from folkmoot_runtime.agent.record import Recorder
from folkmoot_runtime.agent.worker import Doors, Worker
from folkmoot_runtime.bus.interface import Bus
from folkmoot_runtime.bus.valkey import open_bus
from folkmoot_runtime.ledger.client import LedgerClient
from folkmoot_runtime.settings import Settings, from_environment
from folkmoot_runtime.trust import Trust

log = logging.getLogger(__name__)
ALIVE_SECONDS = 10.0
HEARTBEAT_SECONDS = 300.0
LEDGER_TIMEOUT = 20.0


@dataclass(frozen=True)
class Parts:
    """The process's assembly."""

    binding: Binding
    mailbox: Mailbox
    bus: Bus
    alive: Path
    peers: tuple[Peer, ...]
    ledger: LedgerClient


def assemble(settings: Settings) -> Parts:
    """Everything by hand, in one place."""
    if not settings.agent:
        raise Invalid("environment variable FOLKMOOT_AGENT is not set; expected the agent's name")
    trust = Trust(settings.trust, settings.namespace)
    key = SigningKey(Ed25519PrivateKey.generate())

    def peer(url: str, audience: str) -> Peer:
        secured = None if url.startswith("http://") else trust
        return Peer(url, settings.token_file(audience), secured, settings.timeout)

    conductor_peer = peer(settings.conductor_url, names.AUDIENCE_CONDUCTOR)
    broker_peer = peer(settings.broker_url, names.AUDIENCE_BROKER)
    sandboxes: dict[str, Peer] = {}

    def sandbox_of(lease: Lease) -> Sandbox:
        found = sandboxes.setdefault(lease.endpoint, peer(lease.endpoint.rstrip("/"), names.AUDIENCE_SANDBOX))
        return Sandbox(found, lease)

    ledger = LedgerClient(settings.ledger_url, settings.token_file(names.AUDIENCE_LEDGER), trust, LEDGER_TIMEOUT)
    conductor = Conductor(conductor_peer)
    recorder = Recorder(ledger, conductor.put_artifact, time.time)
    doors = Doors(conductor, Broker(broker_peer), sandbox_of, recorder)
    binding = Binding(settings.agent, key, conductor, recorder)

    async def work(task: Task) -> TaskResult:
        return await Worker(doors, task, await binding.standing(), time.time).run()

    bus = open_bus(settings, settings.agent, key, trust)
    mailbox = Mailbox(bus, settings.tenant, settings.agent, work, time.time)
    return Parts(binding, mailbox, bus, settings.run / "alive", (conductor_peer, broker_peer), ledger)


async def run(parts: Parts) -> None:
    """Until cancelled."""
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_touch(parts.alive))
            tasks.create_task(parts.binding.follow())
            tasks.create_task(_work(parts, tasks))
    finally:
        await parts.bus.aclose()
        await parts.ledger.aclose()
        for each in parts.peers:
            await each.aclose()


async def _work(parts: Parts, tasks: asyncio.TaskGroup) -> None:
    await parts.binding.ready.wait()  # no task before the identity is bound
    tasks.create_task(parts.mailbox.run())
    tasks.create_task(_repeat(parts.bus.alive, ALIVE_SECONDS))
    tasks.create_task(_repeat(parts.mailbox.heartbeat, HEARTBEAT_SECONDS))


async def _touch(path: Path) -> None:
    """The loop turns: that is all this says."""
    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    while True:
        path.touch()  # noqa: ASYNC240 - a memory-backed file: it cannot block
        await asyncio.sleep(ALIVE_SECONDS)


async def _repeat(act: Callable[[], Awaitable[None]], every: float) -> None:
    """A failure is said and changes nothing: the bus reconnects by itself."""
    while True:
        try:
            await act()
        except FolkmootError as error:
            log.warning("bus does not take a sign of life", extra={"error": error.message})
        await asyncio.sleep(every)


async def main() -> None:
    """From the environment."""
    await run(assemble(from_environment()))


if __name__ == "__main__":
    sys.exit(process.main("agent", main))
