"""A witness in this process, for tests of whoever asks one: the real doors over the store without a disk, and faults on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx2

from folkmoot_core.document import AuditEntry, WitnessEntry
from folkmoot_core.errors import Unavailable
from folkmoot_core.ledger.cosignature import Ed25519Cosigner, MlDsaSigner
from folkmoot_core.ledger.fence import Answer
from folkmoot_core.ledger.terms import CLUSTER
from folkmoot_runtime.witness.door import Witness
from folkmoot_runtime.witness.interface import MemoryStore
from folkmoot_runtime.witness.volume import Identity


@dataclass
class Bench:
    """Witnesses by name behind one transport. `away` names those who do not answer; `answers` replaces an answer."""

    clock: Callable[[], float]
    witnesses: dict[str, Witness] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    answers: dict[str, Answer] = field(default_factory=dict)
    bodies: list[tuple[str, bytes]] = field(default_factory=list)

    def add(self, name: str = CLUSTER) -> WitnessEntry:
        """One more witness, as a document names it."""
        seed = name.encode().ljust(32, b"\0")
        identity = Identity(
            Ed25519Cosigner.from_seed(f"witness.test/{name}", seed), MlDsaSigner.from_seed(f"witness.test/{name}", seed[::-1])
        )
        self.witnesses[name] = Witness(MemoryStore(), identity, self.clock)
        return WitnessEntry(name=name, key=identity.vkeys()[0], url=f"https://{name}.test")

    async def register(self, origin: str, vkeys: Sequence[str], rotation: str = "") -> int:
        """Tell all of them of a log; the last one's status."""
        status = 0
        for witness in self.witnesses.values():
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=witness.operator()), base_url="https://w") as client:
                body = {"origin": origin, "vkeys": list(vkeys), "rotation": rotation}
                status = (await client.put("/operator/v1/logs/tenant-uid", json=body)).status_code
        return status

    async def add_checkpoint(self, witness: str, body: bytes) -> Answer:
        """`witnesses.Transport`."""
        self.bodies.append((witness, body))
        if witness in self.away:
            raise Unavailable(f"{witness} did not answer")
        if witness in self.answers:
            return self.answers[witness]
        app = self.witnesses[witness].public()
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="https://w") as client:
            response = await client.post("/add-checkpoint", content=body)
        return Answer(response.status_code, response.headers.get("Content-Type", ""), response.content)


def terms(*entries: WitnessEntry, quorum: int = 0) -> AuditEntry:
    """The audit part of a document that names these."""
    return AuditEntry(witnesses=entries, witness_quorum=quorum)
