"""The real bus of a participant: Redis Streams on Valkey, through an own ACL user. The twin is `memory.py`.

It owns reconnecting: a server that restarted knows no agent's password any more, a password expires after an hour; in both
cases a new one is fetched at the router's door. What it must not do: touch another key than own outbox, inbox and alive key.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from folkmoot_core import names
from folkmoot_core.errors import Invalid, Unavailable
from folkmoot_core.messages import Envelope
from folkmoot_core.signing import SigningKey
from folkmoot_runtime.bus.credentials import Credentials, RouterDoor
from folkmoot_runtime.bus.interface import Delivery
from folkmoot_runtime.bus.resp import COMMAND_TIMEOUT, GROUP, MAX_BLOCK, BusError, Connection, Login, entries
from folkmoot_runtime.settings import Settings
from folkmoot_runtime.trust import Trust

log = logging.getLogger(__name__)
Result = TypeVar("Result")
ALIVE_SECONDS = 30  # expiry of the alive key, and what three missed beats cost
TAKE_OVER_MS = 60_000  # a delivery that no pod renewed for this long is taken over
TAKE_OVER_EVERY = 15.0  # seconds between looks for such deliveries
TIMEOUT = 20.0
FIRST_WAIT = 0.05
LONGEST_WAIT = 1.0
BATCH = 32  # deliveries handed out at once
MOST_PENDING = 1000  # deliveries in hand that are looked at
Entry = tuple[str, dict[str, str]]


@dataclass(frozen=True)
class Seat:
    """Who this end belongs to. `timeout`: seconds that one call may take with all its retries."""

    tenant: str
    participant: str
    pod: str
    timeout: float = TIMEOUT


@dataclass
class _Session:
    """Connections under one password. Blocking reads have their own, so that they delay nothing."""

    commands: Connection
    blocking: Connection
    renew_at: float  # epoch seconds

    async def aclose(self) -> None:
        await self.commands.aclose()
        await self.blocking.aclose()


class ValkeyBus:
    """One participant's end; satisfies `Bus`. `receive` may be called by one task at a time, the rest by any."""

    def __init__(self, url: str, seat: Seat, key: SigningKey, credentials: Credentials, trust: Trust | None = None) -> None:
        self.key = key
        self._url = url
        self._seat = seat
        self._credentials = credentials
        self._trust = trust
        self._inbox = names.inbox_key(seat.tenant, seat.participant)
        self._outbox = names.outbox_key(seat.tenant, seat.participant)
        self._alive = names.alive_key(seat.tenant, seat.participant)
        self._session: _Session | None = None
        self._opening = asyncio.Lock()
        self._in_hand: set[str] = set()
        self._recover = True  # look for what is pending: at the start, and whenever a reply may have been lost
        self._took_over = 0.0

    async def send(self, envelope: Envelope) -> None:
        """See `Bus.send`. A lost reply leads to a second entry with the same request_id, which the router drops."""
        words = [word for pair in self.key.sign(envelope).to_fields().items() for word in pair]
        await self._command(lambda bus: bus.call("XADD", self._outbox, "*", *words))

    async def receive(self, block: float) -> list[Delivery]:
        """See `Bus.receive`."""
        try:
            if self._recover:
                if missed := await self._command(self._missed):
                    return await self._accept(missed)
                self._recover = False
            if taken := await self._take_over():
                return taken
            return await self._accept(await self._read(min(block, MAX_BLOCK)))
        except Unavailable:
            self._recover = True
            raise

    async def done(self, delivery_id: str) -> None:
        """See `Bus.done`."""
        await self._command(lambda bus: bus.call("XACK", self._inbox, GROUP, delivery_id))
        self._in_hand.discard(delivery_id)

    async def alive(self) -> None:
        """See `Bus.alive`."""

        async def beat(bus: Connection) -> None:
            await bus.call("SET", self._alive, self._seat.pod, "EX", ALIVE_SECONDS)
            mine = set(await self._pending_ids(bus))
            self._in_hand &= mine  # another pod took over what is missing: renewing would steal it back
            if self._in_hand:
                await bus.call("XCLAIM", self._inbox, GROUP, self._seat.pod, 0, *sorted(self._in_hand), "JUSTID")

        await self._command(beat)

    async def aclose(self) -> None:
        """See `Bus.aclose`."""
        await self._drop(self._session)

    async def _missed(self, bus: Connection) -> list[Entry]:
        """Deliveries to this pod that it does not hold: a predecessor's, or those of a reply that was lost.

        Not XREADGROUP with id 0: that raises the delivery count of everything in hand, and the router takes a high count for
        a message that kills its readers.
        """
        ids = [each for each in await self._pending_ids(bus) if each not in self._in_hand][:BATCH]
        return entries(await bus.call("XCLAIM", self._inbox, GROUP, self._seat.pod, 0, *ids)) if ids else []

    async def _pending_ids(self, bus: Connection) -> list[str]:
        pending = await bus.call("XPENDING", self._inbox, GROUP, "-", "+", MOST_PENDING, self._seat.pod)
        return [item[0] for item in pending]

    async def _take_over(self) -> list[Delivery]:
        """What a pod that died had in hand. XAUTOCLAIM's idle time is the atomic guard; there is no lock to be left behind."""
        now = time.monotonic()
        if now - self._took_over < TAKE_OVER_EVERY:
            return []
        self._took_over = now
        answer = await self._command(
            lambda bus: bus.call("XAUTOCLAIM", self._inbox, GROUP, self._seat.pod, TAKE_OVER_MS, "0-0", "COUNT", BATCH)
        )
        return await self._accept([item for item in entries(answer[1]) if item[0] not in self._in_hand])

    async def _read(self, block: float) -> list[Entry]:
        words = ("XREADGROUP", "GROUP", GROUP, self._seat.pod, "COUNT", BATCH, "BLOCK", max(1, int(block * 1000)))

        async def read(session: _Session) -> list[Entry]:
            answer = await session.blocking.call(*words, "STREAMS", self._inbox, ">", timeout=COMMAND_TIMEOUT + block)
            return entries(answer[0][1]) if answer else []

        return await self._attempt(read, once=True)

    async def _accept(self, items: list[Entry]) -> list[Delivery]:
        """Parse what was handed out. What is no envelope cannot come from the router: it is logged and put away, and the
        router's own deadline tells the sender."""
        deliveries = []
        for delivery_id, fields in items:
            try:
                deliveries.append(Delivery(delivery_id, Envelope.from_fields(fields or {})))
                self._in_hand.add(delivery_id)
            except Invalid as error:
                log.error("inbox holds what is no message", extra={"delivery": delivery_id, "error": error.message})
                await self.done(delivery_id)
        return deliveries

    async def _command(self, act: Callable[[Connection], Awaitable[Result]]) -> Result:
        async def on_session(session: _Session) -> Result:
            return await act(session.commands)

        return await self._attempt(on_session)

    async def _attempt(self, act: Callable[[_Session], Awaitable[Result]], *, once: bool = False) -> Result:
        """Act on a session, on a new one after a failure, within the seat's timeout. `once`: a failure is the caller's affair at once."""
        wait = FIRST_WAIT
        last = ""
        try:
            async with asyncio.timeout(self._seat.timeout):
                while True:
                    session = None
                    try:
                        session = await self._open()
                        return await act(session)
                    except BusError as error:
                        last = error.code
                    except OSError as error:  # TimeoutError is one
                        last = type(error).__name__
                    except Unavailable as error:
                        last = error.message
                    await self._drop(session)
                    if once:
                        raise Unavailable(f"bus {self._url}: {last}")
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, LONGEST_WAIT)
        except TimeoutError:
            raise Unavailable(f"bus {self._url} did not answer within {self._seat.timeout:g} s: {last or 'no reply'}") from None

    async def _open(self) -> _Session:
        async with self._opening:
            if self._session is not None and time.time() < self._session.renew_at:
                return self._session
            answer = await self._credentials.fetch(self.key)
            if self._session is not None:
                await self._session.aclose()
            login = Login(answer.username, answer.password)
            now = time.time()
            renew_at = now + max(answer.expires - now, 0.0) * 2 / 3
            commands = await Connection.open(self._url, login, self._trust)
            try:
                blocking = await Connection.open(self._url, login, self._trust)
            except BaseException:
                await commands.aclose()
                raise
            self._session = _Session(commands, blocking, renew_at)
            return self._session

    async def _drop(self, failed: _Session | None) -> None:
        """Give a session up, unless another task has already put a new one in its place."""
        if failed is None:
            return
        if self._session is failed:
            self._session = None
        await failed.aclose()


def open_bus(settings: Settings, participant: str, key: SigningKey, trust: Trust) -> ValkeyBus:
    """This process's end of the tenant's bus, as its settings say."""
    door = RouterDoor(settings.router_url, settings.token_file(names.AUDIENCE_BUS), trust, settings.timeout)
    return ValkeyBus(settings.bus_url, Seat(settings.tenant, participant, settings.pod), key, door, trust)
