"""A log on a volume, authorities of its terms, and a clock that a test moves: for what timestamps a log."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import timestamps

from folkmoot_core.document import AuditEntry, TimestampAuthorityEntry
from folkmoot_core.entries import Actor, EntryRequest, Producer, Receipt, new_entry
from folkmoot_core.errors import Unavailable
from folkmoot_core.ledger import anchored, bundle, export
from folkmoot_core.ledger.audit import Trust, verify_log
from folkmoot_core.ledger.fence import Answer
from folkmoot_core.ledger.findings import Report
from folkmoot_runtime.durable import Os, RealOs
from folkmoot_runtime.ledger.anchor_files import AnchorFiles
from folkmoot_runtime.ledger.anchors import Anchors, Clocks
from folkmoot_runtime.ledger.log import Log, Options, open_log

START = timestamps.NOW.timestamp()
HONEST = timestamps.forger()
CONDUCTOR = Producer(id="core/conductor")
ACTOR = Actor(kind="service", id="conductor")
Respond = Callable[[bytes], bytes]


def authority(name: str = "honest", signer: Any = None) -> TimestampAuthorityEntry:
    """As a tenant's terms name it."""
    chain = (signer or HONEST).chain
    return TimestampAuthorityEntry(name=name, url=f"https://{name}.example/", certificates=timestamps.pem(chain))


@dataclass
class Authorities:
    """`anchors.Transport`: answers by name. `away`: nobody there. `responses` replaces what an honest one answers."""

    now: Callable[[], float]
    signers: dict[str, Any] = field(default_factory=dict)
    responses: dict[str, Respond] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    hang: set[str] = field(default_factory=set)
    status: int = 200
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    serials: Any = field(default_factory=lambda: itertools.count(1))

    async def ask(self, authority: str, query: bytes) -> Answer:
        self.asked.append((authority, query))
        if authority in self.hang:
            await asyncio.Event().wait()
        if authority in self.away:
            raise Unavailable("nobody there")
        respond = self.responses.get(authority)
        signer, now = self.signers.get(authority) or HONEST, datetime.fromtimestamp(self.now(), UTC)
        body = respond(query) if respond else timestamps.respond(signer, query, now, next(self.serials))
        return Answer(self.status, "application/timestamp-reply", body)


@dataclass
class Refusing:
    """A log that takes nothing while `error` is set."""

    log: Log
    error: Exception | None = None

    async def append(self, requests: list[EntryRequest], producer: Producer) -> list[Receipt]:
        if self.error is not None:
            raise self.error
        return await self.log.append(requests, producer)

    async def read(self, path: str) -> bytes | None:
        return await self.log.read(path)


class World:
    """One log and its timestamps over one directory. `terms` may be exchanged, `now` moved."""

    def __init__(self, directory: Path, *names: TimestampAuthorityEntry) -> None:
        self.directory = directory
        self.now = START
        self.terms: AuditEntry | None = AuditEntry(authorities=names or (authority(),))
        self.transport = Authorities(lambda: self.now)
        self.log: Log
        self.ledger: Refusing
        self.anchors: Anchors

    async def open(self, calls: Os | None = None) -> World:
        """Start: the log is read back, and whoever timestamps it knows nothing but the files."""
        self.log = await open_log(self.directory, Options(tenant="acme", clock=lambda: self.now, checkpoint_interval=3600))
        self.ledger = Refusing(self.log)
        self.restart(calls)
        return self

    def restart(self, calls: Os | None = None) -> None:
        """Only what timestamps starts again."""
        nonces = itertools.count(int(self.now) + len(self.transport.asked))
        clocks = Clocks(lambda: self.now, lambda: self.now, lambda: next(nonces))
        files = AnchorFiles(self.directory, calls or RealOs())
        self.log.anchors = self.anchors = Anchors(self.ledger, files, self.transport, lambda: self.terms, clocks)

    async def record(self, count: int = 1) -> None:
        """So many entries that count, published."""
        fresh = [
            new_entry("session.start", ACTOR, id=f"request-{self.log.size}-{n}", data={}, now=self.now) for n in range(count)
        ]
        await self.log.append(fresh, CONDUCTOR)
        await self.log.publish()

    async def look(self, seconds: float = 0.0, *, demanded: bool = False) -> None:
        """Time passes, and what is due is done and published."""
        self.now += seconds
        await self.anchors.look(demanded=demanded)
        await self.log.publish()

    async def recorded(self, kind: str) -> list[dict[str, object]]:
        """Data of the entries of a kind."""
        found = []
        for index in range(-(-self.log.size // 256)):
            width = min(256, self.log.size - index * 256)
            data = await self.log.read(f"tile/entries/{index:03d}" + ("" if width == 256 else f".p/{width}"))
            assert data is not None
            found += [json.loads(entry) for entry in bundle.decode(data)]
        return [entry["data"] for entry in found if entry["ce"]["type"] == f"dev.folkmoot.audit.{kind}.v1"]

    async def verified(self, pinned: dict[str, str] | None = None) -> Report:
        """The log as an outsider has it."""
        files = {path: data async for path, data in export.members(self.log.read)}
        found = verify_log(files.get, Trust(self.log.vkey))
        anchored.check_anchors(found, files.get, pinned or {})
        return found.report

    def files(self) -> list[str]:
        """Of timestamps, on the volume."""
        found = [*(self.directory / "checkpoints").glob("*"), *(self.directory / "anchors").glob("*")]
        return sorted(str(file.relative_to(self.directory)) for file in found)
