"""The page of an export names commands that are not ours: typed as they are printed, on an export of a log that runs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from served_ledger import Tenant, served

from folkmoot_cli.main import main
from folkmoot_core.entries import Actor, new_entry
from folkmoot_runtime.ledger.client import MAX_BATCH

SERVICE = Actor(kind="service", id="conductor")
FSCK = re.compile(r"go run github\.com/transparency-dev/tessera/cmd/fsck@v1\.\d+\.\d+ ")


async def filled(tenant: Tenant, size: int) -> None:
    client = tenant.conductor()
    for first in range(0, size, MAX_BATCH):
        numbers = range(first, min(size, first + MAX_BATCH))
        await client.append_many(
            [new_entry("session.start", SERVICE, id=f"request-{n}", data={"n": n}, now=1.0) for n in numbers]
        )
    await client.aclose()


async def typed(command: str, directory: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_shell(
        command, cwd=directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, executable="/bin/bash"
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_the_pages_commands_work_as_they_are_printed(fsck: str, tmp_path: Path) -> None:
    async with served(tmp_path / "tenant") as tenant:
        await filled(tenant, 700)
        export = tmp_path / "acme evidence"
        while True:  # until the checkpoint covers what was appended
            assert await asyncio.to_thread(main, ["ledger", "export", str(export), *tenant.reading()]) == 0
            if "\n70" in (export / "checkpoint").read_text():
                break
            for file in sorted(export.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
    commands = [line.strip() for line in (export / "README.txt").read_text().splitlines() if line.startswith("  ")]
    go, sums = (next(one for one in commands if word in one) for word in ("go run", "sha256sum"))
    assert FSCK.match(go)  # built once for all judges, as `go run` would
    code, said = await typed(FSCK.sub(f"{fsck} ", go), export)
    assert code == 0, said
    code, said = await typed(sums, export)
    assert code == 0, said
    assert "tile/entries/000: OK" in said

    bundle = export / "tile/entries/001"
    bundle.write_bytes(bundle.read_bytes().replace(b"request-300", b"request-301"))
    assert (await typed(sums, export))[0] != 0
