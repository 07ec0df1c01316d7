"""One round of our side in process, as a program of its own: entries → durable, in batches, as JSON on standard output.

    python bench/ledgering/ours.py DIRECTORY ENTRIES BATCH

The log is opened as the ledger's process opens it (same loop, same settings of the collector; signed checkpoint each second, index of
ids included). As Tessera is given the bytes of its entries, the log is given theirs, made before the clock starts; sequence, link,
hash, tree, index and receipts are within. 2,048 entries are under way at any time, as on Tessera's side.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "core"), str(ROOT / "agents-image")]

import uvloop  # noqa: E402

from folkmoot_core.entries import Actor, Producer, new_entry  # noqa: E402
from folkmoot_core.ledger.envelope import Prepared, prepare, take_apart  # noqa: E402
from folkmoot_runtime.durable import RealOs  # noqa: E402
from folkmoot_runtime.ledger.__main__ import COLLECT  # noqa: E402
from folkmoot_runtime.ledger.log import Log, Options, open_log  # noqa: E402

UNDER_WAY = 2048
ENTRY = 500  # bytes in the log, as Tessera's


class Timed(RealOs):
    """`RealOs` that adds up how long syncs of data took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def fdatasync(self, fd: int) -> None:
        begin = time.perf_counter()
        super().fdatasync(fd)
        self.seconds.append(time.perf_counter() - begin)


def made(origin: str, count: int) -> list[Prepared]:
    """Entries of `ENTRY` bytes but for what the log adds."""
    actor, producer = Actor(kind="service", id="conductor"), Producer(id="core/conductor")

    def sample(pad: int) -> Prepared:
        request = new_entry("task.sent", actor, id="bench-0000000", data={"note": "x" * pad}, now=0.0)
        return prepare(request, origin=origin, producer=producer)

    def length(one: Prepared) -> int:
        return len(one.encode(1_000_000, "0" * 64, "0000-00-00T00:00:00.000000Z"))

    one = sample(ENTRY - length(sample(0)))
    parts = (b"0" * 27).join([one.head, one.middle])  # a whole entry again, so that keys are made as they always are
    tail = b"0" * 64 + b'","seq":0,"v":1}'
    return [take_apart(parts.replace(b"bench-0000000", b"bench-%07d" % number) + tail) for number in range(count)]


async def append(log: Log, entries: list[Prepared], batch: int) -> list[float]:
    """Append all; the seconds that each call of `batch` entries waited."""
    waits: list[float] = []
    calls = iter(range(0, len(entries), batch))

    async def producer() -> None:
        for first in calls:
            begin = time.perf_counter()
            await log.admit(entries[first : first + batch]).durable()
            waits.append(time.perf_counter() - begin)

    await asyncio.gather(*(producer() for _ in range(max(1, UNDER_WAY // batch))))
    return waits


async def main(directory: Path, count: int, batch: int) -> None:
    calls = Timed()
    log = await open_log(directory, Options(calls=calls, batch=batch))
    entries = made(log.origin, count)
    gc.freeze()
    calls.seconds.clear()
    busy, begin = time.process_time(), time.perf_counter()
    waits = sorted(await append(log, entries, batch))
    took = time.perf_counter() - begin
    busy = time.process_time() - busy
    size = log.size
    await log.aclose()
    assert size == count + 1, f"the log holds {size} entries after {count}"
    print(json.dumps({
        "entries": count, "seconds": took, "p50": waits[len(waits) // 2] * 1000, "p99": waits[int(len(waits) * 0.99)] * 1000,
        "syncs": len(calls.seconds), "syncing": sum(calls.seconds) / took, "cores": busy / took,
    }))  # fmt: skip


if __name__ == "__main__":
    gc.set_threshold(*COLLECT)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
    sys.stdout.flush()
    os._exit(0)  # tearing down a million objects is nobody's figure
