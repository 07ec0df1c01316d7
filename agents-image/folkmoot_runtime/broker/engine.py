"""One model call from request to answer, crash-safe at every step. Called by the door; owns the journal.

Obligations, in this order; the numbers are repeated at the steps:
1. policy before anything else; 2. one flight per call key; 3. a stored answer is given out and no second call made;
4. the row and its intent are in the journal; 5. the intent is durable in the ledger (no receipt, no effect); 6. SENT is in the
journal before the request leaves; 7. the answer is in the journal before anyone may use it; 8. the outcome is durable in the
ledger before the answer is given out.
The caller still owes: who the agent is (its token was verified).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

from folkmoot_core import policy, pricing
from folkmoot_core.calls import CallAnswer, CallEnvelope, ModelResult, call_key
from folkmoot_core.document import TenantDocument
from folkmoot_core.entries import EntryRequest
from folkmoot_core.errors import Conflict, FolkmootError, Forbidden, Unavailable
from folkmoot_core.policy import Allowed, Refused
from folkmoot_core.resources.tenant import ProviderSpec
from folkmoot_runtime.broker import asks, records
from folkmoot_runtime.broker.attempts import Answered, Attempts, Outcome
from folkmoot_runtime.broker.journal import Call, Journal
from folkmoot_runtime.broker.reactions import Doubtful, Failed
from folkmoot_runtime.broker.records import Context
from folkmoot_runtime.ledger.client import Appender

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
FLUSH_SECONDS = 5.0  # between tries to hand queued entries to the ledger


class ProviderFailed(FolkmootError):
    """The vendor failed or refused, the broker has done what it may: the caller should not ask again at once."""

    reason = "ProviderFailed"


@dataclass
class Engine:
    """`document` gives the tenant document in force, or None before the first. `observe` hears of each provider outcome
    (name, reason or '' for success, sentence). `step` is called between the steps, for the crash tests."""

    journal: Journal
    ledger: Appender
    attempts: Attempts
    document: Callable[[], TenantDocument | None]
    observe: Callable[[str, str, str], None] = lambda *_: None
    step: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.time
    salt: Callable[[], bytes] = lambda: secrets.token_bytes(32)
    _flights: dict[str, asyncio.Task[CallAnswer]] = field(default_factory=dict)
    _flying: dict[str, str] = field(default_factory=dict)
    """Session of each flight."""
    _closed: bool = False
    # SQLite waits for the disk; one thread, so that transactions never overlap.
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "journal"))

    async def ask(self, agent: str, envelope: CallEnvelope) -> CallAnswer:
        """Answer one call of an authenticated agent. Raises `Forbidden` (policy), `Unavailable` (nothing left; ask again),
        `Conflict` (in doubt for good) or `ProviderFailed`."""
        document = self.document()
        if document is None:
            raise Unavailable("the tenant document has not arrived from the conductor yet", reason="NoDocument", retry_after=2)
        key = call_key(agent, envelope)
        verdict = policy.decide(envelope, agent, document)  # 1
        if isinstance(verdict, Refused):
            await self._refuse(verdict, agent, envelope, document)
        assert isinstance(verdict, Allowed)  # noqa: S101 - _refuse always raises
        context = Context(agent, verdict.agent, verdict.provider, document.digest())
        flight = self._flights.get(key)  # 2
        if flight is not None:
            return (await asyncio.shield(flight)).model_copy(update={"stored": True})
        call = Call(key, agent, envelope, "PREPARED")
        flight = asyncio.create_task(self._fly(call, verdict, context, document.currency), name=f"call-{key[:12]}")
        self._flights[key] = flight
        self._flying[key] = envelope.session
        flight.add_done_callback(lambda done: self._landed(key, done))
        # Shielded: an agent that goes away must not turn a call that is being paid for into one in doubt.
        return await asyncio.shield(flight)

    async def erase(self, sessions: Sequence[str]) -> int:
        """Destroy what is kept of sessions that have ended, and refuse further calls for them; how many calls there were. Raises
        `Unavailable` while one is under way: its answer would be stored afterwards."""
        await self._journal(self.journal.refuse, sessions)
        if flying := set(sessions) & set(self._flying.values()):
            raise Unavailable(
                f"{len(flying)} of the sessions have calls under way; ask again", reason="CallsUnderWay", retry_after=5
            )
        return await self._journal(self.journal.erase, sessions)

    async def recover(self) -> int:
        """At start: what was SENT when the last process ended is in doubt, on record. Returns how many."""
        lost = await self._journal(self.journal.in_flight)
        for call in lost:
            await self._doubt(call)
        return len(lost)

    async def flush_forever(self) -> None:
        """Hand queued entries to the ledger whenever it is there."""
        while True:
            try:
                await self.flush()
            except FolkmootError as error:
                log.warning("ledger does not take entries", extra={"reason": error.reason, "detail": error.message})
            await asyncio.sleep(FLUSH_SECONDS)

    async def flush(self) -> None:
        """Append what is queued, oldest first."""
        for entry in await self._journal(self.journal.due):
            await self._append_due(entry)

    async def number(self, name: str) -> int:
        """The next of a counter that rises for ever, kept in the journal."""
        return await self._journal(self.journal.next_number, name)

    async def close(self) -> None:
        """Give up what is in flight; it will be found in doubt. The journal is closed. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        for flight in list(self._flights.values()):
            flight.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        await self._journal(self.journal.close)
        self._thread.shutdown()

    async def _refuse(self, refusal: Refused, agent: str, envelope: CallEnvelope, document: TenantDocument) -> None:
        entry = next((item for item in document.agents if item.name == agent), None)
        spec = next((item for item in document.providers if item.name == envelope.provider), None)
        context = Context(agent, entry, spec, document.digest())
        key = call_key(agent, envelope)
        record = records.refused(context, envelope, key, refusal.reason, now=self.clock())
        await self._journal(self.journal.note, record, key)
        raise Forbidden(refusal.message, reason=refusal.reason)

    async def _fly(self, call: Call, allowed: Allowed, context: Context, currency: str) -> CallAnswer:
        # In the flight, not before it: whoever erases looks at flights after refusing, so one of the two sees the other.
        if await self._journal(self.journal.refused, call.envelope.session):
            raise Conflict(f"session {call.envelope.session} was erased; no call is made for it", reason="SessionErased")
        while True:
            known = await self._journal(self.journal.get, call.key)
            if known is not None and known.state == "SENT":  # its answer could not be stored: the disk was full
                known = await self._doubt(known)
            ask = asks.decide(known)
            if isinstance(ask, asks.Replay):  # 3
                await self._settle(call.key)
                return ask.answer.model_copy(update={"stored": True})
            if isinstance(ask, asks.Stay):
                raise Conflict(f"call {call.key[:12]} has left {asks.MAX_DOUBTS} times and nobody knows how it ended; "
                               "it is not made again", reason="CallInDoubt")  # fmt: skip
            current = replace(known or call, state="PREPARED", run=ask.number, reason="", message="")
            await self._announce(current, context, prepared=ask.prepared)
            outcome = await self._send(current, allowed.provider)
            current = replace(current, attempts=await self._attempts_of(call.key))
            if isinstance(outcome, Answered):
                return await self._answer(current, outcome.result, allowed, (context, currency))
            await self._end(current, outcome, context)
            if not (isinstance(outcome, Doubtful) and outcome.repeat):
                raise ProviderFailed(f"provider {allowed.provider.name}: {outcome.message}", reason=outcome.reason)

    async def _announce(self, call: Call, context: Context, *, prepared: bool) -> None:
        await self._settle(call.key)  # how the run before ended is on record before another is announced
        if not prepared:
            record = records.intent(context, call, salt=self.salt(), now=self.clock())
            await self._journal(self.journal.put, call, self.clock(), record)  # 4
        self.step("prepared")
        entry = await self._journal(self.journal.entry, records.intent_id(call.key, call.run))
        if entry is None:
            raise Conflict(f"call {call.key[:12]}: its intent is missing from the journal", reason="JournalDamaged")
        await self._append(entry)  # 5
        self.step("announced")

    async def _send(self, call: Call, spec: ProviderSpec) -> Outcome:
        attempts = call.attempts

        async def before() -> None:
            nonlocal attempts
            attempts += 1
            await self._journal(self.journal.move, call.key, "SENT", attempts, self.clock())  # 6
            self.step("sent")

        async def after() -> None:
            await self._journal(self.journal.move, call.key, "PREPARED", attempts, self.clock())
            self.step("refused")

        outcome = await self.attempts.run(spec, call.envelope, before, after)
        self.step("came back")
        self.observe(spec.name, "" if isinstance(outcome, Answered) else outcome.reason,
                     "" if isinstance(outcome, Answered) else outcome.message)  # fmt: skip
        return outcome

    async def _attempts_of(self, key: str) -> int:
        row = await self._journal(self.journal.get, key)
        return row.attempts if row is not None else 0

    async def _answer(self, call: Call, result: ModelResult, allowed: Allowed, shared: tuple[Context, str]) -> CallAnswer:
        context, currency = shared
        cost = pricing.cost(result.usage, allowed.price) if allowed.price is not None else None
        answer = CallAnswer(
            call_key=call.key, result=result, provider=allowed.provider.name, cost=cost,
            currency=currency if cost is not None else None,
            family=policy.observed_family(allowed.provider, call.envelope.model, result.model_observed),
        )  # fmt: skip
        done = replace(call, state="DONE", answer=answer)
        record = records.answered(context, done, answer, salt=self.salt(), now=self.clock())
        await self._journal(self.journal.put, done, self.clock(), record, due=True)  # 7
        self.step("stored")
        await self._settle(call.key)  # 8
        self.step("recorded")
        return answer

    async def _end(self, call: Call, outcome: Failed | Doubtful, context: Context) -> None:
        doubtful = isinstance(outcome, Doubtful)
        ended = replace(call, state="IN_DOUBT" if doubtful else "FAILED", doubts=call.doubts + doubtful,
                        reason=outcome.reason, message=outcome.message)  # fmt: skip
        record = records.ended(context, ended, "in_doubt" if doubtful else "failed", now=self.clock())
        await self._journal(self.journal.put, ended, self.clock(), record, due=True)
        log.warning("model call failed", extra={"agent": call.agent, "call": call.key[:12], "reason": outcome.reason,
                                                "attempts": call.attempts, "in_doubt": doubtful})  # fmt: skip

    async def _settle(self, key: str) -> None:
        for entry in await self._journal(self.journal.owing, key):
            await self._append_due(entry)

    async def _append_due(self, entry: EntryRequest) -> None:
        try:
            await self._append(entry)
        except Conflict as error:
            if error.reason != "IdReused":  # the log is closed, for one: not about this entry
                raise
            # Another fact has this id, so a journal was lost. Waiting would hold up every entry behind it.
            log.error("the ledger knows this entry with other content", extra={"entry": entry.id, "detail": error.message})
            await self._journal(self.journal.received, entry.id, -1)

    async def _append(self, entry: EntryRequest) -> None:
        receipt = await self.ledger.append(entry)
        await self._journal(self.journal.received, entry.id, receipt.index)

    async def _doubt(self, call: Call) -> Call:
        doubtful = replace(call, state="IN_DOUBT", doubts=call.doubts + 1, reason="BrokerInterrupted",
                           message="the broker ended, or could not write, while this call was in flight")  # fmt: skip
        record = records.ended(self._context(call), doubtful, "in_doubt", now=self.clock())
        await self._journal(self.journal.put, doubtful, self.clock(), record, due=True)
        return doubtful

    def _context(self, call: Call) -> Context:
        document = self.document()
        if document is None:
            return Context(call.agent, None, None, "")
        agent = next((item for item in document.agents if item.name == call.agent), None)
        spec = next((item for item in document.providers if item.name == call.envelope.provider), None)
        return Context(call.agent, agent, spec, document.digest())

    def _landed(self, key: str, flight: asyncio.Task[CallAnswer]) -> None:
        del self._flights[key], self._flying[key]
        if not flight.cancelled():
            flight.exception()  # looked at, so that a call whose agents have all gone is no warning of asyncio's

    async def _journal(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*args, **kwargs))
        except sqlite3.Error as error:
            raise Unavailable(f"the call journal cannot be used: {error}", reason="JournalUnavailable") from error
