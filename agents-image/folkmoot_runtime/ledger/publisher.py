"""Publishes checkpoints: signs over what is durable, has it cosigned, and only then shows it. ledger.md §5.4, wiring.md §7.

Called by `log.Log`, which owns the entries. Obligations, numbered here and at the steps: 1. nothing is signed over entries that
are not durable; 2. no checkpoint is signed at a time before the last one's: a clock that was set back would put entries in an
order that did not happen (a start under such a clock is refused altogether: `clock.py`); 3. of two checkpoints the later extends the earlier: sizes only grow, roots come from one tree; 4. what
is published satisfies the log's policy, whole: every line of a known key verifies; 5. when the installation's witness holds
another history, the log freezes, durably, and shows nothing new; 6. the file is durable before readers get it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from folkmoot_core.canonical import canonical_json
from folkmoot_core.document import AuditEntry
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import note, tiles, tree
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.policy import Policy
from folkmoot_core.ledger.terms import CLUSTER, policy_of
from folkmoot_runtime.durable import FULL, replace_file
from folkmoot_runtime.ledger.clock import signed_at
from folkmoot_runtime.ledger.keys import LogKeys
from folkmoot_runtime.ledger.volume import Volume
from folkmoot_runtime.ledger.witnesses import Candidate, Gathered, Witnesses

log = logging.getLogger(__name__)
Write = Callable[..., Awaitable[None]]
FROZEN: Final = "frozen"  # file on the volume: reason and message
RECIPE: Final = (
    "Find out which history is the true one: compare the checkpoints that others hold (the witness, exports, timestamps). Restore "
    "the volume that continues them, or retire this log, keep its volume, and begin another under a new origin."
)


@dataclass(frozen=True)
class Trouble:
    """Why no newer checkpoint is published."""

    reason: str
    message: str


class Publisher:
    """One log's checkpoints. `fence` asks witnesses; None where the installation has none."""

    def __init__(self, volume: Volume, fence: Witnesses | None = None, clock: Callable[[], float] = time.time) -> None:
        keys = volume.keys
        self._directory = volume.directory
        self._calls = volume.calls
        self._sequence = volume.sequence
        self._fence = fence
        self._clock = clock
        self.lock = asyncio.Lock()
        """Held while a checkpoint is made: nothing is signed while somebody else holds it."""
        self._policy: Policy | None = None if fence is not None else policy_of(keys.vkeys(), AuditEntry())
        self._audit: AuditEntry | None = None
        self._signed_at = 0 if volume.wrong_until else signed_at(volume.published, keys.origin)
        self._stale = True  # the first publication after a start asks the witnesses even if nothing grew
        self.keys, self.rotation = keys, volume.rotation
        self.published, self.size = volume.published, volume.published_size
        self.witnessed: tuple[str, ...] = ()
        self.trouble: Trouble | None = None
        self.frozen = _read_frozen(volume.directory)
        self.checked = asyncio.Event()
        """Set once the installation's witness confirmed that this volume holds all that it has cosigned."""
        if fence is None or self.size == 0:
            self.checked.set()

    @property
    def policy(self) -> Policy | None:
        """What a checkpoint of this log must carry; None while the terms are not known."""
        return self._policy

    def follow(self, audit: AuditEntry) -> None:
        """Publish on these terms from now on. `Invalid`: a key in them is none, or the installation's witness is not in them
        although this log must have it; the old terms stay, and a log without any publishes nothing."""
        if audit == self._audit:
            return
        if self._fence is not None and all(entry.name != CLUSTER for entry in audit.witnesses):
            raise Invalid(
                f"terms: expected the installation's witness ({CLUSTER}) among the witnesses; its key is not known there yet"
            )
        self._policy = policy_of(self.keys.vkeys(), audit)
        if self._fence is not None:
            self._fence.follow(audit.witnesses)
        self._audit = audit
        self._stale = True

    def exchange(self, keys: LogKeys, statement: bytes) -> None:
        """Sign with these from now on. The caller holds `lock`."""
        self.keys, self.rotation = keys, statement.decode()
        self._policy = policy_of(keys.vkeys(), self._audit or AuditEntry()) if self._policy is not None else None
        self._stale = True

    async def publish(self, write: Write) -> bool:
        """Publish what is durable now. True when everything durable is covered; `trouble` says why not.

        `write` runs a function in the thread that may block. Raises `OSError` when the volume fails for another reason than
        being full.
        """
        async with self.lock:
            size = len(self._sequence)  # 1
            if self.frozen is not None:
                return False
            if size == self.size and not self._stale:
                return True
            if size < self.size:  # 3: cannot be, and must never be signed over
                raise Invalid(f"{self._directory}: {size} entries under a checkpoint over {self.size}")
            signed = await self._signed(size)
            return signed is not None and await self._show(signed, size, write)

    async def _signed(self, size: int) -> bytes | None:
        """The note over this size with every signature that the policy asks for."""
        now = int(self._clock())
        if now < self._signed_at:  # 2
            self._hold("ClockSetBack", f"the clock says {now}, before the last checkpoint's {self._signed_at}; it must pass that")
            return None
        if self._policy is None:
            self._hold("TermsNotKnown", "the core has not been told yet which witness fences this log")
            return None
        text = Checkpoint(self.keys.origin, size, self._sequence.rows.root(size)).body()
        signed = note.sign(text, self.keys.signers(now))
        if self._fence is None:
            self._signed_at = now
            return signed
        prove = lambda old: tree.consistency_proof(old, size, self._sequence.rows.node)  # noqa: E731 - one expression, used once
        gathered = await self._fence.cosign(Candidate(text, signed, size, len(self._sequence), prove))
        if CLUSTER in gathered.forked:  # 5
            await self.freeze("ForkDetected", f"witness {CLUSTER}: {gathered.forked[CLUSTER]}")
            return None
        return self._complete(signed, gathered, now)

    def _complete(self, signed: bytes, gathered: Gathered, now: int) -> bytes | None:
        assert self._policy is not None  # noqa: S101 - asked by the caller
        if CLUSTER in gathered.names:
            self.checked.set()
        if not self._policy.met(frozenset(gathered.names)):
            away = "; ".join(f"{name}: {why}" for name, why in sorted({**gathered.missing, **gathered.forked}.items()))
            self._hold("ForkDetected" if gathered.forked else "WitnessUnavailable", f"no cosignature of {away}")
            return None
        whole = signed + "".join(gathered.lines).encode()
        try:
            self._policy.check(whole)  # 4
        except Invalid as error:
            self._hold("PolicyNotMet", error.message)
            return None
        self.witnessed, self._signed_at = gathered.names, now
        return whole

    async def _show(self, signed: bytes, size: int, write: Write) -> bool:
        try:
            await write(replace_file, self._calls, self._directory / tiles.CHECKPOINT, signed)  # 6
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._hold("VolumeFull", "the volume has no room for the checkpoint")
            return False
        self.published, self.size, self._stale, self.trouble = signed, size, False, None
        return size == len(self._sequence)

    async def freeze(self, reason: str, message: str) -> None:
        """Show nothing new and take nothing new, across restarts, until a person has decided. The first reason stays."""
        if self.frozen is not None:
            return
        self.frozen = Trouble(reason, f"{message}. {RECIPE}")
        log.critical("log frozen", extra={"reason": reason, "detail": message, "directory": str(self._directory)})
        content = canonical_json({"reason": reason, "message": self.frozen.message})
        try:
            await asyncio.to_thread(replace_file, self._calls, self._directory / FROZEN, content)
        except OSError as error:  # it stays frozen while it runs, and the witness will say the same at the next start
            log.error("cannot keep that the log is frozen", extra={"error": str(error)})

    def _hold(self, reason: str, message: str) -> None:
        if self.trouble is None or self.trouble.reason != reason:
            log.warning("checkpoint not published", extra={"reason": reason, "detail": message, "size": len(self._sequence)})
        self.trouble = Trouble(reason, message)


def _read_frozen(directory: Path) -> Trouble | None:
    try:
        value = json.loads((directory / FROZEN).read_bytes())
        return Trouble(str(value["reason"]), str(value["message"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return Trouble("Frozen", f"the file {directory / FROZEN} says so, and cannot be read further. {RECIPE}")
