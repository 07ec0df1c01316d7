"""The table of faults: each file call of a log's life fails, by EIO once at each of its uses, for ever and by ENOSPC at some.
ledger.md §5.1.

For each row: what fails, fails with a sentence of ours; no receipt is lost; the next start finds a whole log and goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from folkmoot_core.entries import Actor, EntryRequest, Producer, Receipt, new_entry
from folkmoot_core.errors import FolkmootError
from folkmoot_core.ledger import bundle
from folkmoot_core.ledger.tree import leaf_hash
from folkmoot_runtime.ledger.faults import EIO, ENOSPC, FaultyOs
from folkmoot_runtime.ledger.log import Log, Options, open_log
from folkmoot_runtime.ledger.records import LogDamaged, VolumeFailed
from folkmoot_runtime.ledger.segments import SMALLEST_SEGMENT, START

BY = Producer(id="core/conductor")
BATCHES, IN_BATCH, PAD = 9, 40, 1100  # over three files of the log, and into the second row of its tree
NEVER = 3600.0
DERIVED = ("state", "row-0", "row-1", "marks", "offsets")


class Disk(FaultyOs):
    """A disk that fails on demand, and for whose syncs nobody waits."""

    def fsync(self, fd: int) -> None:
        self._reach("fsync")

    def fdatasync(self, fd: int) -> None:
        self._reach("fdatasync")


class Row(NamedTuple):
    """One row of the table."""

    call: str
    code: int
    for_ever: bool


def rows() -> Iterator[Row]:
    for call in ("open", "write", "pwritev", "pread", "fsync", "fdatasync", "replace", "unlink"):
        for code in (EIO, ENOSPC):
            if code == ENOSPC and call in ("pread", "unlink"):
                continue
            for for_ever in (False, True):
                yield Row(call, code, for_ever)


def fact(number: int, size: int = PAD) -> EntryRequest:
    return new_entry(
        "session.start", Actor(kind="service", id="conductor"), id=f"request-{number}", data={"pad": "x" * size}, now=1.0
    )


async def opened(directory: Path, calls: FaultyOs) -> Log:
    return await open_log(
        directory, Options(tenant="acme", first_segment=SMALLEST_SEGMENT, checkpoint_interval=NEVER, calls=calls)
    )


async def live(directory: Path, calls: FaultyOs, receipts: dict[int, Receipt]) -> None:
    """A log's life: birth, files of the log and beside it, keys exchanged, published, closed; a start that makes columns again."""
    for stretch in (range(BATCHES), range(BATCHES, BATCHES + 2)):
        log = await opened(directory, calls)
        try:
            for batch in stretch:
                numbers = range(batch * IN_BATCH, (batch + 1) * IN_BATCH)
                found = await log.append([fact(number) for number in numbers], BY)
                receipts.update(zip(numbers, found, strict=True))
            await log.publish()
            await log.rotate()
            assert await log.read("tile/entries/000") is not None
        finally:
            await log.aclose()
        for name in DERIVED:
            (directory / name).unlink(missing_ok=True)


async def held(directory: Path, receipts: dict[int, Receipt]) -> None:
    """A start without faults finds every entry that had a receipt, in a whole log that goes on."""
    log = await opened(directory, Disk())
    found = [entry for first in range(0, log.size, 256) for entry in log._volume.wal.read(first, min(256, log.size - first))]
    for number, receipt in receipts.items():
        assert receipt.leaf == leaf_hash(found[receipt.index]).hex(), number
    ids = [json.loads(entry)["ce"]["id"] for entry in found]
    assert len(set(ids)) == len(ids)
    again = await log.append([fact(number) for number in range(IN_BATCH)], BY)
    assert [receipt.duplicate for receipt in again] == [f"request-{number}" in ids for number in range(IN_BATCH)]
    assert await log.publish()
    assert not log.stopped.is_set()
    await log.aclose()


