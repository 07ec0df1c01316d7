"""Has a log's checkpoints timestamped by the tenant's authorities (RFC 3161), and puts each timestamp on record. ledger.md §3.5.

Run by the ledger's own process beside the log, which never waits for it. When an authority is asked is a pure decision,
`folkmoot_core.ledger.anchoring`; what a token must be is `folkmoot_core.ledger.timestamp`'s. Obligations, numbered here and at the
steps: 1. what is timestamped is a published checkpoint, byte for byte as it is archived: where several authorities sign one size,
they sign the same bytes; 2. a nonce is random and used once; 3. nothing is kept of an answer that did not verify against the pinned
certificates over exactly these bytes; 4. a token is on disk before the entry that speaks of it, and the entry's id and content follow from
the files, so that a crash in between is healed by making it again; 5. an authority that is away, or lies, is reported and asked
again later: it ends nothing; 6. what cannot be kept, because the volume is full, is as good as not given.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from folkmoot_core.document import AuditEntry, TimestampAuthorityEntry
from folkmoot_core.entries import EntryRequest, Producer, Receipt, new_entry
from folkmoot_core.errors import Conflict, FolkmootError, Invalid, Unavailable
from folkmoot_core.ledger import anchor, anchored, anchoring, bundle, checkpoint, note, tiles, timestamp
from folkmoot_core.ledger.anchor import Stamp
from folkmoot_core.ledger.anchoring import Cadence, Standing
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.fence import Answer
from folkmoot_core.ledger.tiles import ENTRIES, WIDTH, Tile
from folkmoot_core.ledger.timestamp import QUERY_TYPE, Authority
from folkmoot_runtime.ledger.anchor_files import AnchorFiles
from folkmoot_runtime.ledger.interface import OWN, OWN_ACTOR
from folkmoot_runtime.peer import Peer

log = logging.getLogger(__name__)
LOOK_SECONDS: Final = 1.0  # between looks at what is due; a checkpoint a second is what there is to see
IDLE_SECONDS: Final = 5.0  # the same while there is no authority
ASK_SECONDS: Final = 12.0  # for one answer; the broker gives up before that
DEMAND_SECONDS: Final = 15.0  # that who demands a timestamp, or closes the log, waits for it
RECORD_AFTER: Final = 3  # failures in a row are an `anchor.failed` entry, one for each outage
CLOCK_SECONDS: Final = 300.0  # by which our clock and an authority's may differ before somebody should look


class Anchored(Protocol):
    """What is needed of a log: `Log`, or its twin."""

    async def append(self, requests: list[EntryRequest], producer: Producer) -> list[Receipt]: ...

    async def read(self, path: str) -> bytes | None: ...


class Transport(Protocol):
    """How an authority is reached: the broker's door, or a fake."""

    async def ask(self, authority: str, query: bytes) -> Answer:
        """The answer, whatever it is; raises `Unavailable` when there is none."""


class BrokerTimestamps:
    """`Transport` through the broker, which alone has a way out."""

    def __init__(self, broker: Peer) -> None:
        self._broker = broker

    async def ask(self, authority: str, query: bytes) -> Answer:
        """See `Transport.ask`."""
        response = await self._broker.request(
            "POST", f"/v1/timestamps/{authority}", body=query, headers={"Content-Type": QUERY_TYPE}
        )
        content_type = response.headers.get("Content-Type", "")
        if content_type.startswith("application/problem+json"):  # the broker's own word, not the authority's
            raise Unavailable(f"the broker does not reach it ({response.status_code})")
        return Answer(response.status_code, content_type, response.content[: timestamp.MAX_RESPONSE + 1])


class Clocks(NamedTuple):
    """Epoch seconds, seconds that never go back, and numbers that nobody can guess."""

    now: Callable[[], float]
    steady: Callable[[], float]
    nonce: Callable[[], int]


@dataclass
class Known:
    """One authority as the terms name it now. `pinned` is None where its certificates cannot be used."""

    entry: TimestampAuthorityEntry
    pinned: Authority | None = None
    standing: Standing = field(default_factory=Standing)
    newest: Stamp | None = None
    owed: Stamp | None = None
    """A token on disk that is not on record yet."""
    trouble: str = ""


@dataclass(frozen=True)
class State:
    """Fields of a `LogReport`."""

    anchored_size: int = 0
    anchored: str = ""
    unanchored: str = ""


