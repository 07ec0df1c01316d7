"""Our log, proofs and cosignatures before programs that we did not write, and our witness before a foreign client."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from killing import Killing
from witnessing import IDENTITY, NOW, WITNESS_KEYS, GrowingLog

from folkmoot_core.entries import Actor, Producer, new_entry
from folkmoot_core.ledger import note, tree, witness
from folkmoot_core.ledger.export import members
from folkmoot_core.ledger.proof import TlogProof
from folkmoot_core.ledger.witness import Behind, Cosignatures, Refused
from folkmoot_runtime import web
from folkmoot_runtime.ledger.log import Options, open_log
from folkmoot_runtime.witness.door import Witness
from folkmoot_runtime.witness.interface import MemoryStore

SIZES = (1, 255, 256, 257, 70_000)
KILLS = 15
ACTOR = Actor(kind="service", id="conductor")


async def run(*command: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A log that our `Log` wrote and grew, exported at each size."""
    base = tmp_path_factory.mktemp("judged")

    async def write() -> dict[int, Path]:
        log = await open_log(base / "log", Options(tenant="acme", max_queued=100_000))
        found = {}
        for size in SIZES:
            while log.size < size:
                fresh = range(log.size, min(size, log.size + 200))
                await log.append(
                    [new_entry("session.start", ACTOR, id=f"request-{i}", data={"i": i}, now=1.0) for i in fresh],
                    Producer(id="core/conductor"),
                )
            await log.publish()
            found[size] = base / str(size)
            async for path, data in members(log.read):
                file = found[size] / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
        await log.aclose()
        return found

    return asyncio.run(write())


@pytest.mark.parametrize("size", SIZES)
async def test_tesseras_fsck_accepts_every_size(fsck: str, exported: dict[int, Path], size: int) -> None:
    directory = exported[size]
    code, said = await run(fsck, f"--storage_url=file://{directory}/", f"--public_key={directory}/log.vkey", "--ui=false")
    assert code == 0, said
    assert f"\n{size}\n" in (directory / "checkpoint").read_text()


@pytest.mark.parametrize("size", SIZES)
async def test_gos_tlog_proves_entries_and_prefixes(judges: str, exported: dict[int, Path], size: int) -> None:
    directory = exported[size]
    vkey = (directory / "log.vkey").read_text().strip()
    assert await run(judges, "log", str(directory), vkey) == (0, "ok\n")


async def test_a_log_that_was_killed_again_and_again_passes_before_both(judges: str, fsck: str, tmp_path: Path) -> None:
    outcome = await Killing(tmp_path, seed=3).run(KILLS, tmp_path / "export")
    assert outcome.lost == []
    code, said = await run(
        fsck, f"--storage_url=file://{tmp_path}/export/", f"--public_key={tmp_path}/export/log.vkey", "--ui=false"
    )
    assert code == 0, said
    assert await run(judges, "log", f"{tmp_path}/export", (tmp_path / "export/log.vkey").read_text().strip()) == (0, "ok\n")


async def test_a_flipped_bit_is_seen(judges: str, exported: dict[int, Path]) -> None:
    directory = exported[257]
    file = directory / "tile/entries/000"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        vkey = (directory / "log.vkey").read_text().strip()
        code, _ = await run(judges, "log", str(directory), vkey)
        assert code == 1
    finally:
        file.write_bytes(whole)


async def test_formats_verifies_all_our_signatures(judges: str, tmp_path: Path) -> None:
    log = GrowingLog()
    vkeys = [key.vkey() for key in (*log.keys, *WITNESS_KEYS)]
    file = tmp_path / "checkpoint"
    file.write_bytes(log.signed(7) + IDENTITY.lines(log.point(7).body(), NOW).encode())
    assert await run(judges, "cosigned", str(file), log.origin, *vkeys) == (0, "ok\n")
    file.write_bytes(log.signed(7) + IDENTITY.lines(log.point(6).body(), NOW).encode())
    code, _ = await run(judges, "cosigned", str(file), log.origin, *vkeys)
    assert code == 1


