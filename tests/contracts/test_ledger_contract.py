"""One suite for every `Ledger`: the log on a volume and its in-memory twin."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import pytest

from folkmoot_core.entries import Actor, EntryRequest, EntryType, Producer, new_entry
from folkmoot_core.errors import Conflict, Forbidden, Invalid, Unavailable
from folkmoot_core.ledger import bundle, checkpoint, note, tiles, tree
from folkmoot_core.ledger.export import members
from folkmoot_runtime.ledger.interface import AGENTS, OWN, SPOKEN_BY, Ledger
from folkmoot_runtime.ledger.log import Options, open_log
from folkmoot_runtime.ledger.twin import MemoryLog

pytestmark = pytest.mark.contract
CONDUCTOR = Producer(id="core/conductor")
ANNA = Producer(id="agents/anna")
SERVICE = Actor(kind="service", id="conductor")


@pytest.fixture(params=["volume", "memory"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    opened: Ledger = await open_log(tmp_path, Options(tenant="acme")) if request.param == "volume" else MemoryLog("acme")
    yield opened
    await opened.aclose()


def fact(number: int, kind: EntryType = "session.start", actor: Actor = SERVICE, **data: object) -> EntryRequest:
    return new_entry(kind, actor, id=f"request-{number}", data=data, now=float(number))


async def entries(ledger: Ledger) -> list[bytes]:
    found: list[bytes] = []
    for tile in tiles.tiles_of(ledger.size):
        if tile.level == tiles.ENTRIES:
            data = await ledger.read(tile.path())
            assert data is not None
            found += bundle.decode(data, tile.width)
    return found


async def signed(ledger: Ledger) -> checkpoint.Checkpoint:
    data = await ledger.read("checkpoint")
    assert data is not None
    return checkpoint.open_checkpoint(data, note.parse_vkey(ledger.vkey), ledger.origin)


async def test_a_new_log_opens_with_its_tenant_and_key_under_a_checkpoint(ledger: Ledger) -> None:
    (first,) = await entries(ledger)
    value = json.loads(first)
    assert value["ce"]["type"] == "dev.folkmoot.audit.log.opened.v1"
    mldsa = await ledger.read(tiles.MLDSA_VKEY) or b""
    assert value["data"] == {"tenant": "acme", "vkey": ledger.vkey, "mldsa": mldsa.decode().strip()}
    assert value["origin"] == ledger.origin
    assert value["obs"]["id"] == "core/ledger"
    assert await signed(ledger) == checkpoint.Checkpoint(ledger.origin, 1, tree.leaf_hash(first))
    assert await ledger.read("log.vkey") == f"{ledger.vkey}\n".encode()


async def test_a_receipt_names_position_and_leaf_of_what_is_stored(ledger: Ledger) -> None:
    receipts = await ledger.append([fact(1, note="é"), fact(2)], CONDUCTOR)
    stored = await entries(ledger)
    assert [r.index for r in receipts] == [1, 2]
    assert [r.leaf for r in receipts] == [tree.leaf_hash(stored[r.index]).hex() for r in receipts]
    assert not any(r.duplicate for r in receipts)
    value = json.loads(stored[1])
    assert value["ce"]["source"] == f"/{ledger.origin.removeprefix('folkmoot/')}/core/conductor"
    assert value["prev"] == tree.leaf_hash(stored[0]).hex()
    assert value["data"] == {"note": "é"}


async def test_a_published_checkpoint_covers_all_and_its_tiles_prove_it(ledger: Ledger) -> None:
    for batch in range(6):
        await ledger.append([fact(100 * batch + i) for i in range(100)], CONDUCTOR)
    await ledger.publish()
    point = await signed(ledger)
    leaves = [tree.leaf_hash(entry) for entry in await entries(ledger)]
    assert (point.size, point.root) == (601, tree.root_of(leaves))
    for tile in tiles.tiles_of(point.size):
        if tile.level == 0:
            assert await ledger.read(tile.path()) == b"".join(leaves[tile.index * 256 :][: tile.width])
    assert await ledger.read("tile/1/000.p/2") == tree.root_of(leaves[:256]) + tree.root_of(leaves[256:512])
    assert await ledger.read("tile/0/000.p/7") == b"".join(leaves[:7])  # once published, served for ever


async def test_what_the_log_does_not_have_is_none_and_what_is_no_path_is_refused(ledger: Ledger) -> None:
    for path in ("tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1", "tile/entries/000.p/2", "tile/entries/007", "tile/63/000"):
        assert await ledger.read(path) is None
    for path in ("tile/0/0", "../log.key", "log.key", ""):
        with pytest.raises(Invalid):
            await ledger.read(path)


async def test_the_same_id_again_gives_the_first_receipt(ledger: Ledger) -> None:
    (first,) = await ledger.append([fact(1, x=1)], CONDUCTOR)
    later = fact(1, x=1).model_copy(update={"time": "2031-01-01T00:00:00Z"})
    (again,) = await ledger.append([later], CONDUCTOR)
    assert again == first.model_copy(update={"duplicate": True})
    assert ledger.size == 2


async def test_the_same_id_twice_in_one_request_is_one_entry(ledger: Ledger) -> None:
    one, other = await ledger.append([fact(1), fact(1)], CONDUCTOR)
    assert (one.index, one.duplicate, other.index, other.duplicate) == (1, False, 1, True)
    with pytest.raises(Conflict):
        await ledger.append([fact(2), fact(2, x=1)], CONDUCTOR)
    assert ledger.size == 2


async def test_the_same_id_with_other_content_is_refused_and_takes_its_whole_request_along(ledger: Ledger) -> None:
    await ledger.append([fact(1, x=1)], CONDUCTOR)
    with pytest.raises(Conflict, match="request-1"):
        await ledger.append([fact(2), fact(1, x=2)], CONDUCTOR)
    assert ledger.size == 2


async def test_ids_belong_to_their_producer(ledger: Ledger) -> None:
    await ledger.append([fact(1, x=1)], CONDUCTOR)
    (receipt,) = await ledger.append([fact(1, "model.call.intent", x=2)], Producer(id="broker"))
    assert (receipt.index, receipt.duplicate) == (2, False)


async def test_the_same_id_at_the_same_time_is_one_entry(ledger: Ledger) -> None:
    answers = await asyncio.gather(*(ledger.append([fact(1), fact(n)], CONDUCTOR) for n in range(2, 12)))
    assert {receipts[0].index for receipts in answers} == {1}
    assert [receipts[0].duplicate for receipts in answers].count(False) == 1
    assert sorted(receipts[1].index for receipts in answers) == list(range(2, 12))
    assert ledger.size == 12


async def test_an_agent_speaks_for_itself_alone(ledger: Ledger) -> None:
    itself = Actor(kind="agent", id="anna")
    (receipt,) = await ledger.append([fact(1, "tool.call.intent", itself)], ANNA)
    assert receipt.index == 1
    for other in (Actor(kind="agent", id="bert"), Actor(kind="human", id="anna"), SERVICE):
        with pytest.raises(Forbidden):
            await ledger.append([fact(2, "tool.call.intent", other)], ANNA)


async def test_the_ledgers_own_entries_are_its_own(ledger: Ledger) -> None:
    kinds: tuple[EntryType, ...] = ("log.opened", "log.closed", "log.degraded", "heartbeat", "evidence.read")
    for kind in kinds:
        with pytest.raises(Forbidden):
            await ledger.append([fact(1, kind)], CONDUCTOR)
    (receipt,) = await ledger.append([fact(1, "heartbeat")], OWN)
    assert receipt.index == 1


async def test_every_kind_of_entry_has_one_producer_and_nobody_else_writes_it(ledger: Ledger) -> None:
    speakers = {name: Producer(id="agents/anna" if name == AGENTS else name) for name in SPOKEN_BY}
    assert sorted(kind for kinds in SPOKEN_BY.values() for kind in kinds) == sorted(get_args(EntryType))
    itself = Actor(kind="agent", id="anna")
    for owner, kinds in SPOKEN_BY.items():
        for kind in sorted(kinds):
            for name, producer in speakers.items():
                if name != owner:
                    with pytest.raises(Forbidden):
                        await ledger.append([fact(1, kind, itself)], producer)
    with pytest.raises(Forbidden):
        await ledger.append([fact(1, "gate.verdict")], Producer(id="somebody"))
    assert ledger.size == 1


async def test_a_closed_log_takes_nothing_more_and_answers_what_it_has(ledger: Ledger) -> None:
    await ledger.append([fact(1)], CONDUCTOR)
    sizes = await asyncio.gather(ledger.close_log(), ledger.close_log())
    assert list(sizes) == [3, 3]
    assert (await signed(ledger)).size == 3
    with pytest.raises(Conflict, match="closed"):
        await ledger.append([fact(2)], CONDUCTOR)
    (known,) = await ledger.append([fact(1)], CONDUCTOR)
    assert (known.index, known.duplicate) == (1, True)
    assert json.loads((await entries(ledger))[-1])["ce"]["type"] == "dev.folkmoot.audit.log.closed.v1"


async def test_what_cannot_be_an_entry_is_refused(ledger: Ledger) -> None:
    for data in ({"share": 0.5}, {"text": "x" * 70_000}, {"ü": 1}, {"n": 2**60}):
        with pytest.raises(Invalid):
            await ledger.append([fact(1, **data)], CONDUCTOR)
    assert ledger.size == 1


async def test_an_export_holds_every_file_with_the_checkpoint_last(ledger: Ledger) -> None:
    await ledger.append([fact(i) for i in range(200)], CONDUCTOR)
    await ledger.append([fact(200 + i) for i in range(100)], CONDUCTOR)
    await ledger.publish()
    files = [path async for path, _ in members(ledger.read)]
    assert files[-1] == tiles.CHECKPOINT
    assert sorted(files) == sorted([*tiles.paths_of(301), "README.txt", tiles.MLDSA_VKEY, tiles.POLICY])


async def test_an_export_without_a_promised_file_is_none(ledger: Ledger) -> None:
    async def read(path: str) -> bytes | None:
        return None if path == "tile/0/000.p/1" else await ledger.read(path)

    with pytest.raises(Unavailable, match=r"tile/0/000\.p/1"):
        [path async for path, _ in members(read)]