class Anchors:
    """One log's timestamps. `terms` gives the tenant's audit settings, None while they are not known."""

    def __init__(
        self, ledger: Anchored, files: AnchorFiles, transport: Transport, terms: Callable[[], AuditEntry | None], clocks: Clocks
    ) -> None:
        self._ledger = ledger
        self._files = files
        self._transport = transport
        self._terms = terms
        self._clocks = clocks
        self._audit: AuditEntry | None = None
        self._known: dict[str, Known] = {}
        self._loaded = False
        self._looked, self._counting = 0, -1  # how far entries were looked at; the last one there that is growth
        self._demands: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._trouble = ""  # of all of them
        self._writing = asyncio.Lock()  # authorities are asked at the same time, and share files

    async def run(self) -> None:
        """Until cancelled. A look that fails is repeated; it never ends the log."""
        while True:
            self._wake.clear()
            demands, self._demands = self._demands, []
            try:
                await self.look(demanded=any(not demand.done() for demand in demands))
                self._trouble = ""
            except (FolkmootError, OSError) as error:
                if str(error) != self._trouble:  # once per trouble, not every second
                    log.warning("timestamps wait", extra={"error": str(error)})
                self._trouble = str(error)
            for demand in demands:
                if not demand.done():
                    demand.set_result(None)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if self._known else IDLE_SECONDS):
                    await self._wake.wait()

    async def now(self, seconds: float = DEMAND_SECONDS) -> None:
        """Have the newest checkpoint timestamped, whatever the cadence; returns when each authority was asked, or after `seconds`."""
        demand = asyncio.get_running_loop().create_future()
        self._demands.append(demand)
        self._wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await demand

    def state(self) -> State:
        """How the log stands."""
        newest = max((one.newest for one in self._known.values() if one.newest), key=lambda stamp: stamp.size, default=None)
        troubles = [f"{name}: {one.trouble}" for name, one in sorted(self._known.items()) if one.trouble]
        trouble = "; ".join([*([self._trouble] if self._trouble else []), *troubles])[:1024]
        return State(newest.size, newest.time, trouble) if newest else State(unanchored=trouble)

    async def read(self, path: str) -> bytes | None:
        """A file of a timestamp, by its path below the log."""
        return await asyncio.to_thread(self._files.read, path)

    async def look(self, *, demanded: bool = False) -> None:
        """Follow the terms, pay what is owed, and ask whom it is time to ask."""
        await self._follow()
        signed = await self._ledger.read(tiles.CHECKPOINT)
        if signed is None or self._audit is None:
            return
        await asyncio.gather(*(self._record(one) for one in self._known.values() if one.owed))
        point = checkpoint.parse(note.split(signed)[0])
        usable = [one for one in self._known.values() if one.pinned and not one.owed]
        if demanded:
            asked = [one for one in usable if anchoring.demanded(one.standing, point.size)]
        else:
            cadence, now = Cadence(self._audit.anchor_entries, self._audit.anchor_seconds), self._clocks.steady()
            waiting = [one for one in usable if anchoring.due(one.standing, point.size, now, cadence)]
            counting = await self._newest_counting(point.size) if waiting else -1
            asked = [one for one in waiting if anchoring.grown(one.standing, counting)]
        if asked and point.size:
            archived = await self._archived(signed, point)  # 1
            await asyncio.gather(*(self._anchor(one, archived, point) for one in asked))

    # -- the terms --------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        audit = self._terms()
        if audit is None or audit == self._audit:
            return
        if not self._loaded:
            await asyncio.to_thread(self._files.load)
            self._loaded = True
        known: dict[str, Known] = {}
        for entry in audit.authorities:
            before = self._known.get(entry.name)
            known[entry.name] = before if before and before.entry == entry else await self._meet(entry, before)
        self._known, self._audit = known, audit

    async def _meet(self, entry: TimestampAuthorityEntry, before: Known | None) -> Known:
        """An authority that is new, or has changed: what of it is on disk stays."""
        one = Known(entry)
        try:
            one.pinned = timestamp.read_authority(entry.name, entry.certificates, entry.policy)
        except Invalid as error:
            one.trouble = error.message
            log.error("timestamp authority cannot be used", extra={"authority": entry.name, "detail": error.message})
        if before is not None:
            one.standing, one.newest, one.owed = Standing(before.standing.size, before.standing.at), before.newest, before.owed
        elif size := self._files.newest(entry.name):
            stamp = await asyncio.to_thread(self._recovered, entry.name, size)
            age = max(0.0, self._clocks.now() - stamp.seconds) if stamp is not None else float("inf")
            one.standing = Standing(size, self._clocks.steady() - age)
            one.newest = one.owed = stamp  # 4: whether the entry was made before the crash, the log itself knows
        return one

    def _recovered(self, name: str, size: int) -> Stamp | None:
        """What an entry about the token on disk says, if it verifies against the certificates that it was kept with."""
        signed, response, query = (
            self._files.read(path) for path in (f"checkpoints/{size}", f"anchors/{size}.{name}.tsr", f"anchors/{size}.{name}.tsq")
        )
        if signed is None or response is None or query is None:
            return None
        for pem in self._files.certificates(name):
            with suppress(Invalid):
                authority = timestamp.read_authority(name, pem.decode("ascii", "replace"))
                return _stamp(signed, response, authority, timestamp.read_nonce(query))
        log.error("a kept timestamp does not verify", extra={"authority": name, "size": size})
        return None

    # -- what is growth ---------------------------------------------------------------------------------------------

    async def _newest_counting(self, size: int) -> int:
        """Position of the last entry below `size` that is growth; each is looked at once, from the end."""
        end, found = size, -1
        while end > self._looked and found < 0:
            index = (end - 1) // WIDTH
            data = await self._ledger.read(Tile(ENTRIES, index, min(WIDTH, size - index * WIDTH)).path())
            if data is None:  # reading has ended there, so that it was not looked at: then it counts
                found = end - 1
                break
            entries = bundle.decode(data)[: end - index * WIDTH]
            positions = range(index * WIDTH + len(entries) - 1, max(index * WIDTH, self._looked) - 1, -1)
            found = next((at for at in positions if anchoring.counts(entries[at - index * WIDTH])), -1)
            end = index * WIDTH
        self._looked, self._counting = max(size, self._looked), max(found, self._counting)
        return self._counting

    # -- asking -----------------------------------------------------------------------------------------------------

    async def _archived(self, signed: bytes, point: Checkpoint) -> bytes:
        """The bytes that are kept under this size, if another authority has signed them already."""
        kept = await self.read(f"checkpoints/{point.size}")
        if kept is None:
            return signed
        with suppress(Invalid):
            if note.split(kept)[0] == note.split(signed)[0]:
                return kept
        raise Invalid(f"checkpoints/{point.size} on the volume is not of this log's first {point.size} entries; it is left alone")

    async def _anchor(self, one: Known, signed: bytes, point: Checkpoint) -> None:
        try:
            stamp = await self._token(one, signed)
        except (FolkmootError, OSError) as error:  # 5, 6
            await self._failed(one, error, point.size)
            return
        one.standing = anchoring.succeeded(point.size, self._clocks.steady())
        one.newest = one.owed = stamp
        apart = stamp.seconds - self._clocks.now()
        one.trouble = f"its clock and ours are {abs(apart) / 60:.0f} minutes apart" if abs(apart) > CLOCK_SECONDS else ""
        if one.trouble:
            log.warning("clocks differ", extra={"authority": one.entry.name, "seconds": round(apart)})
        await self._record(one)

    async def _token(self, one: Known, signed: bytes) -> Stamp:
        assert one.pinned is not None  # noqa: S101 - asked by the caller
        nonce = self._clocks.nonce()  # 2
        query = await asyncio.to_thread(timestamp.query, signed, nonce, one.pinned.policy)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                answer = await self._transport.ask(one.entry.name, query)
        except TimeoutError:
            raise Unavailable(f"no answer within {ASK_SECONDS:g} s") from None
        if answer.status != 200:
            raise Unavailable(f"it answered {answer.status}", reason="NoToken")
        stamp = await asyncio.to_thread(_stamp, signed, answer.body, one.pinned, nonce)  # 3
        contents = (signed, answer.body, query, one.pinned.pem())
        async with self._writing:
            await asyncio.to_thread(self._files.keep, stamp, contents, self._clocks.now())  # 4
        return stamp

    async def _failed(self, one: Known, error: FolkmootError | OSError, size: int) -> None:
        one.standing = anchoring.failed(one.standing, self._clocks.steady())
        message = error.message if isinstance(error, FolkmootError) else f"the token cannot be kept: {error.strerror}"
        if message != one.trouble:  # once per trouble
            log.warning("no timestamp", extra={"authority": one.entry.name, "detail": message})
        one.trouble = message
        if one.standing.failures == RECORD_AFTER:
            reason = error.reason if isinstance(error, FolkmootError) else "NotKept"
            data = {"authority": one.entry.name, "reason": reason, "failures": RECORD_AFTER, "size": size}
            entry_id = f"anchor.failed/{one.entry.name}/{size}"
            entry = new_entry("anchor.failed", OWN_ACTOR, id=entry_id, data=data, now=self._clocks.now())
            with suppress(FolkmootError):  # closed, full, or said before a restart
                await self._ledger.append([entry], OWN)

    async def _record(self, one: Known) -> None:
        """Put the newest token on record. Whoever cannot yet owes it; a closed log has a file for that."""
        stamp = one.owed
        assert stamp is not None  # noqa: S101 - asked by the caller
        entry = new_entry("anchor", OWN_ACTOR, id=stamp.entry_id, data=stamp.data(), now=self._clocks.now())
        try:
            await self._ledger.append([entry], OWN)
        except Unavailable as error:
            log.info("a timestamp is not on record yet", extra={"authority": stamp.authority, "reason": error.reason})
            return
        except Conflict as error:
            if error.reason == "LogClosed":
                async with self._writing:
                    await asyncio.to_thread(self._files.close, stamp)
            else:  # the entry is there and names another token: that one's file was lost
                log.error("the log names another token", extra={"authority": stamp.authority, "size": stamp.size})
        one.owed = None
        log.info("log timestamped", extra={"size": stamp.size, "authority": stamp.authority, "time": stamp.time})


def _stamp(signed: bytes, response: bytes, authority: Authority, nonce: int) -> Stamp:
    token = timestamp.verify(response, signed, authority, nonce)
    point = checkpoint.parse(note.split(signed)[0])
    digests = anchor.digest_of(response), anchor.digest_of(authority.pem())
    return Stamp(point.size, point.root.hex(), authority.name, *digests, anchored.rfc3339_of(token.gen_time), token.policy)
