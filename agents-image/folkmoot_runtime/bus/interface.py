"""The bus as a participant (an agent, or the tenant's core) sees it. `valkey.py` is the real one, `memory.py` its twin.

Delivery is at least once: a message is handed out again after a restart until `done` was called for it, and a resend
carries the same `request_id` with a higher `attempt`. Receivers therefore deduplicate by `request_id`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from folkmoot_core.messages import Envelope


class Delivery(NamedTuple):
    """One handing-over of a message; `id` is what `done` wants."""

    id: str
    envelope: Envelope


class Bus(Protocol):
    """One participant's end of the bus."""

    async def send(self, envelope: Envelope) -> None:
        """Sign the envelope and put it durably into the own outbox; the router delivers or refuses it.

        Repeating a send with the same `request_id` is harmless. Raises `Unavailable` when the bus does not answer in time.
        """

    async def receive(self, block: float) -> list[Delivery]:
        """First, once after a start, what was received and never done; then new messages. Waits at most `block` seconds."""

    async def done(self, delivery_id: str) -> None:
        """The message's effect is durable: it is not handed out again."""

    async def alive(self) -> None:
        """Say "alive" (call it every 10 s; 30 s without it count as dead) and keep what is in hand from being taken over."""

    async def aclose(self) -> None:
        """Close connections. What is not `done` stays pending."""
