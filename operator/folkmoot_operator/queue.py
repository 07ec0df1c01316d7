"""A deduplicating work queue with per-key backoff and two priorities, and the workers that empty it.

A key that is pending is not added twice; a key that is running is run once more afterwards (`dirty`), never twice at the same
time. Changed objects go before the resync. Time is the event loop's, so tests run it virtually. It knows neither kopf nor
Kubernetes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)
log = logging.getLogger(__name__)

BASE_DELAY: Final = 0.5  # seconds; conventions.md "Scale and liveness"
MAX_DELAY: Final = 300.0
_RESYNC_SHARE: Final = 8  # every eighth key comes from the resync even while changes pour in, so that it ends some day


class Priority(IntEnum):
    """Who goes first."""

    CHANGED = 0  # changed, or never reconciled
    RESYNC = 1


class Observer(Protocol):
    """What the metrics want to know; see metrics.py."""

    def added(self, key: object) -> None: ...
    def started(self, key: object, waited: float) -> None: ...
    def finished(self, key: object, result: str, seconds: float) -> None: ...
    def retried(self, key: object) -> None: ...
    def depth(self, depth: int) -> None: ...


class Silent:
    """An observer that does not look."""

    def added(self, key: object) -> None: ...
    def started(self, key: object, waited: float) -> None: ...
    def finished(self, key: object, result: str, seconds: float) -> None: ...
    def retried(self, key: object) -> None: ...
    def depth(self, depth: int) -> None: ...


@dataclass(frozen=True)
class Again:
    """What a reconcile answers: when to come back by itself; None: when something changes."""

    after: float | None = None


class Retry(Exception):
    """Raised by a reconcile that wants the per-key backoff, at least `after` seconds long."""

    def __init__(self, after: float = 0.0) -> None:
        super().__init__(after)
        self.after = after


@dataclass
class _Entry:
    priority: Priority
    since: float


@dataclass
class Queue(Generic[K]):
    """The queue. One event loop, no threads."""

    rng: random.Random = field(default_factory=random.Random)
    observer: Observer = field(default_factory=Silent)
    _pending: dict[Priority, OrderedDict[K, float]] = field(default_factory=lambda: {p: OrderedDict() for p in Priority})
    _running: set[K] = field(default_factory=set)
    _dirty: dict[K, Priority] = field(default_factory=dict)
    _failures: dict[K, int] = field(default_factory=dict)
    _timers: dict[K, tuple[float, asyncio.TimerHandle]] = field(default_factory=dict)
    _available: asyncio.Event = field(default_factory=asyncio.Event)
    _taken: int = 0

    def add(self, key: K, priority: Priority = Priority.CHANGED) -> None:
        """Ask for `key` to be reconciled. Cheap, and harmless to repeat."""
        if key in self._running:
            self._dirty[key] = min(priority, self._dirty.get(key, priority))
            return
        other = Priority.RESYNC if priority is Priority.CHANGED else Priority.CHANGED
        if key in self._pending[priority] or (priority is Priority.RESYNC and key in self._pending[other]):
            return
        since = self._pending[other].pop(key, self._now())  # promoted: it has waited since then
        self._pending[priority][key] = since
        self.observer.added(key)
        self._announce()

    def add_after(self, key: K, delay: float, priority: Priority = Priority.CHANGED) -> None:
        """Ask again in `delay` seconds; of several such wishes the earliest stands."""
        due = self._now() + delay
        if key in self._timers:
            if self._timers[key][0] <= due:
                return
            self._timers[key][1].cancel()
        handle = asyncio.get_running_loop().call_later(delay, self._due, key, priority)
        self._timers[key] = (due, handle)

    def retry(self, key: K, minimum: float = 0.0) -> float:
        """Ask again after this key's backoff (0.5 s to 5 min, full jitter); returns the delay."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        ceiling = min(MAX_DELAY, BASE_DELAY * 2 ** min(failures + 1, 20))
        delay = max(minimum, self.rng.uniform(BASE_DELAY, ceiling))
        self.observer.retried(key)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key succeeded: its backoff starts anew."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Wait for the next key; the caller owes `done`."""
        while True:
            await self._available.wait()
            key = self._take()
            if key is not None:
                return key

    def done(self, key: K) -> None:
        """The key is no longer running; if it was asked for meanwhile it is pending again."""
        self._running.discard(key)
        priority = self._dirty.pop(key, None)
        if priority is not None:
            self.add(key, priority)

    def __len__(self) -> int:
        return sum(len(level) for level in self._pending.values())

    @property
    def idle(self) -> bool:
        """Nothing pending, nothing running (timers may still be set)."""
        return not len(self) and not self._running

    def _take(self) -> K | None:
        changed, resync = self._pending[Priority.CHANGED], self._pending[Priority.RESYNC]
        self._taken += 1
        level = resync if resync and (not changed or self._taken % _RESYNC_SHARE == 0) else changed
        if not level:
            return None
        key, since = level.popitem(last=False)
        self._running.add(key)
        self.observer.started(key, self._now() - since)
        self._announce()
        return key

    def _due(self, key: K, priority: Priority) -> None:
        self._timers.pop(key, None)
        self.add(key, priority)

    def _announce(self) -> None:
        self.observer.depth(len(self))
        if len(self):
            self._available.set()
        else:
            self._available.clear()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


async def work(queue: Queue[K], reconcile: Callable[[K], Awaitable[Again]], workers: int) -> None:
    """Empty the queue with `workers` tasks until cancelled. A failing key is recorded and retried; it never stops the others."""
    async with asyncio.TaskGroup() as group:
        for number in range(workers):
            group.create_task(_worker(queue, reconcile), name=f"worker-{number}")


async def _worker(queue: Queue[K], reconcile: Callable[[K], Awaitable[Again]]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        key = await queue.get()
        began = loop.time()
        result = "error"
        try:
            again = await reconcile(key)
        except Retry as wish:
            result = "requeue"
            queue.retry(key, wish.after)
        except Exception:  # the process's edge: whatever a reconcile did not foresee is recorded and retried
            delay = queue.retry(key)
            log.exception("reconcile failed", extra={"key": str(key), "retry_in": round(delay, 1)})
        else:
            result = "success" if again.after is None else "requeue_after"
            queue.forget(key)
            if again.after is not None:
                queue.add_after(key, again.after)
        finally:
            queue.observer.finished(key, result, loop.time() - began)
            queue.done(key)
