"""Operator and witness in step: the key is heard and followed, logs are registered whoever was away, forks are told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from folkmoot_core.errors import Invalid, Unavailable
from folkmoot_core.ledger import rotation
from folkmoot_core.ledger.note import Ed25519Signer
from folkmoot_operator.fake_witness import FakeWitness
from folkmoot_operator.witness_client import Registration
from folkmoot_operator.witness_keeper import AGAIN_SECONDS, KEEP_SECONDS, RETRY_SECONDS, WitnessKeeper

pytestmark = pytest.mark.looptime
ORIGIN = "folkmoot/one"
OLD, NEW = (Ed25519Signer.from_seed(ORIGIN, seed * 32) for seed in (b"o", b"n"))
LOG = Registration(origin=ORIGIN, vkeys=(OLD.verifier().vkey(),))


@asynccontextmanager
async def keeping(witness):
    told = []
    keeper = WitnessKeeper(witness, lambda: told.append(keeper.key))
    task = asyncio.create_task(keeper.keep())
    try:
        yield keeper, told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def registered(witness):
    return [tenant for verb, tenant in witness.calls if verb == "register"]


async def test_the_key_is_asked_for_until_it_is_there_and_then_followed():
    witness = FakeWitness(failing=Unavailable("down"))
    async with keeping(witness) as (keeper, told):
        await keeper.listen(3 * RETRY_SECONDS)
        assert (keeper.key, told) == ("", [])
        witness.failing = None
        await keeper.listen(3 * RETRY_SECONDS)
        assert keeper.key == await witness.key()
        await asyncio.sleep(3 * KEEP_SECONDS)
        assert told == [keeper.key]
        witness.name = "folkmoot-witness/another"
        await asyncio.sleep(2 * KEEP_SECONDS)
        assert keeper.key.startswith("folkmoot-witness/another+")
        assert len(told) == 2


async def test_a_log_is_registered_once_and_again_when_its_keys_change():
    witness = FakeWitness()
    async with keeping(witness) as (keeper, _):
        for _ in range(3):
            keeper.want("uid-1", LOG)
            await asyncio.sleep(1)
        assert registered(witness) == ["uid-1"]
        note = rotation.make(OLD, NEW, [NEW.verifier()]).decode()
        keeper.want("uid-1", Registration(origin=ORIGIN, vkeys=(NEW.verifier().vkey(),), rotation=note))
        await asyncio.sleep(1)
        assert [key.vkey() for key in witness.known[ORIGIN].keys] == [NEW.verifier().vkey()]


async def test_a_witness_that_was_away_learns_of_every_log_later():
    witness = FakeWitness(failing=Unavailable("down"))
    async with keeping(witness) as (keeper, _):
        for number in range(3):
            vkey = Ed25519Signer.from_seed(f"folkmoot/{number}", b"x" * 32).verifier().vkey()
            keeper.want(f"uid-{number}", Registration(origin=f"folkmoot/{number}", vkeys=(vkey,)))
        await asyncio.sleep(60)
        witness.failing = None
        await asyncio.sleep(RETRY_SECONDS + 1)
        assert len(witness.known) == 3


async def test_a_witness_restored_from_a_copy_learns_of_a_log_again():
    witness = FakeWitness()
    async with keeping(witness) as (keeper, _):
        keeper.want("uid-1", LOG)
        await asyncio.sleep(1)
        witness.known.clear()
        await asyncio.sleep(AGAIN_SECONDS + KEEP_SECONDS)
        assert ORIGIN in witness.known


async def test_keys_that_another_replica_was_told_of_are_not_contradicted(caplog):
    witness, exchanged = FakeWitness(), (NEW.verifier().vkey(),)
    note = rotation.make(OLD, NEW, [NEW.verifier()]).decode()
    async with keeping(witness) as (keeper, _):
        keeper.want("uid-1", LOG)
        await asyncio.sleep(1)
        await witness.register("uid-1", Registration(origin=ORIGIN, vkeys=exchanged, rotation=note))
        before = len(registered(witness))
        await asyncio.sleep(AGAIN_SECONDS + 3 * KEEP_SECONDS)
        assert len(registered(witness)) == before + 1  # once, and not again before a report says more
        assert not [record for record in caplog.records if record.levelname == "ERROR"]
        keeper.want("uid-1", Registration(origin=ORIGIN, vkeys=exchanged, rotation=note))
        await asyncio.sleep(1)
        assert len(registered(witness)) == before + 2
        assert tuple(key.vkey() for key in witness.known[ORIGIN].keys) == exchanged


async def test_one_tenants_refused_log_is_not_the_others_wait():
    witness = FakeWitness()
    async with keeping(witness) as (keeper, _):
        keeper.want("uid-1", LOG)
        await asyncio.sleep(1)
        keeper.want("uid-1", Registration(origin=ORIGIN, vkeys=(NEW.verifier().vkey(),)))  # no note of a rotation
        keeper.want(
            "uid-2",
            Registration(origin="folkmoot/two", vkeys=(Ed25519Signer.from_seed("folkmoot/two", b"x" * 32).verifier().vkey(),)),
        )
        await asyncio.sleep(1)
        assert set(witness.known) == {ORIGIN, "folkmoot/two"}
        assert [key.vkey() for key in witness.known[ORIGIN].keys] == [OLD.verifier().vkey()]
        before = registered(witness).count("uid-1")
        await asyncio.sleep(KEEP_SECONDS + 1)
        assert registered(witness).count("uid-1") == before + 1  # tried again, and not in a hurry
        keeper.forget("uid-1")
        await asyncio.sleep(2 * AGAIN_SECONDS)
        assert registered(witness).count("uid-1") == before + 1


async def test_what_it_saw_is_told_again_and_again():
    witness = FakeWitness()
    await witness.register("uid-1", LOG)
    witness.fork(ORIGIN, 7)
    told = []

    async def tell(tenant, logs):
        told.append((tenant, [(seen.origin, seen.size, bool(seen.fork)) for seen in logs]))
        if tenant == "uid-0":
            raise Invalid("no sense")

    task = asyncio.create_task(WitnessKeeper(witness, lambda: None).watch(lambda: ["uid-0", "uid-1"], tell))
    await asyncio.sleep(1)
    assert told == [("uid-0", []), ("uid-1", [(ORIGIN, 7, True)])]
    witness.failing = Unavailable("down")
    await asyncio.sleep(3 * KEEP_SECONDS)
    assert len(told) == 2
    assert len([call for call in witness.calls if call[0] == "logs"]) == 2 + 3  # the second tenant is not asked for then
    witness.failing = None
    await asyncio.sleep(KEEP_SECONDS)
    assert len(told) == 4
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
