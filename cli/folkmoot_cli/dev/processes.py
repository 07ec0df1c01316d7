"""Running the tenant's processes as the kubelet would: start, restart with backoff, stop all of them at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 6.0
FIRST_BACKOFF = 0.2
LONGEST_BACKOFF = 10.0
STABLE_SECONDS = 30.0


@dataclass(frozen=True)
class ProcessSpec:
    """One process: `name` is unique over the run ("acme/core/ledger"), `module` is run with `python -m`."""

    name: str
    module: str
    env: dict[str, str]


class Processes:
    """Supervises a set of processes; each one's output goes to `logs/<name>.log`."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._tasks: list[asyncio.Task[None]] = []
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = False
        self.restarts: dict[str, int] = {}

    def start(self, spec: ProcessSpec) -> None:
        """Start and keep running until `stop`."""
        self._tasks.append(asyncio.create_task(self._keep(spec), name=spec.name))

    def pids(self) -> dict[str, int]:
        """Process ids by name, for measurements and for tests that kill one."""
        return {name: process.pid for name, process in self._running.items() if process.returncode is None}

    def log(self, name: str) -> Path:
        """File with a process's output."""
        return self._logs / f"{name.replace('/', '.')}.log"

    async def stop(self) -> None:
        """SIGTERM to all, SIGKILL to those that stay."""
        self._stopping = True
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        _, late = await asyncio.wait(self._tasks, timeout=STOP_SECONDS) if self._tasks else (set(), set())
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        if late:
            await asyncio.wait(late)

    async def _keep(self, spec: ProcessSpec) -> None:
        backoff = FIRST_BACKOFF
        while not self._stopping:
            started = time.monotonic()
            await self._once(spec)
            if self._stopping:
                return
            self.restarts[spec.name] = self.restarts.get(spec.name, 0) + 1
            backoff = FIRST_BACKOFF if time.monotonic() - started > STABLE_SECONDS else min(backoff * 2, LONGEST_BACKOFF)
            await asyncio.sleep(backoff)

    async def _once(self, spec: ProcessSpec) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8", **spec.env}
        with self.log(spec.name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", spec.module, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,  # Ctrl-C reaches `folkmoot dev` alone, which then stops the rest in order
            )  # fmt: skip
            self._running[spec.name] = process
            self._publish()
            await process.wait()

    def _publish(self) -> None:
        """`processes.json` beside the logs: who runs under which pid, for whoever measures or kills one."""
        fresh = self._logs.parent / ".processes.json"
        fresh.write_text(json.dumps(self.pids(), indent=2))
        fresh.replace(self._logs.parent / "processes.json")
