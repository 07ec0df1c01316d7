"""Asking witnesses for their cosignatures, through the broker. C2SP tlog-witness, the log's side; ledger.md §1.9, §5.4.

The publisher calls `cosign` for each checkpoint before anybody may see it. What an answer means is `folkmoot_core.ledger.fence`'s
decision; this module asks, asks again from the size that a witness names, and remembers that size. It never signs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from folkmoot_core.document import WitnessEntry
from folkmoot_core.errors import FolkmootError
from folkmoot_core.ledger.fence import Answer, Asked, AskFrom, Cosigned, Forked, Outcome, Refused, judge
from folkmoot_core.ledger.note import VerifierKey, parse_vkey
from folkmoot_core.ledger.witness import Request

log = logging.getLogger(__name__)
ROUNDS: Final = 3  # a first question, one from the size it names, and one more if it grew meanwhile
DEADLINE: Final = 10.0  # seconds for one witness, all rounds


class Transport(Protocol):
    """How a witness is reached: the broker's door, or a fake."""

    async def add_checkpoint(self, witness: str, body: bytes) -> Answer:
        """The answer, whatever its status; raises `Unavailable` when there is none."""


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that wants to be published."""

    text: str
    note: bytes
    size: int
    durable: int
    prove: Callable[[int], Sequence[bytes]]
    """Consistency proof from an older size to this one."""


@dataclass
class Witness:
    """One witness and what it last cosigned, as far as it is known; 0: nothing yet, and it will say."""

    entry: WitnessEntry
    size: int = 0
    key: VerifierKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = parse_vkey(self.entry.key)

    async def ask(self, transport: Transport, candidate: Candidate) -> Outcome:
        """One cosignature, or why there is none."""
        if self.size > candidate.durable:
            return Forked(f"it has cosigned {self.size} entries of this log, which holds {candidate.durable}")
        outcome: Outcome = Refused("it names another size each time")
        try:
            async with asyncio.timeout(DEADLINE):
                for _ in range(ROUNDS):
                    outcome = await self._once(transport, candidate)
                    if not isinstance(outcome, AskFrom):
                        break
                    self.size = outcome.size
                    if self.size > candidate.size:  # cosigned before a crash, published never: the next checkpoint covers it
                        return Refused(f"it has cosigned {self.size} entries already")
        except (FolkmootError, TimeoutError) as error:
            return Refused(error.message if isinstance(error, FolkmootError) else f"gave no answer within {DEADLINE:g} s")
        if isinstance(outcome, Cosigned):
            self.size = candidate.size
        return outcome if not isinstance(outcome, AskFrom) else Refused("it names another size each time")

    async def _once(self, transport: Transport, candidate: Candidate) -> Outcome:
        body = Request(self.size, tuple(candidate.prove(self.size)), candidate.note).encode()
        answer = await transport.add_checkpoint(self.entry.name, body)
        return judge(answer, Asked(candidate.text, self.size, candidate.durable), self.key)


@dataclass(frozen=True)
class Gathered:
    """What the witnesses said of one checkpoint. `missing` names those without a cosignature and why; `forked` likewise."""

    lines: tuple[str, ...]
    names: tuple[str, ...]
    missing: dict[str, str]
    forked: dict[str, str]


class Witnesses:
    """All witnesses of one log."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._witnesses: dict[str, Witness] = {}

    def follow(self, entries: Sequence[WitnessEntry]) -> None:
        """Use these from now on; what is known of one that stays is kept."""
        known = self._witnesses
        self._witnesses = {e.name: known[e.name] if e.name in known and known[e.name].entry == e else Witness(e) for e in entries}

    async def cosign(self, candidate: Candidate) -> Gathered:
        """Ask all at the same time."""
        asked = list(self._witnesses.values())
        outcomes = await asyncio.gather(*(witness.ask(self._transport, candidate) for witness in asked))
        found = {witness.entry.name: outcome for witness, outcome in zip(asked, outcomes, strict=True)}
        return Gathered(
            lines=tuple(o.lines for o in found.values() if isinstance(o, Cosigned)),
            names=tuple(n for n, o in found.items() if isinstance(o, Cosigned)),
            missing={n: o.why for n, o in found.items() if isinstance(o, Refused)},
            forked={n: o.why for n, o in found.items() if isinstance(o, Forked)},
        )
