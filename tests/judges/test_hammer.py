"""Tessera's load tool, reading and writing at the same time, against the real ledger process."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import httpx2
import pytest

ROOT = Path(__file__).parents[2]
LEAVES = 1500
READERS = {"max_read_ops": 400, "num_readers_random": 8, "num_readers_full": 4}
WRITERS = {"max_write_ops": 400, "num_writers": 64, "leaf_write_goal": LEAVES, "leaf_min_size": 200}


@pytest.mark.timeout(240)
async def test_hammer_reads_and_writes(hammer: str, fsck: str, tmp_path: Path, unused_tcp_port: int) -> None:
    env = {
        "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("core", "agents-image")),
        "FOLKMOOT_TENANT": "acme", "FOLKMOOT_NAMESPACE": "folkmoot-acme", "FOLKMOOT_LISTEN_HOST": "127.0.0.1",
        "FOLKMOOT_DATA": str(tmp_path / "data"), "FOLKMOOT_RUN": str(tmp_path / "run"),
        "FOLKMOOT_TOKENS": str(tmp_path / "none"), "FOLKMOOT_TRUST": str(tmp_path / "none"),
        "FOLKMOOT_LEDGER_SOCKETS": f"{tmp_path / 'c.sock'}=core/conductor",
        "FOLKMOOT_DEBUG_ADD": "true", "FOLKMOOT_DEBUG_PORT": str(unused_tcp_port),
    }  # fmt: skip
    ledger = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "folkmoot_runtime.ledger", env=env, stderr=asyncio.subprocess.PIPE
    )
    try:
        url = f"http://127.0.0.1:{unused_tcp_port}"
        vkey = await fetched(f"{url}/log.vkey")
        flags = [f"--{name}={value}" for name, value in {**READERS, **WRITERS, "max_runtime": "2m", "show_ui": "false"}.items()]
        tool = await asyncio.create_subprocess_exec(
            hammer, f"--log_public_key={vkey}", f"--log_url={url}", *flags,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await tool.communicate())[0].decode()
        assert tool.returncode == 0, said
        assert "Reached tree size goal" in said
        complaints = [line for line in said.splitlines() if line.startswith(("W", "E", "F"))]
        assert not [line for line in complaints if "pushback" not in line], said
        size = int((await fetched(f"{url}/checkpoint")).splitlines()[1])
        assert size > LEAVES
        checked = await asyncio.create_subprocess_exec(
            fsck, f"--storage_url={url}/", f"--public_key={key_file(tmp_path, vkey)}", "--ui=false",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await checked.communicate())[0].decode()
        assert checked.returncode == 0, said
        async with httpx2.AsyncClient(trust_env=False) as client:
            answers = [(await client.post(f"{url}/add", content=b"the same leaf")).text for _ in range(2)]
            assert answers[0] == answers[1]
            assert (await client.post(f"{url}/v1/entries", content=b"{}")).status_code == httpx2.codes.NOT_FOUND
    finally:
        if ledger.returncode is None:
            ledger.terminate()
        _, said_at_end = await ledger.communicate()
    assert ledger.returncode == 0, said_at_end.decode()


async def fetched(url: str) -> str:
    """A file of the log, once the process answers."""
    async with httpx2.AsyncClient(trust_env=False) as client, asyncio.timeout(60):
        while True:
            try:
                answer = await client.get(url)
                if answer.status_code == httpx2.codes.OK:
                    return answer.text.strip()
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.05)


def key_file(directory: Path, vkey: str) -> Path:
    file = directory / "log.vkey"
    file.write_text(vkey + "\n")
    return file
