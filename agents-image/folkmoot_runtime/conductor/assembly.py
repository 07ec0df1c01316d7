"""The conductor put together from what is given to it: every peer, the clock and the threads are passed in.

`__main__` passes the real ones; tests pass the in-memory twins and drop the object at any moment to play a crash.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette

from folkmoot_core import council
from folkmoot_runtime.bus.interface import Bus
from folkmoot_runtime.conductor.agents_door import AgentsDoor
from folkmoot_runtime.conductor.app import OperatorDoor, service_door
from folkmoot_runtime.conductor.blobs import Artefacts
from folkmoot_runtime.conductor.callers import Callers
from folkmoot_runtime.conductor.checks import Checks, Sandbox
from folkmoot_runtime.conductor.documents import Documents
from folkmoot_runtime.conductor.driver import Driver
from folkmoot_runtime.conductor.erasure import Calls, Erasures
from folkmoot_runtime.conductor.evidence import Evidence
from folkmoot_runtime.conductor.feed import Feed
from folkmoot_runtime.conductor.holds import Holds
from folkmoot_runtime.conductor.journal import Journal
from folkmoot_runtime.conductor.keyring import Keyring
from folkmoot_runtime.conductor.log_door import LogDoor
from folkmoot_runtime.conductor.logwatch import LogWatch
from folkmoot_runtime.conductor.mail import Mail
from folkmoot_runtime.conductor.notary import Ledger, Notary
from folkmoot_runtime.conductor.people_door import PeopleDoor
from folkmoot_runtime.conductor.privacy_door import PrivacyDoor
from folkmoot_runtime.conductor.probing import Probing
from folkmoot_runtime.conductor.reports import Operator, Presence, Reporter
from folkmoot_runtime.conductor.runner import Parts, Protocols
from folkmoot_runtime.conductor.service import Sessions
from folkmoot_runtime.conductor.store import Store
from folkmoot_runtime.conductor.tasks import Tasks
from folkmoot_runtime.conductor.vault import Vault, VaultOptions
from folkmoot_runtime.trust import Trust

PROTOCOLS = Protocols(council=council.deliberate, agent=council.answer)


@dataclass(frozen=True)
class Peers:
    """Who the conductor talks to."""

    bus: Bus
    ledger: Ledger
    operator: Operator
    trust: Trust
    sandbox: Sandbox | None = None
    """The checks sandbox; None: there is none."""
    broker: Calls | None = None
    """The broker's journal; None: an erasure does not reach it, and says so."""
    checks_endpoint: str = ""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """Agent → its sandbox's URL, where that is not the Service in this namespace."""


@dataclass(frozen=True)
class Options:
    """What may be chosen. The defaults are those of production."""

    tenant: str
    directory: Path
    limit: int = 8
    """Sessions open at once."""
    protocols: Protocols = PROTOCOLS
    clock: Callable[[], float] = time.time
    kek_file: Path | None = None
    """A mounted key-encryption key; None: one of the conductor's own, on its volume."""
    keyring: Keyring | None = None
    """Another keyring than the one in files."""
    executor: Executor | None = None
    """For database, blobs and probes; None: a thread for the database, two for blobs, the loop's own for probes."""


class Conductor:
    """`start`, then serve the doors and `run`; `stop` at the end."""

    def __init__(self, options: Options, peers: Peers, store: Store | None = None) -> None:
        clock, executor = options.clock, options.executor
        self.store = store or Store(options.directory / "conductor.sqlite", executor)
        vault = VaultOptions(
            options.directory / "keys", clock, self._keys_context, options.kek_file, options.keyring, executor=executor
        )
        self.vault = Vault(self.store, vault)
        self.artefacts = Artefacts(self.store, self.vault, options.directory / "sealed", clock, executor)
        self.notary = Notary(self.store, self.artefacts, peers.ledger, clock)
        self.documents = Documents(self.store, self.notary, options.tenant, clock)
        self.feed = Feed()
        self.presence = Presence(clock)
        journals: dict[str, Journal] = {}
        self.tasks = Tasks(peers.bus, options.tenant, journals, self.artefacts, self.notary)
        checks = Checks(self.store, self.artefacts, peers.sandbox, peers.checks_endpoint)
        prober = Probing(self.artefacts, executor)
        driver = Driver(self.tasks, checks, prober, self.notary, self._hold)
        parts = Parts(self.store, self.artefacts, self.notary, self.tasks, driver, options.protocols)
        self.sessions = Sessions(parts, self.documents, journals, self.feed, clock, options.limit)
        self.watch = LogWatch(peers.ledger, clock)
        self.reporter = Reporter(
            self.store, self.sessions, self.documents, self.presence, self.feed, peers.ledger, peers.operator, self.watch
        )  # fmt: skip
        self.mail = Mail(peers.bus, self.tasks, self.presence)
        self.erasures = Erasures(self.store, self.vault, self.artefacts, self.notary, self.feed, peers.broker, clock)
        self.holds = Holds(self.store, self.notary, clock)
        self._evidence = Evidence(self.store, self.artefacts, self.notary)
        self._peers = peers
        self._tenant = options.tenant
        self._ready = False

    async def start(self) -> None:
        """Open the database and read everything back. Needs no peer."""
        await self.store.open()
        await self.vault.open()
        await self.artefacts.remove_strays()
        await self.documents.load()
        await self.sessions.load()
        self._ready = True

    async def run(self) -> None:
        """Work until cancelled; peers that are away are waited for, each by who needs it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.vault.learn_origin(self._peers.ledger.read))
            group.create_task(self.documents.record_forever())
            group.create_task(self.holds.run())
            group.create_task(self.erasures.run())
            group.create_task(self.mail.run())
            group.create_task(self.sessions.run())
            group.create_task(self.sessions.tidy_forever())
            group.create_task(self.reporter.run())
            group.create_task(self.watch.run())

    async def stop(self) -> None:
        """Close what is open; after `run` has ended."""
        self._ready = False
        await self._peers.bus.aclose()
        await self._peers.ledger.aclose()
        if self._peers.broker is not None:
            await self._peers.broker.aclose()
        await self.store.close()

    def ready(self) -> bool:
        """Whether the doors can answer; never depends on another process."""
        return self._ready

    def operator_door(self) -> Starlette:
        """Port 8444."""
        return OperatorDoor(self.sessions, self.documents, self._evidence).app(self.ready)

    def service_door(self) -> Starlette:
        """Port 8443."""
        callers = Callers(self._peers.trust)
        agents = AgentsDoor(
            callers, self.sessions, self.documents, self.artefacts, self.store, self.presence, self.reporter, self._peers.endpoints
        )  # fmt: skip
        people = PeopleDoor(callers, self.sessions, self.store, self.feed, self._evidence)
        privacy = PrivacyDoor(callers, self.erasures, self.holds)
        return service_door(agents, people, privacy, LogDoor(callers, self.notary), self.ready)

    def _keys_context(self) -> str:
        """What data keys are bound to while the log's origin is not known."""
        document = self.documents.current
        return f"tenant/{document.tenant_uid}" if document is not None else f"tenant/{self._tenant}"

    async def _hold(self, journal: Journal, agent: str) -> None:
        await self.sessions.hold(journal, agent)
