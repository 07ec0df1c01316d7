"""The log without a volume: the same entries, receipts, tiles and refusals, nothing kept. For tests and demonstrations.

It passes the same contract tests as `log.Log`. Its key is made from a fixed seed: its signatures prove nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Literal

from folkmoot_core.document import AuditEntry, LogReport
from folkmoot_core.entries import EntryRequest, EntryType, Producer, Receipt, rfc3339
from folkmoot_core.errors import Conflict
from folkmoot_core.ledger import anchor, bundle, retention, rotation, tiles
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.envelope import Prepared, prepare
from folkmoot_core.ledger.sequence import Sequence as State
from folkmoot_core.ledger.terms import policy_of
from folkmoot_runtime.ledger.interface import check_claims, own
from folkmoot_runtime.ledger.keys import LogKeys
from folkmoot_runtime.ledger.waiting import Admission, Lot, Waiting, durable_lot

ORIGIN = "folkmoot/00000000-0000-4000-8000-000000000000"


class MemoryLog:
    """`Ledger` in memory."""

    def __init__(self, tenant: str = "", clock: Callable[[], float] = time.time, origin: str = ORIGIN) -> None:
        self._keys = LogKeys.of(origin, b"\0" * 64)
        self._clock = clock
        self._state = State()
        self._waiting = Waiting()
        self._entries: list[bytes] = []
        self._published: bytes | None = None
        self._published_size = -1
        self._sealed = False
        self.minimum = 0
        vkey, mldsa = self._keys.vkeys()
        self._write([self._own("log.opened", tenant=tenant, vkey=vkey, mldsa=mldsa)])
        self._publish()

    @property
    def origin(self) -> str:
        """A fixed one."""
        return self._keys.origin

    @property
    def vkey(self) -> str:
        """The public key's text."""
        return self._keys.vkey()

    @property
    def size(self) -> int:
        """Entries."""
        return len(self._state)

    async def append(self, requests: Sequence[EntryRequest], producer: Producer) -> list[Receipt]:
        """See `Ledger.append`."""
        for request in requests:
            check_claims(request, producer)
        return await self.admit([prepare(request, origin=self.origin, producer=producer) for request in requests]).receipts()

    def admit(self, prepared: Sequence[Prepared]) -> Admission:
        """See `Ledger.admit`."""
        admission = self._waiting.resolve(prepared, self)
        fresh = admission.fresh
        if fresh.prepared and self._sealed:
            raise Conflict("the log is closed; nothing is appended to it any more", reason="LogClosed")
        self._waiting.admit(fresh)
        first, leaves = self.size, self._write(fresh.prepared)
        self._waiting.durable(self._waiting.take(len(fresh.prepared), 1 << 40), leaves, first)
        return admission

    async def read(self, path: str) -> bytes | None:
        """See `Ledger.read`."""
        if path == tiles.CHECKPOINT:
            return self._published
        if path in (tiles.VKEY, tiles.MLDSA_VKEY):
            return f"{self._keys.vkeys()[path == tiles.MLDSA_VKEY]}\n".encode()
        if path == tiles.POLICY:
            return policy_of(self._keys.vkeys(), AuditEntry()).text().encode()
        if anchor.is_path(path):
            return None
        tile = tiles.parse(path)
        if tile.level != tiles.ENTRIES:
            return self._state.rows.tile(tile)
        if retention.denied(self.minimum, tile):
            return None
        first = tile.index * tiles.WIDTH
        return bundle.encode(self._entries[first : first + tile.width]) if first + tile.width <= self.size else None

    async def publish(self) -> bool:
        """See `Ledger.publish`."""
        self._publish()
        return True

    async def covered(self, size: int) -> None:
        """See `Ledger.covered`."""
        self._publish()

    async def close_log(self) -> int:
        """See `Ledger.close_log`."""
        if not self._sealed:
            self._write([self._own("log.closed")])
            self._sealed = True
        self._publish()
        return self.size

    async def rotate(self) -> str:
        """See `control.Controlled.rotate`."""
        fresh = LogKeys.of(self.origin, hashlib.sha512(self._keys.secret).digest())
        vkey, mldsa = fresh.vkeys()
        statement = rotation.make(self._keys.ed25519, fresh.ed25519, [fresh.ed25519.verifier(), fresh.mldsa.verifier()]).decode()
        data = {"previous": self.vkey, "vkey": vkey, "mldsa": mldsa, "statement": statement}
        self._write([own(fresh.rotation_id(), "log.key.rotated", self.origin, now=self._clock(), **data)])
        self._keys = fresh
        self._publish()
        return vkey

    async def anchor(self) -> None:
        """See `control.Controlled.anchor`: nobody is there to be asked for a timestamp."""
        self._publish()

    def status(self) -> LogReport:
        """See `control.Controlled.status`."""
        state: Literal["Open", "Closed"] = "Closed" if self._sealed else "Open"
        return LogReport(
            origin=self.origin, vkeys=self._keys.vkeys(), size=self._published_size, entries=self.size, state=state,
            root=self._state.rows.root(self._published_size).hex(),
        )  # fmt: skip

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def _publish(self) -> None:
        if self._published_size == self.size:  # ML-DSA signs with randomness: the same log shows the same bytes
            return
        self._published_size = self.size
        self._published = Checkpoint(self.origin, self.size, self._state.rows.root()).sign(self._keys.signers(int(self._clock())))

    def _write(self, prepared: Sequence[Prepared]) -> list[bytes]:
        entries, leaves = self._state.seal(prepared, rfc3339(self._clock()))
        self._entries += entries
        self._state.commit([one.key for one in prepared], leaves)
        return leaves

    def suspects(self, keys: Sequence[bytes]) -> list[int]:
        """See `waiting.Durable`."""
        return self._state.suspects(keys)

    def find(self, key: bytes) -> Lot | None:
        """See `waiting.Durable`."""
        found = self._state.find(key, self._entries.__getitem__)
        return None if found is None else durable_lot(found[1], found[0], self._state.rows.leaf(found[0]))

    def _own(self, kind: EntryType, **data: str) -> Prepared:
        return own(kind, kind, self.origin, now=self._clock(), **data)
