"""A witness's operator door in memory, product code for tests: the same decisions, nothing kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from folkmoot_core.errors import Conflict, FolkmootError, Invalid
from folkmoot_core.ledger import rotation, witness
from folkmoot_core.ledger.cosignature import Ed25519Cosigner
from folkmoot_core.ledger.witness import Known
from folkmoot_operator.witness_client import Registration, SeenLog


@dataclass
class FakeWitness:
    """`witness_client.Witness`. While `failing` is set everything is refused with it."""

    name: str = "folkmoot-witness/fake"
    failing: FolkmootError | None = None
    calls: list[tuple[str, str]] = field(default_factory=list)
    known: dict[str, Known] = field(default_factory=dict)
    _tenants: dict[tuple[str, str], None] = field(default_factory=dict)

    async def key(self) -> str:
        """See `Witness`."""
        self._enter("key", "")
        return Ed25519Cosigner.from_seed(self.name, b"w" * 32).verifier().vkey()

    async def register(self, tenant: str, log: Registration) -> None:
        """See `Witness`."""
        self._enter("register", tenant)
        keys = rotation.check_keys(log.origin, log.vkeys)
        try:
            self.known[log.origin] = witness.admit(self.known.get(log.origin), log.origin, keys, log.rotation.encode())
        except Invalid as error:
            raise Conflict(error.message, reason="KeyConflict") from error
        self._tenants[tenant, log.origin] = None

    async def logs(self, tenant: str) -> tuple[SeenLog, ...]:
        """See `Witness`."""
        self._enter("logs", tenant)
        found = [self.known[origin] for whose, origin in sorted(self._tenants) if whose == tenant]
        return tuple(SeenLog(origin=k.origin, size=k.size, root=k.root.hex(), fork=k.fork.decode()) for k in found)

    def fork(self, origin: str, size: int) -> None:
        """The log showed two checkpoints over this size."""
        self.known[origin] = replace(self.known[origin], size=size, fork=b"another checkpoint\n")

    def _enter(self, verb: str, tenant: str) -> None:
        self.calls.append((verb, tenant))
        if self.failing is not None:
            raise self.failing
