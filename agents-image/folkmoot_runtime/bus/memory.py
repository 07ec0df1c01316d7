"""The bus in memory: the twin of Valkey and router for tests and dry runs, under the same contract tests.

It routes with the same pure decisions (folkmoot_core.routing), at once and in order. Time comes from the caller's clock; what
is overdue is looked at when `scan` is called. Single event loop; nothing survives the process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from folkmoot_core import routing
from folkmoot_core.errors import Unavailable
from folkmoot_core.messages import Envelope
from folkmoot_core.names import CORE
from folkmoot_core.routing import Context, Dead, Deliver, Duplicate, Refuse, Waiting
from folkmoot_core.signing import SigningKey
from folkmoot_runtime.bus.interface import Delivery


@dataclass
class _Entry:
    envelope: Envelope
    consumer: str = ""  # empty: not yet handed out


@dataclass
class _Inbox:
    entries: dict[str, _Entry] = field(default_factory=dict)  # by delivery id, in order of arrival
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class MemoryHub:
    """Server and router in one. `refused`, `resent`, `dead` are what the real router records in the ledger."""

    def __init__(self, tenant: str, agents: Iterable[str], clock: Callable[[], float] = time.time) -> None:
        self.tenant = tenant
        self.refused: list[Refuse] = []
        self.resent: list[Envelope] = []
        self.dead: list[Envelope] = []
        self.alive: dict[str, float] = {}  # participant → epoch seconds
        self.down = False  # True: every call raises Unavailable, as when Valkey is away
        self._clock = clock
        self._participants = frozenset({CORE, *agents})
        self._inboxes = {name: _Inbox() for name in self._participants}
        self._keys: dict[str, list[bytes]] = {}
        self._seen: set[str] = set()
        self._waiting: dict[str, Waiting] = {}
        self._next = 0

    def join(self, participant: str, pod: str = "0", key: SigningKey | None = None) -> MemoryBus:
        """A participant's end; joining again with the same pod is a restart: what was pending is handed out first."""
        key = key or SigningKey(Ed25519PrivateKey.generate())
        self._keys.setdefault(participant, []).append(key.public)
        return MemoryBus(self, participant, pod, key)

    def post(self, owner: str, fields: dict[str, str]) -> None:
        """What an outbox holds, routed at once. Tests of hostile senders come in here."""
        self._check_up()
        decision = routing.decide(fields, self._context(owner, fields))
        if isinstance(decision, Deliver):
            self._deliver(decision)
        elif isinstance(decision, Refuse):
            self.refused.append(decision)
            if decision.tell is not None:
                self._put(decision.tell)
        else:
            assert isinstance(decision, Duplicate)  # noqa: S101 - the union has no fourth member

    def scan(self) -> None:
        """Look at missed ACKs once."""
        now_ms = self._now_ms()
        for name, waiting in list(self._waiting.items()):
            if waiting.envelope.deadline_ms > now_ms:
                continue
            outcome = routing.overdue(waiting, now_ms)
            if isinstance(outcome, Dead):
                self._bury(name, outcome)
            else:
                self.resent.append(outcome.envelope)
                self._put(outcome.envelope)
                self._waiting[name] = waiting.model_copy(update={"envelope": outcome.envelope})

    def take(self, participant: str, pod: str, *, pending: bool) -> list[Delivery]:
        """What this pod has in hand (`pending`), or what nobody has."""
        self._check_up()
        taken = []
        for delivery_id, entry in self._inboxes[participant].entries.items():
            if entry.consumer == (pod if pending else ""):
                entry.consumer = pod
                taken.append(Delivery(delivery_id, entry.envelope))
        return taken

    async def arrival(self, participant: str, block: float) -> None:
        """Wait until something arrives, at most `block` seconds."""
        event = self._inboxes[participant].arrived
        event.clear()
        try:
            await asyncio.wait_for(event.wait(), block)
        except TimeoutError:
            return

    def done(self, participant: str, delivery_id: str) -> None:
        """Forget one delivery."""
        self._check_up()
        self._inboxes[participant].entries.pop(delivery_id, None)

    def beat(self, participant: str) -> None:
        """Note that a participant is alive."""
        self._check_up()
        self.alive[participant] = self._clock()

    def _context(self, owner: str, fields: dict[str, str]) -> Context:
        waiting = self._waiting.get(routing.waiting_id(fields.get("to", ""), fields.get("ack_for", "")))
        inbox = self._inboxes.get(fields.get("to", ""))
        return Context(
            tenant=self.tenant, owner=owner, participants=self._participants, keys=tuple(self._keys.get(owner, ())),
            seen=routing.waiting_id(owner, fields.get("request_id", "")) in self._seen,
            waiting_for=waiting.envelope.to if waiting else "", inbox=len(inbox.entries) if inbox else 0,
            now_ms=self._now_ms(),
        )  # fmt: skip

    def _deliver(self, decision: Deliver) -> None:
        envelope = decision.envelope
        name = routing.waiting_id(envelope.sender, envelope.request_id)
        self._seen.add(name)
        if decision.settles:
            self._waiting.pop(decision.settles, None)
        self._put(envelope)
        if decision.interval_ms:
            self._waiting[name] = Waiting(envelope=envelope, interval_ms=decision.interval_ms)

    def _bury(self, name: str, outcome: Dead) -> None:
        del self._waiting[name]
        self.dead.append(outcome.envelope)
        entries = self._inboxes[outcome.envelope.to].entries
        for delivery_id in [k for k, entry in entries.items() if entry.envelope.request_id == outcome.envelope.request_id]:
            del entries[delivery_id]
        if outcome.tell is not None:
            self._put(outcome.tell)

    def _put(self, envelope: Envelope) -> None:
        self._next += 1
        inbox = self._inboxes[envelope.to]
        inbox.entries[f"0-{self._next}"] = _Entry(envelope)
        inbox.arrived.set()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _check_up(self) -> None:
        if self.down:
            raise Unavailable("the bus does not answer")


class MemoryBus:
    """One participant's end of a `MemoryHub`; satisfies `Bus`."""

    def __init__(self, hub: MemoryHub, participant: str, pod: str, key: SigningKey) -> None:
        self.key = key
        self._hub = hub
        self._participant = participant
        self._pod = pod
        self._first = True

    async def send(self, envelope: Envelope) -> None:
        """See `Bus.send`."""
        self._hub.post(self._participant, self.key.sign(envelope).to_fields())

    async def receive(self, block: float) -> list[Delivery]:
        """See `Bus.receive`."""
        if self._first:
            pending = self._hub.take(self._participant, self._pod, pending=True)
            self._first = False
            if pending:
                return pending
        new = self._hub.take(self._participant, self._pod, pending=False)
        if not new:
            await self._hub.arrival(self._participant, block)
            new = self._hub.take(self._participant, self._pod, pending=False)
        return new

    async def done(self, delivery_id: str) -> None:
        """See `Bus.done`."""
        self._hub.done(self._participant, delivery_id)

    async def alive(self) -> None:
        """See `Bus.alive`."""
        self._hub.beat(self._participant)

    async def aclose(self) -> None:
        """Nothing to close; what is in hand stays pending for this pod."""
