"""The router: the only one that writes inboxes. It takes messages from the outboxes, decides (folkmoot_core.routing) and acts.

What it does to one message is one MULTI, the record it owes the ledger included, so that a kill at any moment leaves the
message either untouched or settled. `accounts.py` says who signed, `upkeep.py` does what is due, `recorder.py` pays the record.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from folkmoot_core import names, routing
from folkmoot_core.messages import Envelope
from folkmoot_core.names import CORE
from folkmoot_core.routing import Context, Decision, Deliver, Refuse, Waiting
from folkmoot_runtime.bus.accounts import Accounts
from folkmoot_runtime.bus.connection import RedisError, ResponseError
from folkmoot_runtime.bus.directory import Directory
from folkmoot_runtime.bus.resp import GROUP, ROUTER_GROUP

log = logging.getLogger(__name__)
CONSUMER = "router"
BATCH = 16  # messages per outbox and read: a busy sender does not hold up the others
BLOCK_MS = 1000
MAX_OWED = 5000  # records the ledger has not taken: then routing waits, for nothing happens off the record
MAX_CORE_INBOX = 5000  # messages the conductor has not read: then the outboxes keep theirs
PAUSE_SECONDS = 0.5
MAX_OUTBOX = 2000  # messages in an agent's outbox: the router takes them faster than any honest agent writes them
MAX_OUTBOX_BYTES = 32 * 1024 * 1024


class Router:
    """Routes for one tenant. `turn` is held while one message or one overdue delivery is settled, because each settles what
    the other looked at."""

    def __init__(self, redis: Any, tenant: str, directory: Directory, accounts: Accounts) -> None:
        self.turn = asyncio.Lock()
        self._redis = redis
        self._tenant = tenant
        self._directory = directory
        self._accounts = accounts
        self._recover = True  # look at what was read and not settled: at the start and after every failure

    async def run(self) -> None:
        """Route for ever; a bus that does not answer is waited for."""
        while True:
            try:
                if await self._held_back():
                    await asyncio.sleep(PAUSE_SECONDS)
                else:
                    await self.step(BLOCK_MS)
            except (RedisError, OSError) as error:
                log.warning("bus does not answer", extra={"error": type(error).__name__})
                self._recover = True
                self._accounts.forget_streams()
                await asyncio.sleep(PAUSE_SECONDS)

    async def step(self, block_ms: int) -> int:
        """One read of all outboxes, and the settling of what it gave; returns how many messages that was."""
        owners = {names.outbox_key(self._tenant, each): each for each in sorted(self._directory.participants())}
        await self.stop_floods()  # before reading: what is too large to hold must not be read
        start = "0" if self._recover else ">"
        block = None if self._recover else block_ms
        answer = await self._redis.xreadgroup(ROUTER_GROUP, CONSUMER, dict.fromkeys(owners, start), count=BATCH, block=block)
        settled = 0
        for outbox, items in answer or []:
            for message_id, fields in items:
                await self._settle(outbox, owners[outbox], message_id, fields or {})
                settled += 1
        if not settled:
            self._recover = False
        return settled

    async def stop_floods(self) -> None:
        """An agent may write its own outbox without bound; ACLs cannot limit that. One that does loses its messages, and its
        user for a while; on record."""
        participants = sorted(self._directory.participants())
        sizes = self._redis.pipeline(transaction=False)
        for participant in participants:
            await self._accounts.ensure_streams(participant)
            outbox = names.outbox_key(self._tenant, participant)
            sizes.xlen(outbox)
            sizes.memory_usage(outbox, samples=0)
        found = iter(await sizes.execute())
        for participant, length, size in zip(participants, found, found, strict=False):
            if participant != CORE and (length > MAX_OUTBOX or (size or 0) > MAX_OUTBOX_BYTES):
                await self._stop_flood(participant, int(length))

    async def _stop_flood(self, participant: str, length: int) -> None:
        await self._accounts.remove(participant, block=True)
        await self._redis.delete(names.outbox_key(self._tenant, participant))  # first: at the memory limit only this works
        self._accounts.forget_streams()
        await self._accounts.ensure_streams(participant)
        transaction = self._redis.pipeline(transaction=True)
        owe(transaction, self._tenant, Note("bus.refused", participant, {"reason": "Flooded", "messages": length}))
        await transaction.execute()
        log.error("outbox flooded; its messages were refused", extra={"participant": participant, "messages": length})

    async def stop_reader(self, participant: str, consumers: int) -> None:
        """The same for one that fills the memory with consumers of its inbox: the group goes with them and is made anew."""
        await self._accounts.remove(participant, block=True)
        await self._redis.xgroup_destroy(names.inbox_key(self._tenant, participant), GROUP)
        self._accounts.forget_streams()
        await self._accounts.ensure_streams(participant)
        transaction = self._redis.pipeline(transaction=True)
        owe(transaction, self._tenant, Note("bus.refused", participant, {"reason": "Flooded", "consumers": consumers}))
        await transaction.execute()
        log.error("inbox flooded with consumers; they were removed", extra={"participant": participant, "consumers": consumers})

    async def _held_back(self) -> bool:
        owed = await self._redis.xlen(names.record_key(self._tenant))
        unread = await self._redis.xlen(names.inbox_key(self._tenant, CORE))
        return bool(owed > MAX_OWED or unread > MAX_CORE_INBOX)

    async def _settle(self, outbox: str, owner: str, message_id: str, fields: dict[str, str]) -> None:
        async with self.turn:
            context = await self._context(owner, message_id, fields)
            decision = routing.decide(fields, context)
            if isinstance(decision, Refuse) and decision.reason == "UnknownRecipient" and owner == CORE:
                await self._directory.refresh()  # an agent may be newer than the last look; agents write to the core alone
                decision = routing.decide(fields, await self._context(owner, message_id, fields))
            transaction = self._redis.pipeline(transaction=True)
            self._act(transaction, owner, decision, context.now_ms)
            transaction.xack(outbox, ROUTER_GROUP, message_id)
            transaction.xdel(outbox, message_id)
            try:
                await transaction.execute()
            except ResponseError as error:
                # Refused as a whole (memory is full): nothing happened, the message stays pending and is looked at again.
                log.warning("bus refused a transaction", extra={"error": str(error).split(" ", 1)[0]})
                raise

    async def _context(self, owner: str, message_id: str, fields: dict[str, str]) -> Context:
        to, ack_for, request_id = fields.get("to", ""), fields.get("ack_for", ""), fields.get("request_id", "")
        inbox = names.inbox_key(self._tenant, to) if to in self._directory.participants() else ""
        reads = self._redis.pipeline(transaction=False)
        reads.time()
        reads.zscore(names.seen_key(self._tenant), routing.waiting_id(owner, request_id))
        reads.hget(names.delivered_key(self._tenant), routing.waiting_id(to, ack_for))
        if inbox:
            reads.xlen(inbox)
        (seconds, micros), seen, waiting, *length = await reads.execute()
        return Context(
            tenant=self._tenant, owner=owner, participants=self._directory.participants(),
            keys=self._accounts.keys(owner, int(message_id.split("-", 1)[0])), seen=seen is not None,
            waiting_for=Waiting.model_validate_json(waiting).envelope.to if waiting else "",
            inbox=int(length[0]) if length else 0, now_ms=seconds * 1000 + micros // 1000,
        )  # fmt: skip

    def _act(self, transaction: Any, owner: str, decision: Decision, now_ms: int) -> None:
        """Add to the transaction what a decision calls for; a duplicate calls for nothing."""
        if isinstance(decision, Deliver):
            envelope = decision.envelope
            name = routing.waiting_id(envelope.sender, envelope.request_id)
            transaction.xadd(names.inbox_key(self._tenant, envelope.to), dict(envelope.to_fields()))
            transaction.zadd(names.seen_key(self._tenant), {name: now_ms})
            if decision.settles:
                transaction.hdel(names.delivered_key(self._tenant), decision.settles)
                transaction.zrem(names.ack_due_key(self._tenant), decision.settles)
            if decision.interval_ms:
                await_ack(transaction, self._tenant, Waiting(envelope=envelope, interval_ms=decision.interval_ms))
        elif isinstance(decision, Refuse):
            data = {"reason": decision.reason, "kind": decision.kind, "to": decision.to, "request_id": decision.request_id}
            owe(transaction, self._tenant, Note("bus.refused", owner, data))
            log.warning("message refused", extra={"sender": owner, "reason": decision.reason, "detail": decision.message})
            if decision.tell is not None:
                tell(transaction, self._tenant, decision.tell)


def await_ack(transaction: Any, tenant: str, waiting: Waiting) -> None:
    """Note that a delivery waits for its ACK until its deadline."""
    name = routing.waiting_id(waiting.envelope.sender, waiting.envelope.request_id)
    transaction.hset(names.delivered_key(tenant), name, waiting.model_dump_json())
    transaction.zadd(names.ack_due_key(tenant), {name: waiting.envelope.deadline_ms})


def tell(transaction: Any, tenant: str, envelope: Envelope) -> None:
    """Put the router's own answer into the sender's inbox."""
    transaction.xadd(names.inbox_key(tenant, envelope.to), dict(envelope.to_fields()))


@dataclass(frozen=True)
class Note:
    """An entry that the ledger must get."""

    type: str
    actor: str
    data: Mapping[str, str | int]
    session: str = ""


def owe(transaction: Any, tenant: str, note: Note) -> None:
    """Note an entry in the transaction that does what it records; recorder.py sends it. Texts are cut: some are the sender's."""
    data = {key: value if isinstance(value, int) else value[:200] for key, value in note.data.items()}
    fields = {"type": note.type, "actor": note.actor, "session": note.session, "data": json.dumps(data)}
    transaction.xadd(names.record_key(tenant), fields)
