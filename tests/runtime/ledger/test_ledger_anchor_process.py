"""The real ledger process, timestamped by a real authority's, killed at any moment while it is."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from authority_process import plain_authority
from ledger_core import new_core

from folkmoot_core.document import AuditEntry, TimestampAuthorityEntry
from folkmoot_core.entries import Actor, new_entry
from folkmoot_core.ledger import anchored, export
from folkmoot_core.ledger.audit import Trust, verify_log

ACTOR = Actor(kind="service", id="conductor")
KILLS = 6


async def test_killed_while_it_is_timestamped_every_entry_has_its_files(tmp_path: Path) -> None:
    rng = random.Random(3161)
    core, authority = new_core(tmp_path), plain_authority(tmp_path / "authority")
    async with core.served(), authority.running() as (_, http):
        chain = (await http.get("/chain.pem")).text
        core.audit = AuditEntry(authorities=(TimestampAuthorityEntry(name="own", url=f"{authority.url}/", certificates=chain),))
        client = core.client()
        for number in range(KILLS):
            process = await core.start()
            await client.append(new_entry("session.start", ACTOR, id=f"request-{number}", data={}, now=1.0))
            if number == 0:
                while not (await client.anchor()).anchored_size:  # it has its terms now, and keeps them
                    await asyncio.sleep(0.05)
                await client.append(new_entry("session.start", ACTOR, id="request-more", data={}, now=1.0))
            asking = asyncio.create_task(client.anchor())
            await asyncio.sleep(rng.random() * 0.15)
            process.kill()
            asking.cancel()
            await asyncio.wait([asking])
            await process.communicate()
        await client.aclose()
        async with core.ledger() as client:
            size = (await client.append(new_entry("session.start", ACTOR, id="request-last", data={}, now=1.0))).index + 1
            while (await client.anchor()).anchored_size < size:
                await asyncio.sleep(0.05)
            files = {path: data async for path, data in export.members(client.read)}
    found = verify_log(files.get, Trust(files["log.vkey"].decode().strip()))
    anchored.check_anchors(found, files.get, {"own": chain})
    assert found.report.ok, [check.findings for check in found.report.checks]
    assert len(found.report.anchors) == found.report.types["anchor"] >= 2
    assert not list(tmp_path.rglob("*.new"))
