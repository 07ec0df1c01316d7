"""The write-ahead log under flipped bits and arbitrary bytes: a prefix of what was synced, or a refusal. More in test_ledger_fuzz.py."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quick_os import QuickOs

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger.tree import leaf_hash
from folkmoot_runtime.durable import RealOs
from folkmoot_runtime.ledger.columns import Columns
from folkmoot_runtime.ledger.records import HEADER, PAGE, LogDamaged, used
from folkmoot_runtime.ledger.segments import SMALLEST_SEGMENT, START
from folkmoot_runtime.ledger.wal import Accept, Wal


def entry(number: int, size: int = 60) -> bytes:
    return b'{"n":%d,"pad":"' % number + b"x" * size + b'"}'


def opened(directory: Path, accept: Accept) -> Wal:
    """A recovered log; closed again when it is refused."""
    wal = Wal(QuickOs(), directory, Columns(QuickOs(), directory), SMALLEST_SEGMENT)
    try:
        wal.open()
        wal.recover(accept)
    except BaseException:
        wal.close()
        raise
    return wal


def written(directory: Path, batches: list[list[bytes]]) -> list[tuple[Path, int, int]]:
    """Write batches; for each its file, first byte and end."""
    wal = opened(directory, lambda *_: None)
    spans = []
    for batch in batches:
        wal.append(batch, [leaf_hash(e) for e in batch])
        length = HEADER.size + sum(2 + len(e) for e in batch)
        segment = wal._segments[wal._current]
        spans.append((segment.path, wal._offset - length, wal._offset))
    wal.close()
    return spans


def recovered(directory: Path) -> tuple[list[bytes], int]:
    """What recovery from the log alone accepts, and how much it cut off."""
    found: list[bytes] = []
    (directory / "state").unlink(missing_ok=True)
    wal = opened(directory, lambda entries, _: found.extend(entries))
    try:
        assert wal.read(0, wal.size) == found
        return found, wal.repaired
    finally:
        wal.close()


def some_batches(seed: int, count: int = 6) -> list[list[bytes]]:
    rng = random.Random(seed)
    number = 0
    batches = []
    for _ in range(count):
        batch = [entry(number + i, rng.randrange(700)) for i in range(rng.randrange(1, 8))]
        number += len(batch)
        batches.append(batch)
    return batches


def test_what_was_written_is_read_across_segments(tmp_path: Path) -> None:
    batches = [[entry(100 * b + i, 3000) for i in range(20)] for b in range(12)]
    spans = written(tmp_path, batches)
    assert len({path for path, _, _ in spans}) > 2
    everything = [e for batch in batches for e in batch]
    assert recovered(tmp_path) == (everything, 0)
    wal = opened(tmp_path, lambda *_: None)
    assert wal.read(15, 200) == everything[15:215]
    assert wal.read(7, 1) == [everything[7]]
    more = [entry(999)]
    wal.append(more, [leaf_hash(more[0])])
    wal.close()
    assert recovered(tmp_path)[0] == [*everything, *more]


@pytest.mark.parametrize("seed", range(3))
def test_every_flipped_bit_before_the_last_batch_is_refused(tmp_path: Path, seed: int) -> None:
    batches = [[entry(0, 5)], [entry(1, 9), entry(2, 1)], [entry(3, 4)], [entry(4, 4)]]
    rng = random.Random(seed)
    rng.shuffle(batches)
    spans = written(tmp_path, batches)
    path, last = spans[0][0], spans[-1][1]
    whole = path.read_bytes()
    for bit in range(8 * last):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(LogDamaged, match="Repair"):
            recovered(tmp_path)
    assert path.read_bytes()[START:] == bytes(data)[START:]  # of a refused log only the epoch is touched


def test_a_flipped_bit_in_the_last_batch_never_adds_or_changes_an_entry(tmp_path: Path) -> None:
    batches = some_batches(7, 3)
    path, start, end = written(tmp_path, batches)[-1]
    whole = path.read_bytes()
    before = [e for batch in batches[:-1] for e in batch]
    for bit in range(8 * start, 8 * end, 11):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            assert recovered(tmp_path)[0] == before
        except LogDamaged:
            continue


def test_damage_across_a_segments_end_is_refused(tmp_path: Path) -> None:
    batches = [[entry(10 * b + i, 5000) for i in range(10)] for b in range(4)]
    spans = written(tmp_path, batches)
    (first, start, end), (second, _, _) = spans[1], spans[2]
    assert first != second
    whole = first.read_bytes()
    for damaged in (whole[: start + 100] + b"X" + whole[start + 101 :], whole[:start] + bytes(end - start) + whole[end:]):
        first.write_bytes(damaged)
        with pytest.raises(LogDamaged):
            recovered(tmp_path)
    first.write_bytes(whole)
    assert len(recovered(tmp_path)[0]) == 40
    first.unlink()
    with pytest.raises(LogDamaged, match="wal-000000 is missing"):
        recovered(tmp_path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=200), at=st.integers(0, 2000))
def test_recovery_of_arbitrary_bytes_raises_our_error_alone(tmp_path: Path, noise: bytes, at: int) -> None:
    spans = written_once(tmp_path)
    path, whole = spans
    path.write_bytes(whole[:at] + noise + whole[at + len(noise) :])
    try:
        found, _ = recovered(tmp_path)
    except LogDamaged:
        return
    assert found == [e for batch in some_batches(3, 3) for e in batch][: len(found)]


def written_once(directory: Path) -> tuple[Path, bytes]:
    """The same log in a directory that several examples share."""
    backup = directory / "whole"
    if not backup.exists():
        written(directory, some_batches(3, 3))
        backup.write_bytes((directory / "wal-000000").read_bytes())
    return directory / "wal-000000", backup.read_bytes()


@given(
    st.binary(max_size=20),
    st.sampled_from([0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE]),
    st.sampled_from([0, 1, PAGE - 20, 2 * PAGE]),
)
def test_zeros_at_the_end_are_not_counted(middle: bytes, after: int, before: int) -> None:
    data = b"x" * before + middle + bytes(after)
    assert used(data) == len(data.rstrip(b"\0"))


def test_a_segment_must_hold_an_entry(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        Wal(RealOs(), tmp_path, Columns(RealOs(), tmp_path), SMALLEST_SEGMENT - 1)
