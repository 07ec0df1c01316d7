"""Thousands of damaged logs, with whatever became of the files beside them: a prefix of what was synced, or a refusal. ledger.md §5.2.

A power cut leaves of the last batch what the disk happened to write, by sectors; of `state` and the columns, which are not
synced before a receipt, anything at all.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from quick_os import QuickOs

from folkmoot_core.ledger.sequence import Sequence
from folkmoot_core.ledger.tiles import Rows
from folkmoot_core.ledger.tree import leaf_hash
from folkmoot_runtime.ledger.columns import Columns
from folkmoot_runtime.ledger.records import HEADER, LogDamaged
from folkmoot_runtime.ledger.segments import SMALLEST_SEGMENT, START
from folkmoot_runtime.ledger.wal import Wal

CASES = 4200  # of each run, at least 4,000 (ledger.md §5.2)
SECTOR = 512
DERIVED = ("state", "row-0", "row-1", "marks", "offsets")


def entry(number: int, size: int) -> bytes:
    return (
        b'{"actor":{},"ce":{"id":"request-%d","recordedtime":"t","source":"/s","specversion":"1.0","time":"t","type":"y"},'
        b'"data":{"pad":"%b"},"prev":"","seq":%d,"v":1}' % (number, b"x" * size, number)
    )


class Opened:
    """A recovered log, and the tree and index over it."""

    def __init__(self, directory: Path) -> None:
        calls = QuickOs()
        self.wal = Wal(calls, directory, Columns(calls, directory), SMALLEST_SEGMENT)
        try:
            self.wal.open()
            self.sequence = Sequence(Rows(self.wal.columns.row), self.wal.columns.store())
            self.wal.recover(self.sequence.accept)
        except BaseException:
            self.wal.close()
            raise

    def append(self, batch: list[bytes]) -> None:
        leaves = [leaf_hash(one) for one in batch]
        self.wal.append(batch, leaves)
        self.sequence.accept(batch, leaves)


@dataclass
class Written:
    """A log as it was before the damage: all its files, its batches, and where each batch lies."""

    files: dict[str, bytes] = field(default_factory=dict)
    older: dict[str, bytes] = field(default_factory=dict)
    """The derived files as they were earlier."""
    batches: list[list[bytes]] = field(default_factory=list)
    spans: list[tuple[str, int, int]] = field(default_factory=list)
    roots: dict[int, bytes] = field(default_factory=dict)
    """Of each size at which a batch ended."""

    @property
    def entries(self) -> list[bytes]:
        return [one for batch in self.batches for one in batch]


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def write(directory: Path, seed: int, count: int, largest: int) -> Written:
    """A log of `count` batches."""
    rng = random.Random(seed)
    made = Written()
    opened = Opened(directory)
    number = 0
    for position in range(count):
        batch = [entry(number + i, rng.randrange(largest)) for i in range(rng.randrange(1, 9))]
        number += len(batch)
        if position == count * 2 // 3:
            opened.wal.close()
            made.older = {name: data for name, data in files_of(directory).items() if name in DERIVED}
            opened = Opened(directory)
        opened.append(batch)
        end = opened.wal._offset
        length = HEADER.size + sum(2 + len(one) for one in batch)
        made.batches.append(batch)
        made.spans.append((opened.wal._segments[opened.wal._current].path.name, end - length, end))
        made.roots[number] = opened.sequence.rows.root()
    opened.wal.close()
    made.files = files_of(directory)
    return made


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Written]:
    """One batch; a few; several files, with `state` and columns; many small ones, with a second row of the tree."""
    shapes = [(1, 300), (3, 700), (6, 20), (40, 6000), (160, 900), (150, 300)]
    made = [write(tmp_path_factory.mktemp("log"), seed, *shape) for seed, shape in enumerate(shapes)]
    assert sum("state" in log.files for log in made) >= 2
    assert any("row-1" in log.files for log in made)
    return made


# -- what becomes of the last batch -------------------------------------------------------------------------------------

Damage = Callable[[random.Random, bytearray, int, int], None]


def cut(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    """Written up to somewhere."""
    at = rng.randrange(start, end + 1)
    data[at:end] = bytes(end - at)


def sectors_lost(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    """Some sectors never arrived."""
    for sector in range(start // SECTOR, -(-end // SECTOR)):
        if rng.random() < 0.4:
            low, high = max(start, sector * SECTOR), min(end, (sector + 1) * SECTOR)
            data[low:high] = bytes(high - low)


def only_the_end(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    """The beginning never arrived."""
    at = rng.randrange(start, end)
    data[start : at + 1] = bytes(at + 1 - start)


def nothing_arrived(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    """The whole batch is zeros."""
    data[start:end] = bytes(end - start)


def flips(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    """One to three bits changed."""
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(start, end)] ^= 1 << rng.randrange(8)


def untouched(rng: random.Random, data: bytearray, start: int, end: int) -> None:
    """It arrived whole."""


TORN: list[Damage] = [cut, sectors_lost, only_the_end, nothing_arrived, flips, untouched]

# -- what becomes of the files beside it --------------------------------------------------------------------------------


def beside(rng: random.Random, log: Written, other: Written, files: dict[str, bytes]) -> str:
    """Changes the derived files; says how."""
    there = [name for name in DERIVED if name in files]
    match rng.randrange(6) if there else 0:
        case 0:
            return "as they were"
        case 1:
            for name in there:
                del files[name]
            return "gone"
        case 2:  # `state` of an earlier day, the columns of today
            files.pop("state", None)
            files.update({name: data for name, data in log.older.items() if name == "state"})
            return "older state"
        case 3:
            for name in there:
                del files[name]
            files.update(log.older)
            return "older"
        case 4:
            name = rng.choice(there)
            data = bytearray(files[name])
            at = rng.randrange(len(data) + 1)
            if at < len(data) and rng.random() < 0.5:
                data[at] ^= 1 << rng.randrange(8)
            else:
                del data[at:]
            files[name] = bytes(data)
            return "damaged"
        case _:
            name = rng.choice(there)
            files[name] = other.files.get(name, b"")
            return "another log's"


def laid_out(directory: Path, files: dict[str, bytes]) -> None:
    for path in directory.iterdir():
        path.unlink()
    for name, data in files.items():
        (directory / name).write_bytes(data)


def recovered(directory: Path, log: Written) -> int:
    """How many of its batches a start accepts; it is held against entries, tree and index."""
    opened = Opened(directory)
    try:
        size = opened.wal.size
        whole = log.entries[:size]
        assert opened.wal.read(0, size) == whole if size else True
        assert size == 0 or opened.sequence.rows.root() == log.roots[size]  # so it ends where a batch ended
        assert len(opened.sequence) == size
        for position in (0, size // 2, size - 1) if size else ():
            assert opened.wal.read(position, 1) == [whole[position]]
        return next(number for number in range(len(log.batches) + 1) if sum(map(len, log.batches[:number])) == size)
    finally:
        opened.wal.close()


def test_four_thousand_torn_tails_recover_to_what_was_synced(tmp_path: Path, logs: list[Written]) -> None:
    """All batches before the last, or all with it; the next start agrees; whole tails stay whole."""
    seen: Counter[str] = Counter()
    for seed in range(CASES):
        rng = random.Random(seed)
        log, torn = logs[seed % len(logs)], TORN[rng.randrange(len(TORN))]
        name, start, end = log.spans[-1]
        files = dict(log.files)
        data = bytearray(files[name])
        torn(rng, data, start, end)
        files[name] = bytes(data)
        how = beside(rng, log, rng.choice(logs), files)
        laid_out(tmp_path, files)
        count = len(log.batches)
        try:
            found = recovered(tmp_path, log)
        except LogDamaged:
            assert torn is flips, (seed, torn.__name__, how)  # a tear alone is never taken for damage
            seen["refused"] += 1
            continue
        changed = bytes(data) != log.files[name]
        assert found == count - changed, (seed, torn.__name__, how)
        if seed % 8 == 0:
            assert recovered(tmp_path, log) == found  # what was cut stays cut
        seen[how] += 1
        seen["kept" if found == count else "cut"] += 1
    assert sum(seen[which] for which in ("kept", "cut", "refused")) == CASES
    assert min(seen[which] for which in ("kept", "cut", "gone", "older", "older state", "damaged", "another log's")) > 50, seen


def test_every_flipped_bit_before_the_last_batch_is_refused_whatever_lies_beside(tmp_path: Path, logs: list[Written]) -> None:
    """At random over several files, with `state` there, older or gone; test_ledger_wal.py does all bits of a small log."""
    for seed in range(600):
        rng = random.Random(seed)
        log = [one for one in logs if "state" in one.files][seed % 2]
        name, start, end = log.spans[rng.randrange(len(log.spans) - 1)]
        files = dict(log.files)
        data = bytearray(files[name])
        data[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
        files[name] = bytes(data)
        how = beside(rng, log, logs[0], files)
        laid_out(tmp_path, files)
        with pytest.raises(LogDamaged, match="Repair"):
            raise AssertionError(seed, how, recovered(tmp_path, log))
        assert (tmp_path / name).read_bytes()[START:] == bytes(data)[START:]


def test_a_whole_file_of_the_middle_that_is_gone_or_empty_is_refused(tmp_path: Path, logs: list[Written]) -> None:
    log = next(one for one in logs if "wal-000002" in one.files)
    for name in ("wal-000000", "wal-000001"):
        for lost in (None, log.files[name][:START] + bytes(len(log.files[name]) - START), b"", log.files[name][: START + 700]):
            files = dict(log.files)
            del files[name]
            if lost is not None:
                files[name] = lost
            laid_out(tmp_path, files)
            with pytest.raises(LogDamaged, match="Repair"):
                recovered(tmp_path, log)
