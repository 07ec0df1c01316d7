"""A start that believes `state` finds what a start without it finds, whatever was done to the derived files and to the log."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from folkmoot_core.ledger.envelope import key_of
from folkmoot_core.ledger.sequence import Sequence
from folkmoot_core.ledger.tiles import Rows
from folkmoot_core.ledger.tree import leaf_hash, root_of
from folkmoot_runtime.durable import RealOs
from folkmoot_runtime.ledger import state
from folkmoot_runtime.ledger.columns import Columns
from folkmoot_runtime.ledger.faults import EIO, ENOSPC, FaultyOs
from folkmoot_runtime.ledger.records import LogDamaged
from folkmoot_runtime.ledger.segments import SMALLEST_SEGMENT, START
from folkmoot_runtime.ledger.wal import Wal

COUNT = 700  # entries: several segments, and rows 0 and 1


def entry(number: int) -> bytes:
    pad = "x" * (400 + number % 300)
    return (
        b'{"actor":{},"ce":{"id":"request-%d","recordedtime":"t","source":"/s","specversion":"1.0","time":"t","type":"y"},'
        b'"data":{"pad":"%b"},"prev":"","seq":%d,"v":1}' % (number, pad.encode(), number)
    )


EVERYTHING = [entry(number) for number in range(COUNT)]
LEAVES = [leaf_hash(one) for one in EVERYTHING]


class Opened:
    """A log and what is derived from it; `read_back` counts the entries that were hashed one by one."""

    def __init__(self, directory: Path, calls: RealOs | None = None) -> None:
        calls = calls or RealOs()
        self.wal = Wal(calls, directory, Columns(calls, directory), SMALLEST_SEGMENT)
        self.read_back = 0
        try:
            self.wal.open()
            self.sequence = Sequence(Rows(self.wal.columns.row), self.wal.columns.store())
            self.wal.recover(self._accept)
        except BaseException:
            self.wal.close()
            raise

    def _accept(self, entries: list[bytes], leaves: list[bytes]) -> None:
        self.read_back += len(entries)
        self.sequence.accept(entries, leaves)

    def append(self, entries: list[bytes]) -> None:
        leaves = [leaf_hash(one) for one in entries]
        self.wal.append(entries, leaves)
        self.sequence.accept(entries, leaves)

    def check(self, size: int = COUNT) -> None:
        """Entries, tree and index are those of the first `size` entries."""
        assert (self.wal.size, len(self.sequence)) == (size, size)
        assert self.wal.read(0, size) == EVERYTHING[:size]
        for part in (0, 1, 255, 256, 257, 300, 512, size):
            assert self.sequence.rows.root(min(part, size)) == root_of(LEAVES[: min(part, size)])
        for number in range(0, size, 13):
            assert self.wal.read(number, 1) == [EVERYTHING[number]]
            found = self.sequence.find(_key(number), lambda position: self.wal.read(position, 1)[0])
            assert found is not None
            assert found[0] == number


def _key(number: int) -> bytes:
    return key_of(EVERYTHING[number])


class NoState(RealOs):
    """A volume that takes everything but `state`."""

    def __init__(self, code: int) -> None:
        self._code = code

    def replace(self, src: str, dst: str) -> None:
        if dst.endswith("/state"):
            raise OSError(self._code, os.strerror(self._code))
        super().replace(src, dst)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    log = Opened(directory)
    done = 0
    for size in random.Random(1).choices(range(1, 40), k=100):
        log.append(EVERYTHING[done : done + size][: COUNT - done])
        done = min(COUNT, done + size)
        if done == COUNT:
            break
    log.check()
    log.wal.close()
    return directory


@pytest.fixture
def log(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "log"))


def reopened(directory: Path) -> int:
    """How many entries had to be read back, of a log that is whole; and it goes on."""
    opened = Opened(directory)
    opened.check()
    opened.wal.close()
    return opened.read_back


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.write_bytes(data)


def test_a_start_reads_back_what_follows_the_full_segments_alone(log: Path) -> None:
    noted = state.parse((log / "state").read_bytes())
    assert noted is not None
    assert len(noted.segments) >= 2
    assert reopened(log) == COUNT - noted.size < COUNT / 2
    assert reopened(log) == COUNT - noted.size


@pytest.mark.parametrize("name", ["state", "row-0", "row-1", "marks", "offsets"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: flipped(path, 5),
                                    lambda path: path.write_bytes(path.read_bytes()[:-40])], ids=["gone", "empty", "flipped", "cut"])  # fmt: skip
def test_derived_files_are_made_again_whatever_became_of_them(log: Path, name: str, damage: Callable[[Path], object]) -> None:
    damage(log / name)
    read_back = reopened(log)
    noted = state.parse((log / "state").read_bytes())
    assert noted is not None
    assert read_back in (COUNT, COUNT - noted.size)  # a cut may lie behind what state covers
    assert reopened(log) == COUNT - noted.size  # the start after it is a short one again


def test_an_older_state_is_a_shorter_cut_and_no_danger(log: Path, whole: Path, tmp_path: Path) -> None:
    """The state of a log's beginning, with columns that went on since."""
    early = tmp_path / "early"
    early.mkdir()
    begun = Opened(early)
    for first in range(0, 420, 20):
        begun.append(EVERYTHING[first : first + 20])
    begun.wal.close()
    old = (early / "state").read_bytes()
    going_on = Opened(early)
    for first in range(420, COUNT, 20):
        going_on.append(EVERYTHING[first : first + 20])
    going_on.wal.close()
    (early / "state").write_bytes(old)
    assert 0 < reopened(early) < COUNT
    shutil.copy(early / "state", log / "state")  # another log's: its segments are not these
    assert reopened(log) == COUNT


