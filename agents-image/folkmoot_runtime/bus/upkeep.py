"""What the router does because time passed: missed ACKs, poisonous messages, floods, expiry, trimming.

Run every second beside the routing loop. Time is the server's own (TIME), so that clocks of pods do not matter.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from folkmoot_core import names, routing
from folkmoot_core.errors import Invalid
from folkmoot_core.messages import Envelope
from folkmoot_core.names import CORE
from folkmoot_core.routing import Dead, Resend, Waiting
from folkmoot_runtime.bus.accounts import Accounts
from folkmoot_runtime.bus.connection import RedisError
from folkmoot_runtime.bus.directory import Directory
from folkmoot_runtime.bus.resp import GROUP
from folkmoot_runtime.bus.router import Note, Router, await_ack, owe, tell

log = logging.getLogger(__name__)
EVERY_SECONDS = 1.0
DUE_AT_ONCE = 100
MAX_DEAD = 10_000  # entries of the dead stream; the ledger keeps the record for good
MAX_SEEN = 100_000  # remembered request ids
MANY_CONSUMERS = 16  # pods that read or have read an inbox: from here on, those that are gone are forgotten
MAX_CONSUMERS = 32  # a name may have a mebibyte
STALE_MS = 3_600_000
AHEAD_MS = 60_000


class Upkeep:
    """The periodic half of the router."""

    def __init__(self, redis: Any, tenant: str, directory: Directory, accounts: Accounts, router: Router) -> None:
        self._redis = redis
        self._tenant = tenant
        self._directory = directory
        self._accounts = accounts
        self._router = router

    async def run(self) -> None:
        """For ever, once a second."""
        while True:
            try:
                await self.once()
            except (RedisError, OSError) as error:
                log.warning("upkeep failed; trying again", extra={"error": type(error).__name__})
            await asyncio.sleep(EVERY_SECONDS)

    async def once(self) -> None:
        """Everything that is due. Floods first: at the memory limit, only taking away works."""
        now_ms = await self._now_ms()
        participants = sorted(self._directory.participants())
        await self._router.stop_floods()
        await self._overdue(now_ms)
        for participant in participants:
            if await self._tidy_group(participant, now_ms):
                await self._poison(participant, now_ms)
                await self._trim(names.inbox_key(self._tenant, participant))
        if self._directory.known:
            for gone in sorted(self._accounts.holders() - self._directory.participants()):
                await self._accounts.remove(gone)
        await self._accounts.expire()
        seen = names.seen_key(self._tenant)
        await self._redis.zremrangebyscore(seen, "-inf", now_ms - routing.SEEN_WINDOW_MS)
        await self._redis.zremrangebyrank(seen, 0, -MAX_SEEN - 1)

    async def _overdue(self, now_ms: int) -> None:
        due = await self._redis.zrangebyscore(names.ack_due_key(self._tenant), "-inf", now_ms, start=0, num=DUE_AT_ONCE)
        for name in due:
            async with self._router.turn:
                text = await self._redis.hget(names.delivered_key(self._tenant), name)
                if text is None:  # its ACK came while we looked
                    await self._redis.zrem(names.ack_due_key(self._tenant), name)
                    continue
                waiting = Waiting.model_validate_json(text)
                outcome = routing.overdue(waiting, now_ms)
                if isinstance(outcome, Resend):
                    await self._resend(waiting, outcome)
                else:
                    await self._bury(outcome)

    async def _resend(self, waiting: Waiting, outcome: Resend) -> None:
        envelope = outcome.envelope
        transaction = self._redis.pipeline(transaction=True)
        transaction.xadd(names.inbox_key(self._tenant, envelope.to), dict(envelope.to_fields()))
        await_ack(transaction, self._tenant, waiting.model_copy(update={"envelope": envelope}))
        owe(transaction, self._tenant, Note("bus.resent", envelope.to, routing.record_of(envelope), envelope.conversation))
        await transaction.execute()
        log.warning("message resent", extra={"request_id": envelope.request_id, "to": envelope.to, "attempt": envelope.attempt})

    async def _bury(self, outcome: Dead) -> None:
        """Take a dead message back from the inbox, keep it in the dead stream, record it, tell its sender."""
        envelope = outcome.envelope
        inbox = names.inbox_key(self._tenant, envelope.to)
        name = routing.waiting_id(envelope.sender, envelope.request_id)
        copies = [each for each, fields in await self._redis.xrange(inbox) if fields.get("request_id") == envelope.request_id]
        transaction = self._redis.pipeline(transaction=True)
        if copies:
            transaction.xack(inbox, GROUP, *copies)
            transaction.xdel(inbox, *copies)
        transaction.hdel(names.delivered_key(self._tenant), name)
        transaction.zrem(names.ack_due_key(self._tenant), name)
        transaction.xadd(names.dead_key(self._tenant), dict(envelope.to_fields()), maxlen=MAX_DEAD, approximate=True)
        record = routing.record_of(envelope, outcome.reason)
        owe(transaction, self._tenant, Note("bus.dead", envelope.to, record, envelope.conversation))
        if outcome.tell is not None:
            tell(transaction, self._tenant, outcome.tell)
        await transaction.execute()
        log.error("message is dead", extra={"request_id": envelope.request_id, "to": envelope.to, "reason": outcome.reason})

    async def _tidy_group(self, participant: str, now_ms: int) -> bool:
        """An agent owns its group, and may give it consumers without number or move it to the end of time. False: it did, and
        the group starts anew; nothing is lost by that, for delivery is at least once."""
        inbox = names.inbox_key(self._tenant, participant)
        groups = await self._redis.xinfo_groups(inbox)
        group = next((each for each in groups if each["name"] == GROUP), None)
        if group is None:
            return True
        if group["consumers"] > MAX_CONSUMERS and participant != CORE:
            await self._router.stop_reader(participant, group["consumers"])
            return False
        if _order(group["last-delivered-id"])[0] > now_ms + AHEAD_MS:
            await self._redis.xgroup_setid(inbox, GROUP, "0")
            log.error("group was moved ahead of time; set back", extra={"participant": participant})
            return False
        if group["consumers"] > MANY_CONSUMERS:
            for each in await self._redis.xinfo_consumers(inbox, GROUP):
                if not each["pending"] and each["idle"] > STALE_MS:
                    await self._redis.xgroup_delconsumer(inbox, GROUP, each["name"])
        return True

    async def _poison(self, participant: str, now_ms: int) -> None:
        inbox = names.inbox_key(self._tenant, participant)
        pending = await self._redis.xpending_range(inbox, GROUP, min="-", max="+", count=DUE_AT_ONCE)
        for item in pending:
            if item["times_delivered"] <= routing.MAX_HANDOUTS:
                continue
            found = await self._redis.xrange(inbox, item["message_id"], item["message_id"])
            async with self._router.turn:
                try:
                    await self._bury(routing.poisonous(Envelope.from_fields(found[0][1]), now_ms))
                except (IndexError, Invalid):  # deleted meanwhile, or no message at all: nothing to tell anybody
                    await self._redis.xack(inbox, GROUP, item["message_id"])

    async def _trim(self, inbox: str) -> None:
        """Delete what every reader is done with: acknowledging alone never frees memory. The last delivered id is read before
        the pending ids, so that whatever is handed out in between lies behind the cut."""
        groups = await self._redis.xinfo_groups(inbox)
        last = next((group["last-delivered-id"] for group in groups if group["name"] == GROUP), "0-0")
        pending = await self._redis.xpending(inbox, GROUP)
        cut = pending["min"] if pending["pending"] else _after(last)
        if cut != "0-1":
            await self._redis.xtrim(inbox, minid=min(cut, _after(last), key=_order), approximate=False)

    async def _now_ms(self) -> int:
        seconds, micros = await self._redis.time()
        return int(seconds * 1000 + micros // 1000)


def _order(stream_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = stream_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def _after(stream_id: str) -> str:
    milliseconds, sequence = _order(stream_id)
    return f"{milliseconds}-{sequence + 1}"
