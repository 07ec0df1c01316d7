"""An agent works only after its key is bound to its identity, and binds again when its commitment moved."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from folkmoot_core.errors import Conflict
from folkmoot_core.signing import SigningKey, fingerprint
from folkmoot_runtime.agent.binding import Binding

KEY = SigningKey(Ed25519PrivateKey.generate())


def binding(world: Any) -> Binding:
    doors = world.doors()
    return Binding("athena", KEY, doors.conductor, doors.recorder)


async def test_bound_before_ready(world: Any) -> None:
    bound = binding(world)
    await bound.look()
    assert (await bound.standing()).agent.name == "athena"
    [entry] = world.ledger.entries
    assert (entry.type, entry.data["key"], entry.actor.commitment) == ("identity.bound", fingerprint(KEY.public), "2" * 64)
    assert entry.config == (await bound.standing()).config == world.config
    await bound.look()
    assert len(world.ledger.entries) == 1


async def test_not_ready_while_the_ledger_refuses(world: Any) -> None:
    bound = binding(world)
    world.ledger.failing = Conflict("another cause", reason="IdentityConflict")
    with pytest.raises(Conflict):
        await bound.look()
    assert not bound.ready.is_set()
    world.ledger.failing = None
    await bound.look()
    assert bound.ready.is_set()


async def test_a_moved_commitment_is_bound_before_it_is_worked_under(world: Any, kit: Any) -> None:
    bound = binding(world)
    await bound.look()
    moved = world.agent.identity.model_copy(update={"commitment": "3" * 64})
    world.agent = world.agent.model_copy(update={"identity": moved})
    await bound.look()
    assert [each.actor.commitment[0] for each in world.ledger.entries] == ["2", "3"]
    assert (await bound.standing()).agent.identity.commitment == "3" * 64


async def test_an_agent_that_is_not_in_the_document_waits(world: Any) -> None:
    doors = world.doors()
    stranger = Binding("hermes", KEY, doors.conductor, doors.recorder)
    await stranger.look()
    waiting = asyncio.ensure_future(stranger.standing())
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    assert world.ledger.entries == []
