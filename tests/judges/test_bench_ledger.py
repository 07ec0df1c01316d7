"""`bench/ledger` still runs whole: every stage, with sizes that say nothing about speed."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = "--quick --rounds 1 --append 2048 --requests 256 --bulk 800 --small 2000 --large 4000".split()


async def test_every_row_is_measured(fsck: str, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "bench/ledger"), *TINY, "--json", str(tmp_path / "found"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    rows = [line for line in said.decode().splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].split(",")[0].strip() for row in rows] == [
        "metric", "durable append in process", "durable append in process", "HTTP", "HTTP", "folkmoot verify",
        "RSS of the ledger", "RSS of the ledger", "restart",
    ]  # fmt: skip
    found = json.loads((tmp_path / "found").read_text())
    assert found["restart"][0]["entries"] >= 4000
