"""The real ledger as a process over a directory, one after the other; and a producer that knows nothing but its socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from folkmoot_runtime.ledger.client import LedgerClient

ROOT = Path(__file__).parents[2]
OPEN = b'"message": "log open"'


class Process:
    """One ledger process after the other over one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.conductor = directory / "c.sock"
        self.router = directory / "r.sock"
        self.running: asyncio.subprocess.Process | None = None
        self.opened = asyncio.Event()
        """The log has been read back and takes entries."""
        self._ending = False
        self._said: list[bytes] = []
        self._listening: asyncio.Task[None] | None = None

    @property
    def log(self) -> Path:
        """The log's directory."""
        return self.directory / "data/ledger"

    async def start(self, **more: str) -> asyncio.subprocess.Process:
        """`more` is its further environment."""
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("core", "agents-image")),
            "FOLKMOOT_TENANT": "acme",
            "FOLKMOOT_NAMESPACE": "folkmoot-acme",
            "FOLKMOOT_DATA": str(self.directory / "data"),
            "FOLKMOOT_RUN": str(self.directory / "run"),
            "FOLKMOOT_TOKENS": str(self.directory / "none"),
            "FOLKMOOT_TRUST": str(self.directory / "none"),
            "FOLKMOOT_LISTEN_HOST": "127.0.0.1",
            "FOLKMOOT_LEDGER_SOCKETS": f"{self.conductor}=core/conductor,{self.router}=core/router",
            **more,
        }
        self.opened.clear()
        self._ending = False
        self._said = []
        self.running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "folkmoot_runtime.ledger", env=env, stderr=asyncio.subprocess.PIPE
        )
        self._listening = asyncio.create_task(self._listen(self.running))
        return self.running

    async def _listen(self, running: asyncio.subprocess.Process) -> None:
        assert running.stderr is not None
        while line := await running.stderr.readline():
            self._said.append(line)
            if OPEN in line and not self._ending:  # a line may be read after the process was killed
                self.opened.set()

    async def wait_open(self) -> None:
        """Until it takes entries; an `AssertionError` with its last words when it ended instead."""
        assert self._listening is not None
        opened = asyncio.create_task(self.opened.wait())
        try:
            await asyncio.wait([opened, self._listening], return_when=asyncio.FIRST_COMPLETED)
            assert self.opened.is_set(), f"the ledger ended: {b''.join(self._said).decode()}"
        finally:
            opened.cancel()

    async def ended(self) -> tuple[int, str]:
        """Exit code and what it said, once it has ended of its own accord."""
        assert self.running is not None
        assert self._listening is not None
        await self._listening
        return await self.running.wait(), b"".join(self._said).decode()

    async def end(self, number: signal.Signals) -> tuple[int, str]:
        """Exit code and what it said."""
        assert self.running is not None
        self._ending = True
        self.opened.clear()
        if self.running.returncode is None:
            self.running.send_signal(number)
        return await self.ended()

    def client(self, timeout: float = 60.0) -> LedgerClient:
        """A client of the conductor's socket."""
        return LedgerClient(f"unix://{self.conductor}", None, None, timeout)


class Gone(Exception):
    """The ledger went away before it answered."""


class Connection:
    """One connection to a ledger's socket, made when first needed: no pool, no waiting, no second attempt."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer. Raises `Gone`."""
        try:
            if self._writer is None:
                self._reader, self._writer = await asyncio.open_unix_connection(str(self._path))
            assert self._reader is not None
            self._writer.write(f"{method} {path} HTTP/1.1\r\nhost: ledger\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            return int(head.split(b" ", 2)[1]), await self._reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise Gone from error

    async def append(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """Receipts; None when it was told to come again."""
        status, answer = await self.ask("POST", "/v1/entries", json.dumps({"entries": bodies}).encode())
        if status in (429, 503):
            return None
        assert status == 200, answer
        receipts: list[dict[str, Any]] = json.loads(answer)["receipts"]
        return receipts

    def close(self) -> None:
        """Let go of it."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
