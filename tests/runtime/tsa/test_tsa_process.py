"""The real process: over TLS with the operator's certificate or plain, killed at any moment, started twice."""

from __future__ import annotations

import asyncio
import signal
import ssl
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from authority_process import Process, free_port, plain_authority

from folkmoot_cli.dev.issuer import Issuer
from folkmoot_cli.dev.stand_in import StandIn
from folkmoot_core import names
from folkmoot_core.ledger import timestamp
from folkmoot_runtime import web

DATA = b"a checkpoint"
KIND = {"Content-Type": timestamp.QUERY_TYPE}
KILLS = 6


@pytest.fixture
def plain(tmp_path: Path) -> Process:
    return plain_authority(tmp_path)


async def test_killed_at_any_moment_it_never_repeats_a_number_or_goes_back(plain: Process) -> None:
    found: list[timestamp.Token] = []
    chains = set()
    for _ in range(KILLS):
        async with plain.running() as (process, client):
            chain = (await client.get("/chain.pem")).text
            chains.add(chain)
            own = timestamp.read_authority("own", chain)
            for _ in range(2):
                answer = await client.post("/", content=timestamp.query(DATA, 3), headers=KIND)
                found.append(timestamp.verify(answer.content, DATA, own, 3))
            asking = asyncio.create_task(client.post("/", content=timestamp.query(DATA, 4), headers=KIND))
            await asyncio.sleep(0)
            process.kill()
            with suppress(httpx2.TransportError):
                found.append(timestamp.verify((await asking).content, DATA, own, 4))
    serials = [token.serial for token in found]
    assert serials == sorted(set(serials))
    assert [token.gen_time for token in found] == sorted(token.gen_time for token in found)
    assert len(chains) == 1


async def test_it_stops_when_asked_and_a_second_one_exits_with_a_sentence(plain: Process) -> None:
    async with plain.running() as (process, _):
        second = await plain.start(FOLKMOOT_PORT=str(free_port()))
        _, said = await second.communicate()
        assert second.returncode == 1
        assert b"in use by another process" in said
        process.send_signal(signal.SIGTERM)
        await process.communicate()
        assert process.returncode == 0
    named = await plain.start(FOLKMOOT_TIMESTAMPS_NAME="x" * 60)
    _, said = await named.communicate()
    assert (named.returncode, b"at most 59" in said) == (1, True)


async def test_in_an_installation_it_serves_with_the_operators_certificate(plain: Process, tmp_path: Path) -> None:
    issuer = Issuer()
    stand_in = StandIn(issuer)
    stand_in.write_trust(tmp_path / "trust")
    issuer.project(tmp_path / "tokens", names.SYSTEM_NAMESPACE, names.SA_TIMESTAMPS, (names.AUDIENCE_OPERATOR,), "timestamps-0")
    endpoint = free_port()
    plain.env |= {
        "FOLKMOOT_NAMESPACE": names.SYSTEM_NAMESPACE, "FOLKMOOT_OPERATOR_URL": f"https://127.0.0.1:{endpoint}",
        "FOLKMOOT_TOKENS": str(tmp_path / "tokens"), "FOLKMOOT_TRUST": str(tmp_path / "trust"),
    }  # fmt: skip
    plain.url, plain.trusted = plain.url.replace("http:", "https:"), ssl.create_default_context(cadata=stand_in.authority.pem())
    serving = asyncio.create_task(
        web.serve(stand_in.app(), host="127.0.0.1", port=endpoint, context=stand_in.server_context(tmp_path))
    )
    async with plain.running() as (_, client):
        own = timestamp.read_authority("own", (await client.get("/chain.pem")).text)
        answer = await client.post("/", content=timestamp.query(DATA, 5), headers=KIND)
        assert timestamp.verify(answer.content, DATA, own, 5).nonce == 5
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
