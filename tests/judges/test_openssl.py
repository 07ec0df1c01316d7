"""`openssl ts -verify` on a log that our ledger's process had timestamped by our authority's, with the commands that its export names."""

from __future__ import annotations

import asyncio
import json
import shlex
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from authority_process import Process, plain_authority
from ledger_core import new_core

from folkmoot_cli import verify
from folkmoot_cli.sources import open_source
from folkmoot_core import names
from folkmoot_core.document import AuditEntry, TimestampAuthorityEntry
from folkmoot_core.entries import Actor, new_entry
from folkmoot_core.ledger.audit import Trust as Trusted
from folkmoot_runtime.ledger.client import LedgerClient
from folkmoot_runtime.ledger.export import write_directory

ACTOR = Actor(kind="service", id="conductor")


async def shell(directory: Path, openssl: str, words: list[str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        openssl, *words, cwd=directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


def commands(directory: Path) -> list[list[str]]:
    """What the export's page tells to type, without the program's name."""
    page = (directory / "README.txt").read_text()
    return [shlex.split(line)[1:] for line in page.splitlines() if line.startswith("  openssl ")]


async def anchored(client: LedgerClient, wanted: int) -> dict[str, Any]:
    """The log's report once every authority has signed so much."""
    async with asyncio.timeout(60):
        while True:
            report = (await client.anchor()).model_dump()
            if report["anchored_size"] >= wanted and not report["unanchored"]:
                return report
            await asyncio.sleep(0.1)


@pytest.fixture
async def exported(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A closed log that two authorities have timestamped, as a directory, and their chains."""
    core = new_core(tmp_path)
    own, other = plain_authority(tmp_path / "own"), plain_authority(tmp_path / "other")
    own.env |= {
        "FOLKMOOT_NAMESPACE": names.SYSTEM_NAMESPACE, "FOLKMOOT_OPERATOR_URL": f"https://127.0.0.1:{core.port}/operator",
        "FOLKMOOT_TOKENS": str(tmp_path / "time"), "FOLKMOOT_TRUST": str(tmp_path / "trust"),
    }  # fmt: skip
    own.url, own.trusted = own.url.replace("http:", "https:"), core.stand_in.client_context(tmp_path)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(core.served())
        chains = {}
        for name, one in (("cluster", own), ("other", other)):
            chains[name] = await started(stack, one)
        authorities = tuple(
            TimestampAuthorityEntry(name=name, url=f"{one.url}/", certificates=chains[name])
            for name, one in (("cluster", own), ("other", other))
        )
        core.audit = AuditEntry(authorities=authorities)
        async with core.ledger() as client:
            for number in range(3):
                await client.append(new_entry("session.start", ACTOR, id=f"request-{number}", data={}, now=1.0))
                await anchored(client, number + 2)
            assert await client.close_log() > 4
            await write_directory(client.read, tmp_path / "exported")
    return tmp_path / "exported", chains


async def started(stack: AsyncExitStack, one: Process) -> str:
    _, client = await stack.enter_async_context(one.running())
    return str((await client.get("/chain.pem")).text)


async def test_the_commands_of_an_export_verify_every_timestamp(openssl: str, exported: tuple[Path, dict[str, str]]) -> None:
    directory, chains = exported
    found = commands(directory)
    assert len(found) >= 8  # three demands and the closed log's end, each by two authorities
    for words in found:
        code, said = await shell(directory, openssl, words)
        assert (code, "Verification: OK" in said) == (0, True), said
    closing = json.loads((directory / "anchors/closing.json").read_bytes())["anchors"]
    assert {one["authority"] for one in closing} == set(chains)
    with open_source(str(directory)) as read:
        report = verify.checked(read, Trusted((directory / "log.vkey").read_text().strip()), pinned=chains).report
    assert report.ok, [check.findings for check in report.checks]
    assert len(report.anchors) >= len(found)
    assert all(one.pinned for one in report.anchors)


async def test_openssl_refuses_what_we_refuse(openssl: str, exported: tuple[Path, dict[str, str]]) -> None:
    directory, _ = exported
    words = commands(directory)[-1]
    data, response, pem = (words[words.index(flag) + 1] for flag in ("-data", "-in", "-CAfile"))
    asked = response.replace(".tsr", ".tsq")
    by_query = ["ts", "-verify", "-queryfile", asked, "-in", response, "-CAfile", pem, "-untrusted", pem]
    assert (await shell(directory, openssl, by_query))[0] == 0
    foreign = next(path for path in (directory / "anchors").glob("*.pem") if not pem.endswith(path.name))
    assert (await shell(directory, openssl, [f"anchors/{foreign.name}" if word == pem else word for word in words]))[0] != 0
    signed = (directory / data).read_bytes()
    (directory / data).write_bytes(signed[:-2] + bytes([signed[-2] ^ 1]) + signed[-1:])
    code, said = await shell(directory, openssl, words)
    assert (code != 0, "message imprint mismatch" in said) == (True, True)
