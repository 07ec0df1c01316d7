"""The real ledger process over a directory of its own: started, asked for its memory and processor time, stopped, started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from folkmoot_core.errors import FolkmootError
from folkmoot_core.ledger.export import members
from folkmoot_runtime.ledger.client import LedgerClient
from ledgering.peer import ROOT, Broken

START = 600.0  # seconds that a start may take before something is broken
_TICK = os.sysconf("SC_CLK_TCK")


class Ledger:
    """A context: the process runs within, and is ended behind it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "c.sock"
        self._running: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Ledger:
        self.directory.mkdir()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end(signal.SIGTERM if kind is None else signal.SIGKILL)

    def start(self) -> float:
        """Seconds from the start of the program to the first answer."""
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("core", "agents-image")),
            "FOLKMOOT_TENANT": "bench", "FOLKMOOT_NAMESPACE": "folkmoot-bench",
            "FOLKMOOT_DATA": str(self.directory / "data"), "FOLKMOOT_RUN": str(self.directory / "run"),
            "FOLKMOOT_TOKENS": str(self.directory / "none"), "FOLKMOOT_TRUST": str(self.directory / "none"),
            "FOLKMOOT_LISTEN_HOST": "127.0.0.1",
            "FOLKMOOT_LEDGER_SOCKETS": f"{self.socket}=core/conductor,{self.directory / 'r.sock'}=core/router",
        }  # fmt: skip
        begin = time.perf_counter()
        with (self.directory / "said").open("wb") as said:
            self._running = subprocess.Popen([sys.executable, "-m", "folkmoot_runtime.ledger"], env=env, stderr=said)
        self.size()
        return time.perf_counter() - begin

    def restart(self) -> float:
        """Stop as Kubernetes does, and start again; the seconds of the start."""
        self._end(signal.SIGTERM)
        return self.start()

    def size(self) -> int:
        """Entries that its checkpoint covers."""
        signed = asyncio.run(self._ask())
        return int(signed.split(b"\n")[1])

    async def _ask(self) -> bytes:
        client = LedgerClient(f"unix://{self.socket}", None, None, START)
        asking = asyncio.ensure_future(client.read("checkpoint"))
        try:
            while not asking.done():
                await asyncio.wait([asking], timeout=0.5)
                if self._process().poll() is not None:
                    raise Broken(f"the ledger ended by itself: {self.said()}")
            found = asking.result()
        except FolkmootError as error:
            raise Broken(f"the ledger did not answer: {error.message}; it said: {self.said()}") from error
        finally:
            asking.cancel()
            await client.aclose()
        assert found is not None, "a started ledger has a checkpoint"
        return found

    def export(self, directory: Path) -> None:
        """Everything as a static directory."""

        async def copy() -> None:
            client = LedgerClient(f"unix://{self.socket}", None, None, START)
            async for path, data in members(client.read):
                file = directory / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            await client.aclose()

        asyncio.run(copy())

    def resident(self) -> float:
        """Resident memory in MiB."""
        for line in Path(f"/proc/{self._process().pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise Broken("the kernel does not say how much memory the ledger has")

    def busy(self) -> float:
        """Processor seconds so far."""
        fields = Path(f"/proc/{self._process().pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def said(self) -> str:
        """The end of its log."""
        return (self.directory / "said").read_text(errors="replace").strip()[-1000:]

    def _process(self) -> subprocess.Popen[bytes]:
        assert self._running is not None
        return self._running

    def _end(self, number: signal.Signals) -> None:
        process = self._process()
        if process.poll() is None:
            process.send_signal(number)
        code = process.wait()
        if number is signal.SIGTERM and code != 0:
            raise Broken(f"the ledger ended with {code}: {self.said()}")
