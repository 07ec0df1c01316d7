"""What is measured, in which order, and what is kept of it. Each stage returns plain values; `table.py` judges them."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folkmoot_core.ledger.tiles import CHECKPOINT
from ledgering import peer
from ledgering.peer import ROOT, Broken, Programs
from ledgering.process import Ledger

Found = dict[str, Any]
CONNECTIONS = 64
BULK_CONNECTIONS, BULK = 16, 200  # a producer that sends batches needs few connections
BYTES_AN_ENTRY = 700  # on the volume, with tree and index


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    rounds: int
    append: int  # entries, of each side
    requests: int  # single entries over HTTP
    bulk: int  # entries in batches over HTTP
    small: int  # entries at which memory is read and the log is verified
    large: int  # entries at which memory is read and the process is started again

    def needed(self) -> int:
        """Bytes of disk, generously."""
        return (self.large + 2 * self.small + 4 * self.append) * BYTES_AN_ENTRY * 5 // 4


FULL = Sizes(rounds=5, append=200_000, requests=100_000, bulk=300_000, small=1_000_000, large=10_000_000)
QUICK = Sizes(rounds=2, append=20_000, requests=5_000, bulk=20_000, small=60_000, large=120_000)


@dataclass(frozen=True)
class Bench:
    """Where it happens."""

    scratch: Path
    programs: Programs
    sizes: Sizes
    say: Callable[[str], None]

    @contextmanager
    def place(self, name: str) -> Iterator[Path]:
        """A directory that is gone afterwards, so that no round finds a disk that the one before filled."""
        path = self.scratch / name
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def append(bench: Bench, batch: int) -> Found:
    """One pair in process, the peer first."""
    with bench.place("tessera") as path:
        theirs = peer.measured(
            bench.programs.load, "tessera", "-directory", path, "-entries", str(bench.sizes.append), "-batch", str(batch)
        )
    with bench.place("append") as path:
        ours = peer.measured(sys.executable, ROOT / "bench/ledgering/ours.py", path, str(bench.sizes.append), str(batch))
    return {"ours": ours, "theirs": theirs, "ratio": _rate(ours) / _rate(theirs)}


def http(bench: Bench, ledger: Ledger, run: str, entries: int, batch: int) -> Found:
    """Over the ledger's socket, each request waiting for its receipt."""
    connections = CONNECTIONS if batch == 1 else BULK_CONNECTIONS
    ledger_before, client_before, begin = ledger.busy(), _children(), time.perf_counter()
    found = peer.measured(
        bench.programs.load, "http", "-socket", ledger.socket, "-connections", str(connections), "-batch", str(batch),
        "-entries", str(entries), "-run", run,
    )  # fmt: skip
    took = time.perf_counter() - begin
    found["cores"] = (ledger.busy() - ledger_before) / took
    found["client_cores"] = (_children() - client_before) / took
    return found


def fill(bench: Bench, ledger: Ledger, size: int) -> Found:
    """Append until the log holds `size` entries; its memory then."""
    begin = ledger.size()
    missing = -(-max(0, size - begin) // BULK) * BULK
    if missing:
        http(bench, ledger, f"fill-{size}", missing, BULK)
    return {"entries": begin + missing, "mib": ledger.resident()}


def verify(bench: Bench, ledger: Ledger) -> list[Found]:
    """Export the log, have the peer's fsck check it, and time our own command on it."""
    with bench.place("export") as path:
        ledger.export(path)
        peer.check(bench.programs.fsck, path)
        return [_verify(path) for _ in range(bench.sizes.rounds)]


def _verify(path: Path) -> Found:
    before, begin = _children(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "folkmoot_cli.main", "verify", str(path), "--key", str(path / "log.vkey")],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("core", "cli"))},
    )  # fmt: skip
    took = time.perf_counter() - begin
    if done.returncode:
        raise Broken(f"folkmoot verify refuses the log: {(done.stdout + done.stderr).strip()[-2000:]}")
    size = int((path / CHECKPOINT).read_text().split("\n")[1])
    return {"entries": size, "seconds": took, "cores": (_children() - before) / took}


def restart(ledger: Ledger) -> Found:
    """Stop and start with all that is there."""
    size = ledger.size()
    took = ledger.restart()
    if ledger.size() < size:
        raise Broken(f"after its restart the log has {ledger.size()} entries, not {size}")
    return {"entries": size, "seconds": took, "busy": ledger.busy(), "mib": ledger.resident()}


def _rate(found: Found) -> float:
    return float(found["entries"] / found["seconds"])


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
