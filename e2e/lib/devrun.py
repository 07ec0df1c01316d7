"""Runs the demo's story through `folkmoot dev` against a model simulator, on this machine alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import yaml
from program import program_config_map

DEMO = Path(__file__).parents[1] / "demo"


@dataclass
class Run:
    """One run of `folkmoot dev`: its lines as they come, its exit code at the end."""

    state: Path
    models: str
    lines: list[str] = field(default_factory=list)
    code: int | None = None
    on_line: Callable[[str], None] = lambda line: None

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def kill(self, name: str) -> None:
        """SIGKILL one process by its name, e.g. "acme/ledger"."""
        os.kill(json.loads((self.state / "processes.json").read_text())[name], signal.SIGKILL)

    async def go(self, *paths: Path, arguments: tuple[str, ...] = (), limit: float = 150) -> None:
        """Run to the end."""
        program = self.state / "program.yaml"
        program.write_text(yaml.safe_dump(program_config_map(DEMO / "program", "discount-program", "folkmoot-acme")))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "folkmoot_cli.main", "dev", *map(str, paths), str(program), "--models", self.models, "--state", str(self.state),
            *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async with asyncio.timeout(limit):
                async for raw in process.stdout:
                    line = raw.decode().rstrip("\n")
                    self.lines.append(line)
                    self.on_line(line)
                self.code = await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                await process.wait()

    async def counts(self) -> dict[str, dict[str, int]]:
        """What the simulator billed."""
        async with httpx2.AsyncClient() as client:
            answer = await client.get(f"{self.models}/_sim/counts")
        counts: dict[str, dict[str, int]] = answer.json()
        return counts
