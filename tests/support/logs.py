"""A log in memory whose keys, entries and missing files a test decides: for verification, coverage and the CLI's ledger verbs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from folkmoot_core.canonical import canonical_json
from folkmoot_core.entries import GENESIS_PREV, TYPE_PREFIX, rfc3339
from folkmoot_core.ledger import bundle, rotation, tiles
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.cosignature import MlDsaSigner
from folkmoot_core.ledger.note import Ed25519Signer, Signer
from folkmoot_core.ledger.tiles import ENTRIES, WIDTH, Rows
from folkmoot_core.ledger.tree import leaf_hash

ORIGIN = "folkmoot/00000000-0000-4000-8000-00000000000a"
NOW = 1_800_000_000
CONFIG = "sha256:" + "c" * 64


def seeded(name: str) -> bytes:
    """32 bytes that are this name's."""
    return hashlib.sha256(name.encode()).digest()


class TestLog:
    """Entries one after the other, each a second after the one before; `files` is what a reader then sees."""

    __test__ = False

    def __init__(self, *, second_key: bool = False) -> None:
        self.key = Ed25519Signer.from_seed(ORIGIN, seeded("first"))
        self.mldsa = MlDsaSigner.from_seed(ORIGIN, seeded("second")) if second_key else None
        self.entries: list[bytes] = []
        self.time = float(NOW)
        self.files: dict[str, bytes] = {}
        named = {"mldsa": self.mldsa.verifier().vkey()} if self.mldsa else {}
        self.add("log.opened", by="core/ledger", data={"tenant": "acme", "vkey": self.vkey, **named})

    @property
    def vkey(self) -> str:
        """Of the Ed25519 key that signs now."""
        return self.key.verifier().vkey()

    def add(self, kind: str, *, by: str = "core/conductor", session: str = "", config: str = CONFIG, after: float = 1.0,
            actor: dict[str, str] | None = None, commit: str = "", **more: Any) -> int:  # fmt: skip
        """Append one; returns its position."""
        self.time += after
        seq = len(self.entries)
        ce = {
            "specversion": "1.0", "id": more.pop("id", f"{kind}/{seq:06d}"), "source": f"/x/{by}", "type": f"{TYPE_PREFIX}{kind}.v1",
            "time": rfc3339(self.time), "recordedtime": rfc3339(self.time), **({"subject": session} if session else {}),
        }  # fmt: skip
        entry = {
            "v": 1, "origin": ORIGIN, "seq": seq, "prev": leaf_hash(self.entries[-1]).hex() if self.entries else GENESIS_PREV, "ce": ce,
            "actor": actor or {"kind": "service", "id": by, "seed": "", "commitment": ""}, "config": config, "data": more.pop("data", {}),
            "obs": {"id": by, "build": ""}, **more,
        }  # fmt: skip
        if commit:
            entry["payload"] = {"alg": "sha256-salt-v1", "commit": commit, "size": 1, "media": "text/plain"}
        self.entries.append(canonical_json(entry))
        return seq

    def fill(self, count: int) -> None:
        """So many heartbeats."""
        for _ in range(count):
            self.add("heartbeat", by="core/ledger", config="")

    def rotate(self, name: str, *, old: Ed25519Signer | None = None) -> int:
        """Change the Ed25519 key, and the second one where there is one; `old` signs the statement."""
        before, self.key = self.key, Ed25519Signer.from_seed(ORIGIN, seeded(name))
        keys = [self.key.verifier()]
        data: dict[str, Any] = {"previous": before.verifier().vkey(), "vkey": self.vkey}
        if self.mldsa is not None:
            self.mldsa = MlDsaSigner.from_seed(ORIGIN, seeded(f"{name} second"))
            keys.append(self.mldsa.verifier())
            data["mldsa"] = keys[1].vkey()
        data["statement"] = rotation.make(old or before, self.key, keys).decode()
        return self.add("log.key.rotated", by="core/ledger", data=data)

    def signers(self) -> list[Signer]:
        """Who signs the checkpoint."""
        return [self.key, *([self.mldsa.at(NOW)] if self.mldsa else [])]

    def rows(self) -> Rows:
        """The tree."""
        made = Rows()
        made.extend([leaf_hash(entry) for entry in self.entries])
        return made

    def publish(self, *extra: Signer) -> TestLog:
        """Make the files, with further signatures on the checkpoint."""
        rows, size = self.rows(), len(self.entries)
        self.files = {
            tiles.CHECKPOINT: Checkpoint(ORIGIN, size, rows.root()).sign([*self.signers(), *extra]),
            tiles.VKEY: f"{self.vkey}\n".encode(),
        }  # fmt: skip
        if self.mldsa is not None:
            self.files[tiles.MLDSA_VKEY] = f"{self.mldsa.verifier().vkey()}\n".encode()
        for tile in tiles.tiles_of(size):
            first = tile.index * WIDTH
            data = bundle.encode(self.entries[first : first + tile.width]) if tile.level == ENTRIES else rows.tile(tile)
            assert data is not None
            self.files[tile.path()] = data
        return self

    @property
    def read(self) -> Callable[[str], bytes | None]:
        """As a reader of paths."""
        return lambda path: self.files.get(path)

    def write(self, directory: Path) -> Path:
        """As a directory."""
        for path, data in self.files.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(data)
        return directory


def story(log: TestLog) -> None:
    """A session from its start to its end, with calls, votes and a gate."""
    agent = {"kind": "agent", "id": "builder", "seed": "a" * 64, "commitment": "b" * 64}
    call = {"folkmoot.call_key": "k1", "folkmoot.run": 1, "gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-x"}  # fmt: skip
    answered = {**call, "folkmoot.outcome": "answered", "gen_ai.response.model": "claude-x-1", "gen_ai.usage.input_tokens": 90,
                "gen_ai.usage.output_tokens": 15}  # fmt: skip
    log.add("config.changed", data={"document": CONFIG, "generation": 1})
    log.add("session.start", session="uid-1", data={"name": "fix"})
    log.add("model.call.intent", by="broker", session="uid-1", actor=agent, data=call, commit="1" * 64)
    log.add("model.call.outcome", by="broker", session="uid-1", actor=agent, data=answered, commit="2" * 64)
    log.add("council.vote", session="uid-1", actor=agent, data={"submission": 1, "vote": "For"})
    log.add("gate.verdict", session="uid-1", data={"submission": 1, "verdict": "Approved", "shapes": []})
    log.add("session.end", session="uid-1", data={"phase": "Succeeded", "reason": "Decided"})
