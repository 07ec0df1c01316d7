"""A timestamp authority as a process of its own, for tests that have a log timestamped by it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@dataclass
class Process:
    """One authority process after the other over one directory."""

    env: dict[str, str]
    url: str
    trusted: ssl.SSLContext | bool = True

    async def start(self, **more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "folkmoot_runtime.tsa", env={**self.env, **more}, stderr=asyncio.subprocess.PIPE
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx2.AsyncClient]]:
        started = await self.start()
        try:
            async with httpx2.AsyncClient(verify=self.trusted, trust_env=False, base_url=self.url) as client:
                async with asyncio.timeout(60):
                    while started.returncode is None:
                        with suppress(httpx2.TransportError, ssl.SSLError):
                            if (await client.get("/readyz")).status_code == 200:
                                break
                        await asyncio.sleep(0.05)
                yield started, client
        finally:
            with suppress(ProcessLookupError):
                started.kill()
            await started.communicate()


def plain_authority(directory: Path) -> Process:
    """One that speaks plain HTTP, because no operator gives it a certificate."""
    port = free_port()
    env = {
        "PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"], "FOLKMOOT_TENANT": "system", "FOLKMOOT_NAMESPACE": "time",
        "FOLKMOOT_LISTEN_HOST": "127.0.0.1", "FOLKMOOT_PORT": str(port), "FOLKMOOT_DATA": str(directory / "data"),
        "FOLKMOOT_RUN": str(directory / "run"),
    }  # fmt: skip
    return Process(env, f"http://127.0.0.1:{port}")