async def test_formats_reads_our_proofs(judges: str, tmp_path: Path) -> None:
    log = GrowingLog().grow(7)
    signed = log.signed(7) + IDENTITY.lines(log.point(7).body(), NOW).encode()
    vkeys = [key.vkey() for key in (*log.keys, *WITNESS_KEYS)]
    for extra in (b"", b"an opening"):
        hashes = tuple(tree.inclusion_proof(3, 7, tree.nodes_of(log.leaves)))
        (tmp_path / "p").write_bytes(TlogProof(3, hashes, signed, extra).encode())
        (tmp_path / "entry").write_bytes(b"3")
        assert await run(judges, "proof", str(tmp_path / "p"), str(tmp_path / "entry"), log.origin, *vkeys) == (0, "ok\n")
        (tmp_path / "entry").write_bytes(b"4")
        code, _ = await run(judges, "proof", str(tmp_path / "p"), str(tmp_path / "entry"), log.origin, *vkeys)
        assert code == 1


@pytest.fixture
async def foreign(judges: str) -> AsyncIterator[list[str]]:
    """transparency-dev's witness: its URL and its two vkeys."""
    process = await asyncio.create_subprocess_exec(judges, "witness", GrowingLog().keys[0].vkey(), stdout=subprocess.PIPE)
    assert process.stdout is not None
    yield [(await process.stdout.readline()).decode().strip() for _ in range(3)]
    process.kill()
    await process.communicate()


async def test_a_foreign_witness_cosigns_our_log(foreign: list[str]) -> None:
    url, *vkeys = foreign
    keys = [note.parse_vkey(vkey) for vkey in vkeys]
    log = GrowingLog()

    async def ask(log: GrowingLog, old: int, size: int) -> Cosignatures | Behind | Refused:
        async with httpx2.AsyncClient(trust_env=False) as client:
            answer = await client.post(f"{url}/add-checkpoint", content=log.request(old, size).encode())
        found = (answer.status_code, answer.headers.get("content-type", ""), answer.content)
        return witness.read_answer(found, log.point(size).body(), keys)

    for old, size in ((0, 3), (3, 3), (3, 300)):
        found = await ask(log, old, size)
        assert isinstance(found, Cosignatures)
        assert set(found.keys) == set(keys)
    assert await ask(log, 3, 301) == Behind(300)
    assert await ask(GrowingLog(salt=b"fork "), 300, 300) == Refused(422, fork=True)
    assert await ask(GrowingLog(origin="folkmoot/other"), 0, 3) == Refused(404, fork=False)


async def test_a_foreign_client_is_cosigned_by_our_witness(judges: str, tmp_path: Path, unused_tcp_port: int) -> None:
    log = GrowingLog().grow(9)
    store = MemoryStore()
    await store.enrol("tenant", log.origin, lambda _: (log.known, None))
    door = Witness(store, IDENTITY, lambda: float(NOW)).public()
    serving = asyncio.create_task(web.serve(door, host="127.0.0.1", port=unused_tcp_port))
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with httpx2.AsyncClient(trust_env=False) as client, asyncio.timeout(20):
        while True:
            try:
                await client.get(f"{url}/healthz")
                break
            except httpx2.TransportError:
                await asyncio.sleep(0.05)

    async def submit(request: witness.Request) -> tuple[int, str]:
        (tmp_path / "checkpoint").write_bytes(request.checkpoint)
        return await run(judges, "submit", url, str(request.old), str(tmp_path / "checkpoint"), *(h.hex() for h in request.proof))

    for old, size in ((0, 4), (4, 9)):
        code, said = await submit(log.request(old, size))
        assert code == 0, said
        lines = said.removesuffix("ok\n")
        assert isinstance(witness.read_answer((200, "", lines.encode()), log.point(size).body(), WITNESS_KEYS), Cosignatures)
    code, said = await submit(log.request(4, 9))
    assert (code, "size 9" in said) == (1, True)
    code, said = await submit(GrowingLog(salt=b"fork ").request(9, 9))
    assert (code, "proof" in said.lower()) == (1, True)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
