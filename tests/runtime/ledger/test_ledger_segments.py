"""Whose turn it is: epochs in the log's files, a writer that is no longer the last one, files that do not belong together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quick_os import QuickOs

from folkmoot_core.entries import Actor, EntryRequest, Producer, new_entry
from folkmoot_core.errors import Unavailable
from folkmoot_core.ledger.tree import leaf_hash
from folkmoot_runtime.durable import RealOs
from folkmoot_runtime.ledger.columns import Columns
from folkmoot_runtime.ledger.faults import EIO, FaultyOs
from folkmoot_runtime.ledger.log import Options, open_log
from folkmoot_runtime.ledger.records import HEADER, MAGIC, LogDamaged, Superseded, SyncFailed
from folkmoot_runtime.ledger.segments import SMALLEST_SEGMENT, START, Segments, epoch_in, header
from folkmoot_runtime.ledger.wal import Wal


def opened(directory: Path, calls: RealOs | None = None, found: list[bytes] | None = None) -> Wal:
    calls = calls or QuickOs()
    wal = Wal(calls, directory, Columns(calls, directory), SMALLEST_SEGMENT)
    try:
        wal.open()
        wal.recover(lambda entries, _: None if found is None else found.extend(entries))
    except BaseException:
        wal.close()
        raise
    return wal


def append(wal: Wal, *names: bytes) -> None:
    wal.append(names, [leaf_hash(name) for name in names])


def three_files(directory: Path) -> list[Path]:
    """A log of one epoch over three files."""
    wal = opened(directory)
    for number in range(6):
        append(wal, b"%d" % number + b"x" * 50_000)
    wal.close()
    paths = sorted(directory.glob("wal-*"))
    assert len(paths) >= 3
    return paths


def set_epoch(path: Path, epoch: int) -> None:
    number = int(path.name.removeprefix("wal-"))
    path.write_bytes(header(number, epoch) + path.read_bytes()[START:])


@given(st.integers(0, 10**6 - 1), st.integers(1, 2**64 - 1))
def test_a_header_says_its_number_and_epoch(number: int, epoch: int) -> None:
    data = header(number, epoch)
    assert len(data) == START
    assert epoch_in(data, number) == epoch
    assert epoch_in(data, number + 1) is None
    assert epoch_in(data[:-1], number) is None


def test_every_flipped_bit_of_a_header_is_seen() -> None:
    whole = header(3, 700)
    for bit in range(8 * START):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        assert epoch_in(bytes(data), 3) is None


def test_each_opening_has_the_next_epoch(tmp_path: Path) -> None:
    for epoch in range(1, 5):
        found: list[bytes] = []
        wal = opened(tmp_path, found=found)
        assert len(found) == epoch - 1
        append(wal, b"%d" % epoch)
        wal.close()
        assert epoch_in((tmp_path / "wal-000000").read_bytes()[:START], 0) == epoch


def test_a_writer_that_was_followed_writes_nothing_more(tmp_path: Path) -> None:
    first = opened(tmp_path)
    append(first, b"one")
    found: list[bytes] = []
    second = opened(tmp_path, found=found)
    before = (tmp_path / "wal-000000").read_bytes()
    with pytest.raises(Superseded, match="another one has opened the log"):
        append(first, b"two")
    assert (tmp_path / "wal-000000").read_bytes() == before
    append(second, b"three")
    first.close()
    second.close()
    opened(tmp_path, found=found).close()
    assert found == [b"one", b"one", b"three"]


class Watched(QuickOs):
    """Calls `interrupt` before the given use of the given call."""

    def __init__(self, call: str, use: int, interrupt: Callable[[], None]) -> None:
        self.wanted, self.left, self.interrupt = call, use, interrupt

    def pwritev(self, fd: int, buffers: Sequence[bytes], offset: int) -> int:
        self._reach("pwritev")
        return super().pwritev(fd, buffers, offset)

    def fdatasync(self, fd: int) -> None:
        self._reach("fdatasync")

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self._reach("pread")
        return super().pread(fd, length, offset)

    def _reach(self, call: str) -> None:
        if call == self.wanted:
            self.left -= 1
            if self.left == 0:
                self.interrupt()


@pytest.mark.parametrize("call", ["pwritev", "fdatasync", "pread"])
@pytest.mark.parametrize("use", range(1, 9))
def test_whatever_a_writer_promised_the_next_one_has_read(tmp_path: Path, call: str, use: int) -> None:
    """Another process opens the log at each step of a writer that no lock holds back."""
    opened(tmp_path).close()
    seen: list[bytes] = []
    others: list[Wal] = []
    wal = opened(tmp_path, Watched(call, use, lambda: others.append(opened(tmp_path, found=seen))))
    promised: list[bytes] = []
    try:
        for number in range(6):
            name = b"%d" % number
            append(wal, name)
            promised.append(name)
    except Superseded:
        assert others
    wal.close()
    for other in others:
        assert seen[: len(promised)] == promised
        append(other, b"more")
        other.close()
    if others:
        found: list[bytes] = []
        opened(tmp_path, found=found).close()
        assert found == [*seen, b"more"]


@pytest.mark.parametrize("epochs", [(9, 5, 4), (9, 5, 10), (9, 10, 10), (1, 2, 1)])
def test_a_file_of_another_past_is_refused(tmp_path: Path, epochs: tuple[int, ...]) -> None:
    for path, epoch in zip(three_files(tmp_path), epochs, strict=False):
        set_epoch(path, epoch)
    with pytest.raises(LogDamaged, match=r"epoch .*Repair"):
        opened(tmp_path)


@pytest.mark.parametrize("epochs", [(9, 5, 5), (9, 5, 9), (9, 9, 9)])
def test_epochs_that_rise_are_accepted(tmp_path: Path, epochs: tuple[int, ...]) -> None:
    paths = three_files(tmp_path)
    for path, epoch in zip(paths, [*epochs, *([epochs[-1]] * len(paths))], strict=False):
        set_epoch(path, epoch)
    wal = opened(tmp_path)
    assert wal.size == 6
    wal.close()


def test_a_file_in_another_ones_place_is_refused(tmp_path: Path) -> None:
    paths = three_files(tmp_path)
    paths[1].write_bytes(paths[2].read_bytes())
    with pytest.raises(LogDamaged, match="does not begin with the header of segment 1"):
        opened(tmp_path)


@pytest.mark.parametrize("beginning", [bytes(START), b"x" * START, header(1, 1)])
def test_a_file_without_its_header_is_refused(tmp_path: Path, beginning: bytes) -> None:
    path = three_files(tmp_path)[0]
    path.write_bytes(beginning + path.read_bytes()[START:])
    with pytest.raises(LogDamaged, match="does not begin with the header of segment 0"):
        opened(tmp_path)


def test_a_log_of_the_format_before_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "wal-000000").write_bytes(HEADER.pack(MAGIC, 0, 1, 3, bytes(32)).ljust(SMALLEST_SEGMENT, b"\0"))
    with pytest.raises(LogDamaged, match=r"a version before this one.*Export"):
        opened(tmp_path)


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
def test_an_epoch_that_cannot_be_written_is_no_start(tmp_path: Path, call: str) -> None:
    opened(tmp_path).close()
    three_files(tmp_path)
    segments = Segments(FaultyOs(fail={call: EIO}), tmp_path)
    with pytest.raises(SyncFailed, match="writing the epoch"):
        segments.open()
    segments.close()


async def test_a_log_whose_lock_was_removed_stops_when_another_process_opens_it(tmp_path: Path) -> None:
    def fact(number: int) -> list[EntryRequest]:
        return [new_entry("session.start", Actor(kind="service", id="conductor"), id=f"request-{number}", data={}, now=1.0)]

    by = Producer(id="core/conductor")
    first = await open_log(tmp_path, Options(tenant="acme", first_segment=SMALLEST_SEGMENT, checkpoint_interval=3600.0))
    await first.append(fact(1), by)
    (tmp_path / "lock").unlink()
    second = await open_log(tmp_path, Options(tenant="acme", first_segment=SMALLEST_SEGMENT))
    with pytest.raises(Unavailable):
        await first.append(fact(2), by)
    async with asyncio.timeout(10):
        await first.stopped.wait()
    assert first.failure is not None
    assert "another one has opened the log" in first.failure.message
    (receipt,) = await second.append(fact(3), by)
    assert receipt.index == 2
    await first.aclose()
    await second.aclose()
