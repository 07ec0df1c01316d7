"""A log that grows as a test says, and the requests that it would send to a witness."""

from __future__ import annotations

from dataclasses import dataclass, field

from folkmoot_core.ledger import tree, witness
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.cosignature import Ed25519Cosigner, MlDsaSigner
from folkmoot_core.ledger.note import Ed25519Signer, VerifierKey
from folkmoot_core.ledger.witness import Known, Request
from folkmoot_runtime.witness.volume import Identity

NOW = 1_800_000_000
IDENTITY = Identity(
    Ed25519Cosigner.from_seed("witness.example/1", b"1" * 32), MlDsaSigner.from_seed("witness.example/1", b"2" * 32)
)
WITNESS_KEYS = (IDENTITY.ed25519.verifier(), IDENTITY.mldsa.verifier())


@dataclass
class GrowingLog:
    """Leaves are made from `salt`: two logs of one origin with different salts are a fork."""

    origin: str = "folkmoot/log"
    salt: bytes = b""
    seed: bytes = b"l" * 32
    leaves: list[bytes] = field(default_factory=list)

    @property
    def signer(self) -> Ed25519Signer:
        return Ed25519Signer.from_seed(self.origin, self.seed)

    @property
    def second(self) -> MlDsaSigner:
        return MlDsaSigner.from_seed(self.origin, self.seed)

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        return (self.signer.verifier(), self.second.verifier())

    @property
    def known(self) -> Known:
        return Known(self.origin, self.keys)

    def grow(self, size: int) -> GrowingLog:
        self.leaves += [tree.leaf_hash(self.salt + b"%d" % i) for i in range(len(self.leaves), size)]
        return self

    def point(self, size: int) -> Checkpoint:
        self.grow(size)
        return Checkpoint(self.origin, size, tree.root_of(self.leaves[:size]))

    def signed(self, size: int) -> bytes:
        return self.point(size).sign([self.signer, self.second.at(NOW)])

    def request(self, old: int, size: int) -> Request:
        self.grow(size)
        proof = tree.consistency_proof(old, size, tree.nodes_of(self.leaves)) if old <= size else []
        return Request(old, tuple(proof), self.signed(size))


def after(log: GrowingLog, size: int) -> Known:
    """What a witness knows once it has cosigned this size."""
    decision = witness.decide(log.request(0, size), log.known)
    assert isinstance(decision, witness.Accepted)
    return witness.cosigned(decision, IDENTITY.lines(decision.text, NOW), NOW)
