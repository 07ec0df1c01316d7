"""The processes of `folkmoot verify` end with the one that they work for, however that ends."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

from logs import TestLog

PAUSED = """
import multiprocessing, signal, sys
from folkmoot_cli import workers
from folkmoot_core.ledger.look import Task
from folkmoot_core.ledger.tiles import ENTRIES, Tile
seen = workers._spread(2, sys.argv[1], Task(origin="a"), iter([Tile(ENTRIES, 0, 256)] * 200))
next(seen)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
signal.pause()
"""


def test_none_is_left_when_it_is_killed(tmp_path: Path) -> None:
    log = TestLog()
    log.fill(256)
    directory = log.publish().write(tmp_path / "log")
    parent = subprocess.Popen([sys.executable, "-c", PAUSED, str(directory)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    parent.kill()
    parent.communicate()
    for child in children:
        select.select([child], [], [])  # readable once it has ended; the test's own time limit is the bound
        os.close(child)