async def row_holds(directory: Path, row: Row, use: int) -> bool:
    """One fault; whether it was met at all."""
    calls = Disk(fail={row.call: row.code}, after={row.call: use}, times={} if row.for_ever else {row.call: 1})
    receipts: dict[int, Receipt] = {}
    with contextlib.suppress(FolkmootError):  # and nothing else: an OSError would end the process with a traceback
        await live(directory, calls, receipts)
    await held(directory, receipts)
    return calls.calls.count(row.call) > use


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: f"{row.call}-{row.code}-{'ever' if row.for_ever else 'once'}")
async def test_each_file_call_fails_at_each_of_its_uses(tmp_path: Path, row: Row) -> None:
    probe = Disk()
    (tmp_path / "probe").mkdir()
    await live(tmp_path / "probe", probe, {})
    uses = probe.calls.count(row.call)
    assert uses > 2 or row.call == "unlink"
    met = 0
    for use in range(0, uses, 1 if row.code == EIO and not row.for_ever else max(1, uses // 8)):
        met += await row_holds(tmp_path / str(use), row, use)
    assert met > 0


@pytest.mark.parametrize("at_most", [700, 5000, 100_000])
async def test_short_writes_of_everything_are_finished(tmp_path: Path, at_most: int) -> None:
    receipts: dict[int, Receipt] = {}
    await live(tmp_path, Disk(at_most=at_most), receipts)
    assert len(receipts) == (BATCHES + 2) * IN_BATCH
    await held(tmp_path, receipts)


@pytest.mark.parametrize("code", [EIO, ENOSPC])
async def test_a_volume_that_fails_while_columns_are_made_again_is_told_in_a_sentence(tmp_path: Path, code: int) -> None:
    receipts: dict[int, Receipt] = {}
    await live(tmp_path, Disk(), receipts)
    probe = Disk()
    await (await opened(tmp_path, probe)).aclose()
    for name in DERIVED:
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(VolumeFailed, match="Enlarge the volume" if code == ENOSPC else "Look at the volume"):
        await opened(tmp_path, Disk(fail={"pwritev": code}, after={"pwritev": 1}))  # the first is the epoch
    await held(tmp_path, receipts)


async def test_a_bundle_that_the_disk_changed_is_refused_and_the_status_says_so(tmp_path: Path) -> None:
    log = await opened(tmp_path, Disk())
    await log.append([fact(number) for number in range(300)], BY)
    whole = await log.read("tile/entries/000")
    assert whole is not None
    assert len(bundle.decode(whole)) == 256
    segment = tmp_path / "wal-000001"  # the batch found no room in the first
    data = bytearray(segment.read_bytes())
    data[data.index(b"x" * 500, START + 9000)] ^= 1  # in an entry's content: the record's framing still holds
    segment.write_bytes(data)
    log._volume.wal._decoded = (0, [])
    assert log.status().reason == ""
    for path in ("tile/entries/000", "tile/entries/000.p/200"):
        with pytest.raises(LogDamaged, match="other hashes"):
            await log.read(path)
    assert (log.status().state, log.status().reason) == ("Open", "LogDamaged")
    assert "tile/entries/000" in log.status().message
    assert await log.read("tile/0/000") is not None
    await log.aclose()


async def test_what_cannot_be_read_any_more_is_refused_with_a_sentence(tmp_path: Path) -> None:
    calls = Disk()
    log = await opened(tmp_path, calls)
    await log.append([fact(number) for number in range(300)], BY)
    log._volume.wal.columns.flush()
    log._volume.wal._decoded = (0, [])
    calls.fail["pread"] = EIO
    with pytest.raises(LogDamaged, match="Input/output error"):
        await log.read("tile/entries/000")
    with pytest.raises(LogDamaged, match="Input/output error"):
        await log.read("tile/0/000")
    calls.fail.clear()
    assert await log.read("tile/entries/000") is not None
    await log.aclose()


async def test_faults_while_many_append_lose_no_receipt(tmp_path: Path) -> None:
    """Batches under way together: what one fault refuses, it refuses for all that came behind it."""
    for use in range(1, 9):
        for call in ("pwritev", "fdatasync"):
            directory = tmp_path / f"{call}-{use}"
            calls = Disk()
            log = await opened(directory, calls)
            calls.fail, calls.after, calls.times = {call: ENOSPC}, {call: use}, {call: 1}
            asked = [asyncio.create_task(log.append([fact(n * 20 + i, 200) for i in range(20)], BY)) for n in range(40)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            receipts: dict[int, Receipt] = {}
            for number, answer in enumerate(answers):
                if isinstance(answer, list):
                    receipts.update({number * 20 + i: receipt for i, receipt in enumerate(answer)})
                else:
                    assert isinstance(answer, FolkmootError)
            await log.aclose()
            again = await opened(directory, Disk())
            assert again.size >= len(receipts) + 1
            found = again._volume.wal.read(0, again.size)
            for receipt in receipts.values():
                assert leaf_hash(found[receipt.index]).hex() == receipt.leaf
            await again.aclose()
