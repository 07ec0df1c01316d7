"""Processes that outlive this program: started with a record, ended by it and by nothing else.

A record holds the pid and the kernel's start time of the process. Pids are reused; the pair is not. So a record left by
a crash or a reboot can never end a stranger.
"""

import json
import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

GRACE = 2.0  # seconds from SIGTERM to SIGKILL; the API server would drain for many, for clients that go with it


@dataclass(frozen=True)
class Process:
    """One process that was started, as its record says."""

    name: str
    pid: int
    started: int


def start_time(pid: int) -> int | None:
    """When the kernel started this pid, in ticks since boot; None if it is gone or a zombie."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = content.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def alive(process: Process) -> bool:
    """Whether this very process still runs."""
    return start_time(process.pid) == process.started


def memory(process: Process) -> int:
    """Resident bytes that are its own; 0 when it is gone. Pages of the shared binary are not counted."""
    try:
        content = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in content.splitlines() if line.startswith("RssAnon:")]
    return int(found[0]) * 1024 if found else 0


def recorded(directory: Path) -> list[Process]:
    """Every process on record, also those that are gone."""
    return [Process(**json.loads(path.read_text())) for path in sorted(directory.glob("*.json"))]


def find(directory: Path, name: str) -> Process | None:
    """The record of that name, if there is one."""
    path = directory / f"{name}.json"
    return Process(**json.loads(path.read_text())) if path.exists() else None


def start(directory: Path, name: str, argv: Sequence[str | Path], log: Path) -> Process:
    """Start it in a session of its own (Ctrl-C at `up` must not reach it) and put it on record."""
    directory.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in argv]
    # Not subprocess: that expects to wait for what it starts, and these are to outlive this program.
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawnp(words[0], words, os.environ, file_actions=actions, setsid=True)
    process = Process(name, pid, start_time(pid) or 0)
    (directory / f"{name}.json").write_text(json.dumps(asdict(process)))
    return process


def stop(directory: Path, processes: Iterable[Process], grace: float = GRACE) -> list[Process]:
    """End them together: ask, wait, then insist. Returns those that were running; forgets all."""
    running = [process for process in processes if alive(process)]
    for process in running:
        os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(alive(process) for process in running) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in running:
        if alive(process):
            os.kill(process.pid, signal.SIGKILL)
    for process in processes:
        (directory / f"{process.name}.json").unlink(missing_ok=True)
    return running
