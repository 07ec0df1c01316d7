"""The Go side: Tessera in process, the HTTP client, Tessera's fsck. Built once, kept in the cache of the test cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "e2e/cluster/lib"))

from folkmoot_cluster import build, names, tools  # noqa: E402
from folkmoot_cluster.errors import ClusterError  # noqa: E402


class Broken(Exception):
    """Something did not work; a figure that is merely low is none of these."""


@dataclass(frozen=True)
class Programs:
    """Where the built programs are."""

    load: Path
    fsck: Path


def programs() -> Programs:
    """Build them; `Broken` with what is missing, where there is no Go."""
    cache = names.instance(os.environ).cache
    try:
        return Programs(load=build.ledger_load(cache), fsck=tools.path(cache, "fsck"))
    except (ClusterError, OSError, subprocess.SubprocessError) as error:
        raise Broken(f"the peer and the client are written in Go, and cannot be built here: {error}") from error


def measured(*command: str | Path) -> dict[str, Any]:
    """What a program printed as JSON."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Broken(f"{Path(command[0]).name} {command[1]} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(fsck: Path, directory: Path) -> None:
    """Tessera's fsck over an exported log; `Broken` with what it said."""
    done = subprocess.run(
        [str(fsck), f"--storage_url=file://{directory}/", f"--public_key={directory}/log.vkey", "--ui=false"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Broken(f"Tessera's fsck refuses the log: {(done.stdout + done.stderr).strip()[-2000:]}")
