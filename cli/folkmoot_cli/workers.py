"""Several processes that look at bundles, for logs that are long: what `verify_log` takes as `run`. Local files only.

Forked, not spawned: identities of entries are compared by `hash`, whose seed only a forked child shares. Where that cannot be had
all is done here. Nothing waits without bound: at most a few bundles for each process are under way.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager

from folkmoot_cli.sources import is_url
from folkmoot_core.ledger.audit import Job, Run
from folkmoot_core.ledger.chain import Look

ALONE = 256  # bundles that are looked at before processes are worth their start: 65,536 entries
CHUNK = 16  # bundles that a process is given at a time
MOST = 8  # processes
Seen = Look | str


@contextmanager
def pool(source: str) -> Iterator[Run]:
    """`map`, or processes behind it once the log turns out to be long."""
    processes = min(MOST, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    if is_url(source) or processes < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield map
        return
    executor = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork"))
    try:
        yield lambda look, jobs: _spread(executor, processes, look, jobs)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _spread(executor: ProcessPoolExecutor, processes: int, look: Callable[[Job], Seen], jobs: Iterable[Job]) -> Iterator[Seen]:
    jobs = iter(jobs)
    yield from map(look, itertools.islice(jobs, ALONE))
    waiting: deque[Future[list[Seen]]] = deque()
    while True:
        while len(waiting) < 2 * processes and (chunk := list(itertools.islice(jobs, CHUNK))):
            waiting.append(executor.submit(_look_all, look, chunk))
        if not waiting:
            return
        yield from waiting.popleft().result()


def _look_all(look: Callable[[Job], Seen], jobs: list[Job]) -> list[Seen]:
    return [look(job) for job in jobs]
