"""An erasure through every process: what was said is gone from conductor and broker, and the log says so and verifies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from pathlib import Path

from devrun import DEMO, Run

from folkmoot_cli.main import main

FILES = (DEMO / "manifests.yaml", DEMO / "sessions.yaml")


def door(run: Run, tenant: str) -> list[str]:
    """The CLI's words for a tenant's conductor, as its owner."""
    pid = json.loads((run.state / "processes.json").read_text())[f"{tenant}/conductor"]
    variables = dict(one.partition("=")[::2] for one in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    token = run.state / tenant / "tokens" / "folkmoot-owner" / "folkmoot-conductor"
    return ["--server", f"https://127.0.0.1:{variables['FOLKMOOT_PORT']}", "--ca", f"{run.state}/trust/ca.crt",
            "--token-file", str(token)]  # fmt: skip


def calls(run: Run, tenant: str) -> tuple[int, int, int]:
    """In the broker's journal: calls, entries, entries with content."""
    with contextlib.closing(sqlite3.connect(run.state / tenant / "data/broker/broker/calls.db")) as db:
        return (*db.execute("SELECT (SELECT COUNT(*) FROM calls), COUNT(*), COUNT(content) FROM entries").fetchone(),)


async def test_what_was_said_is_gone_and_the_entry_says_where_from(run: Run, capsys, tmp_path):
    over = asyncio.Event()
    run.on_line = lambda line: over.set() if "running until Ctrl-C" in line else None
    running = asyncio.create_task(run.go(*FILES, arguments=("--stay",)))
    try:
        async with asyncio.timeout(140):
            await over.wait()
        before, there = calls(run, "globex"), door(run, "globex")
        assert before[0] > 0
        assert before[2] > 0
        words = ["ledger", "erase", "--session", "greet", "--basis", "a test", "--yes", *there]
        assert await asyncio.to_thread(main, words) == 0
        assert "not reached from here: exports, backups, providers;" in capsys.readouterr().out
        assert calls(run, "globex") == (0, before[1], 0)
        tar = tmp_path / "globex.tar"
        assert await asyncio.to_thread(main, ["session", "evidence", "-o", str(tar), *there]) == 0
        capsys.readouterr()
        assert main(["verify", str(tar), "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["erased"] > 0
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