def test_a_bit_flipped_in_a_full_segment_is_refused_although_state_says_all_is_well(log: Path) -> None:
    segment = log / "wal-000000"
    whole = segment.read_bytes()
    noted = state.parse((log / "state").read_bytes())
    assert noted is not None
    for at in random.Random(2).sample(range(noted.segments[0].used), 40):
        flipped(segment, at)
        with pytest.raises(LogDamaged, match="Repair"):
            Opened(log)
        segment.write_bytes(whole)
    reopened(log)


def test_a_read_refuses_what_changed_since_the_start(log: Path) -> None:
    opened = Opened(log)
    flipped(log / "wal-000000", START)  # the first record's magic
    with pytest.raises(LogDamaged, match="does not hold entry 0"):
        opened.wal.read(0, 5)
    opened.wal.close()


@pytest.mark.parametrize("fault", [EIO, ENOSPC])
def test_a_state_that_cannot_be_written_costs_the_next_start_time_and_nothing_else(tmp_path: Path, fault: int) -> None:
    opened = Opened(tmp_path, NoState(fault))
    for first in range(0, COUNT, 20):
        opened.append(EVERYTHING[first : first + 20])
    opened.check()
    opened.wal.close()
    assert not (tmp_path / "state").exists()
    assert reopened(tmp_path) == COUNT


def test_what_was_half_written_is_zeros_again_before_the_log_goes_on(tmp_path: Path) -> None:
    """A volume that fills up in the midst of a record; a shorter one then takes its place."""
    calls = FaultyOs()
    opened = Opened(tmp_path, calls)
    opened.append(EVERYTHING[:1])
    calls.at_most, calls.fail, calls.after = 300, {"pwritev": ENOSPC}, {"pwritev": 5}
    calls.times = {"pwritev": 1}
    with pytest.raises(OSError, match="space"):
        opened.append(EVERYTHING[1:20])
    calls.at_most = 1 << 30
    opened.append(EVERYTHING[1:2])
    opened.wal.close()
    again = Opened(tmp_path)
    assert (again.wal.size, again.wal.repaired) == (2, 0)
    again.wal.close()
