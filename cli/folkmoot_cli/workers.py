"""Several processes that look at bundles, for logs that are long: what `verify_log` takes as `run`. Local files only.

Each opens the source itself, reads its bundles and sends back what `look` saw of them, which is a tenth of their size. Forked, not
spawned: identities of entries are compared by `hash`, whose seed only a forked child shares. Where that cannot be had all is done
here. Nothing waits without bound: at most a few bundles for each process are under way.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager

from folkmoot_cli.sources import is_url, open_source
from folkmoot_core.ledger.look import Read, Run, Seen, Task, look_at, one_by_one
from folkmoot_core.ledger.tiles import Tile

ALONE = 64  # bundles that are looked at before processes are worth their start: 16,384 entries
CHUNK = 16  # bundles that a process is given at a time
MOST = 8  # processes


def runner(source: str) -> Run:
    """One by one, or by processes once the log turns out to be long."""
    processes = min(MOST, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    if is_url(source) or processes < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return one_by_one

    def run(read: Read, task: Task, bundles: Iterable[Tile]) -> Iterator[Seen]:
        bundles = iter(bundles)
        yield from one_by_one(read, task, itertools.islice(bundles, ALONE))
        if (first := next(bundles, None)) is not None:
            yield from _spread(processes, source, task, itertools.chain([first], bundles))

    return run


def _spread(processes: int, source: str, task: Task, bundles: Iterator[Tile]) -> Iterator[Seen]:
    executor = ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("fork"), initializer=_Worker.begin, initargs=(source, task)
    )
    waiting: deque[Future[list[Seen]]] = deque()
    try:
        while True:
            while len(waiting) < 2 * processes and (chunk := list(itertools.islice(bundles, CHUNK))):
                waiting.append(executor.submit(_Worker.look, chunk))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


class _Worker:
    """What a process has: its own reader, for files that are open are not shared by two."""

    opened: AbstractContextManager[Read]
    """Held for as long as the process lives: it closes when nobody holds it."""
    read: Read
    task: Task

    @classmethod
    def begin(cls, source: str, task: Task) -> None:
        cls.opened = open_source(source)
        cls.read, cls.task = staticmethod(cls.opened.__enter__()), task
        gc.disable()  # looking makes millions of objects and no cycles
        threading.Thread(target=_end_with_parent, daemon=True).start()

    @classmethod
    def look(cls, bundles: list[Tile]) -> list[Seen]:
        return [look_at(cls.read, cls.task, tile) for tile in bundles]


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever: it holds the other end of that queue itself."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
