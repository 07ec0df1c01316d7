"""The log on a volume: faults of every kind of write, restarts, one writer, what is published."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
from pathlib import Path

import pytest

from folkmoot_core.entries import Actor, EntryRequest, Producer, new_entry
from folkmoot_core.errors import Conflict, FolkmootError, Overloaded, Unavailable
from folkmoot_core.ledger import bundle, checkpoint, note
from folkmoot_core.ledger.tree import leaf_hash
from folkmoot_runtime.durable import RealOs, zero_file
from folkmoot_runtime.ledger.faults import FaultyOs
from folkmoot_runtime.ledger.log import Log, Options, open_log
from folkmoot_runtime.ledger.records import GENESIS, HEADER, MAGIC, LogDamaged
from folkmoot_runtime.ledger.segments import SMALLEST_SEGMENT, START, header

CONDUCTOR = Producer(id="core/conductor")
NEVER = 3600.0  # a checkpoint interval that no test reaches


def fact(number: int, size: int = 10) -> EntryRequest:
    actor = Actor(kind="service", id="conductor")
    return new_entry("session.start", actor, id=f"request-{number}", data={"pad": "x" * size}, now=1.0)


async def reopened(directory: Path, **options: object) -> Log:
    return await open_log(directory, Options(**{"tenant": "acme", "first_segment": SMALLEST_SEGMENT, **options}))  # type: ignore[arg-type]


async def types(log: Log) -> list[str]:
    data = await log.read(f"tile/entries/000.p/{log.size}")
    assert data is not None
    return [
        json.loads(entry)["ce"]["type"].removeprefix("dev.folkmoot.audit.").removesuffix(".v1") for entry in bundle.decode(data)
    ]


async def size_of_checkpoint(log: Log) -> int:
    data = await log.read("checkpoint")
    assert data is not None
    return checkpoint.open_checkpoint(data, note.parse_vkey(log.vkey)).size


async def test_a_restart_keeps_identity_entries_and_ids(tmp_path: Path) -> None:
    first = await reopened(tmp_path)
    (receipt,) = await first.append([fact(1)], CONDUCTOR)
    identity = (first.origin, first.vkey)
    await first.aclose()
    second = await reopened(tmp_path)
    assert (second.origin, second.vkey) == identity
    assert await second.append([fact(1)], CONDUCTOR) == [receipt.model_copy(update={"duplicate": True})]
    with pytest.raises(Conflict):
        await second.append([fact(1, size=11)], CONDUCTOR)
    assert await types(second) == ["log.opened", "session.start"]
    await second.aclose()


async def test_the_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    log = await reopened(tmp_path)
    await log.aclose()
    assert (tmp_path / "log.key").stat().st_mode & 0o777 == 0o600
    assert log.origin.startswith("folkmoot/")


async def test_a_closed_log_stays_closed(tmp_path: Path) -> None:
    log = await reopened(tmp_path)
    assert await log.close_log() == 2
    await log.aclose()
    log = await reopened(tmp_path)
    with pytest.raises(Conflict):
        await log.append([fact(1)], CONDUCTOR)
    assert await log.close_log() == 2
    await log.aclose()


async def test_a_second_writer_is_told_so(tmp_path: Path) -> None:
    log = await reopened(tmp_path)
    with pytest.raises(Conflict, match="one writer"):
        await reopened(tmp_path)
    await log.aclose()
    await (await reopened(tmp_path)).aclose()


async def test_entries_fill_segment_after_segment(tmp_path: Path) -> None:
    log = await reopened(tmp_path)
    for batch in range(8):
        await log.append([fact(100 * batch + i, 2000) for i in range(40)], CONDUCTOR)
    await log.aclose()
    assert len(list(tmp_path.glob("wal-??????"))) > 2
    log = await reopened(tmp_path)
    assert log.size == 321
    (known,) = await log.append([fact(735, 2000)], CONDUCTOR)
    assert (known.index, known.duplicate) == (316, True)
    await log.aclose()


@pytest.mark.parametrize("fault", ["fdatasync", "pwritev"])
async def test_a_failed_write_or_sync_stops_the_log_and_recovery_goes_on(tmp_path: Path, fault: str) -> None:
    calls = FaultyOs()
    log = await reopened(tmp_path, calls=calls, checkpoint_interval=NEVER)
    await log.append([fact(1)], CONDUCTOR)
    calls.fail[fault] = errno.EIO
    failing = [asyncio.create_task(log.append([fact(n)], CONDUCTOR)) for n in (2, 3, 4)]
    for answer in await asyncio.gather(*failing, return_exceptions=True):
        assert isinstance(answer, Unavailable)
    assert log.stopped.is_set()
    assert log.failure is not None
    calls.fail.clear()  # "the next sync says OK": it must not be believed
    uses = len(calls.calls)
    with pytest.raises(Unavailable):
        await log.append([fact(5)], CONDUCTOR)
    await log.publish()
    await log.aclose()
    assert len(calls.calls) == uses
    again = await reopened(tmp_path)
    assert again.size in (2, 5)  # the batch whose sync failed may be there whole, never in part
    receipts = await again.append([fact(n) for n in range(1, 6)], CONDUCTOR)
    assert sorted(r.index for r in receipts) == [1, 2, 3, 4, 5]
    await again.aclose()


async def test_a_full_volume_refuses_goes_on_and_says_so_later(tmp_path: Path) -> None:
    calls = FaultyOs()
    log = await reopened(tmp_path, calls=calls, checkpoint_interval=NEVER)
    calls.fail["pwritev"] = errno.ENOSPC
    for _ in range(2):
        with pytest.raises(Unavailable, match="full") as refused:
            await log.append([fact(1)], CONDUCTOR)
        assert refused.value.retry_after
    assert not log.stopped.is_set()
    assert log.size == 1
    calls.fail.clear()
    await log.append([fact(1)], CONDUCTOR)
    await log.append([fact(2)], CONDUCTOR)
    assert await types(log) == ["log.opened", "session.start", "log.degraded", "session.start"]
    await log.aclose()
    log = await reopened(tmp_path)
    assert log.size == 4
    await log.aclose()


async def test_a_volume_too_full_for_the_next_segment_refuses_until_there_is_room(tmp_path: Path) -> None:
    calls = FaultyOs()
    log = await reopened(tmp_path, calls=calls, checkpoint_interval=NEVER)
    calls.fail["write"] = errno.ENOSPC
    refused = 0
    for number in range(100):
        try:
            await log.append([fact(number, 3000)], CONDUCTOR)
        except Unavailable:
            refused += 1
    assert refused > 0
    kept = log.size
    calls.fail.clear()
    await log.append([fact(number, 3000) for number in range(100)], CONDUCTOR)
    assert log.size in (101, 102)  # 100, log.opened, and perhaps already log.degraded
    assert kept < 101
    await log.aclose()
    log = await reopened(tmp_path)
    assert log.size == 102
    await log.aclose()


@pytest.mark.parametrize("at_most", [1, 7, 100])
async def test_short_writes_are_finished(tmp_path: Path, at_most: int) -> None:
    calls = FaultyOs()
    log = await reopened(tmp_path, calls=calls, checkpoint_interval=NEVER)
    calls.at_most = at_most
    await log.append([fact(n) for n in range(5)], CONDUCTOR)
    await log.aclose()
    log = await reopened(tmp_path)
    assert log.size == 6
    assert await size_of_checkpoint(log) == 6
    await log.aclose()


@pytest.mark.parametrize("fault", ["fsync", "replace", "write", "open"])
async def test_a_checkpoint_that_cannot_be_published_stops_the_log_and_leaves_the_old_one(tmp_path: Path, fault: str) -> None:
    calls = FaultyOs()
    log = await reopened(tmp_path, calls=calls, checkpoint_interval=NEVER)
    await log.append([fact(1)], CONDUCTOR)
    calls.fail[fault] = errno.EIO
    await log.publish()
    assert log.stopped.is_set()
    assert await size_of_checkpoint(log) == 1
    await log.aclose()
    log = await reopened(tmp_path)
    assert await size_of_checkpoint(log) == log.size == 2
    await log.aclose()


async def test_a_checkpoint_that_finds_no_room_is_tried_again(tmp_path: Path) -> None:
    calls = FaultyOs()
    log = await reopened(tmp_path, calls=calls, checkpoint_interval=NEVER)
    await log.append([fact(1)], CONDUCTOR)
    calls.fail["write"] = errno.ENOSPC
    await log.publish()
    assert await size_of_checkpoint(log) == 1
    assert not log.stopped.is_set()
    calls.fail.clear()
    await log.publish()
    assert await size_of_checkpoint(log) == 2
    await log.aclose()


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace", "pwritev", "fdatasync"])
async def test_a_birth_interrupted_anywhere_is_begun_again(tmp_path: Path, call: str) -> None:
    """Each call of the birth fails once, at each of its uses; the next start makes a log of one identity."""
    probe = FaultyOs()
    (tmp_path / "probe").mkdir()
    await (await reopened(tmp_path / "probe", calls=probe)).aclose()
    for use in range(probe.calls.count(call)):
        directory = tmp_path / f"{call}-{use}"
        calls = FaultyOs(fail={call: errno.EIO}, after={call: use})
        try:
            log = await reopened(directory, calls=calls)
        except (OSError, FolkmootError):
            pass
        else:
            await log.aclose()
        log = await reopened(directory)
        (receipt,) = await log.append([fact(1)], CONDUCTOR)
        assert receipt.index == 1
        assert await types(log) == ["log.opened", "session.start"]
        await log.aclose()


async def test_more_than_may_wait_is_refused_with_a_time_to_come_back(tmp_path: Path) -> None:
    log = await reopened(tmp_path, max_queued=50)
    with pytest.raises(Overloaded) as refused:
        await log.append([fact(n) for n in range(51)], CONDUCTOR)
    assert refused.value.retry_after == 1
    assert len(await log.append([fact(n) for n in range(50)], CONDUCTOR)) == 50
    await log.aclose()


async def test_what_waits_while_a_sync_runs_is_the_next_batch(tmp_path: Path) -> None:
    calls = FaultyOs()
    log = await reopened(tmp_path, calls=calls, checkpoint_interval=NEVER)
    before = calls.calls.count("fdatasync")
    await asyncio.gather(*(log.append([fact(n)], CONDUCTOR) for n in range(500)))
    assert log.size == 501
    assert calls.calls.count("fdatasync") - before <= 3
    await log.aclose()


async def test_a_callers_disappearance_disturbs_nobody(tmp_path: Path) -> None:
    log = await reopened(tmp_path)
    gone = asyncio.create_task(log.append([fact(1)], CONDUCTOR))
    stays = asyncio.create_task(log.append([fact(1), fact(2)], CONDUCTOR))
    await asyncio.sleep(0)
    gone.cancel()
    assert [r.index for r in await stays] == [1, 2]
    await log.aclose()


# -- what recovery refuses ----------------------------------------------------------------------------------------------


async def grown(directory: Path) -> None:
    """A log of six entries under a checkpoint."""
    log = await reopened(directory)
    for number in range(5):
        await log.append([fact(number)], CONDUCTOR)
    await log.aclose()


async def test_a_volume_rolled_back_behind_its_checkpoint_is_refused(tmp_path: Path) -> None:
    log = await reopened(tmp_path)
    old = (tmp_path / "wal-000000").read_bytes()
    await log.append([fact(1)], CONDUCTOR)
    await log.aclose()
    (tmp_path / "wal-000000").write_bytes(old)
    with pytest.raises(LogDamaged, match="rolled back"):
        await reopened(tmp_path)


async def test_another_history_than_the_published_one_is_refused(tmp_path: Path) -> None:
    await grown(tmp_path)
    old_checkpoint = (tmp_path / "checkpoint").read_bytes()
    (tmp_path / "checkpoint").unlink()
    (tmp_path / "wal-000000").unlink()
    log = await reopened(tmp_path)  # same key and origin, other entries
    await log.append([fact(n, 20) for n in range(9)], CONDUCTOR)
    await log.aclose()
    (tmp_path / "checkpoint").write_bytes(old_checkpoint)
    with pytest.raises(LogDamaged, match="not those of the published checkpoint"):
        await reopened(tmp_path)


@pytest.mark.parametrize("name", ["log.key", "origin"])
async def test_a_log_without_its_identity_is_refused_and_never_gets_another(tmp_path: Path, name: str) -> None:
    await grown(tmp_path / "log")
    await grown(tmp_path / "other")
    mine, others = tmp_path / "log" / name, tmp_path / "other" / name
    mine.unlink()
    with pytest.raises(LogDamaged, match=name):
        await reopened(tmp_path / "log")
    assert not mine.exists()
    mine.write_bytes(others.read_bytes())
    with pytest.raises(LogDamaged, match="entry 0"):
        await reopened(tmp_path / "log")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b'{"v":1,"kek":"","since":0,"keys":"AAAA"}', b'{"v":1,"kek":"","since":99,"keys":"%b"}']
)
async def test_a_key_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    await grown(tmp_path)
    secret = json.loads((tmp_path / "log.key").read_bytes())["keys"].encode()
    (tmp_path / "log.key").write_bytes(content.replace(b"%b", secret))
    with pytest.raises(LogDamaged, match=r"log\.key"):
        await reopened(tmp_path)


async def test_a_lost_log_under_a_checkpoint_is_refused(tmp_path: Path) -> None:
    await grown(tmp_path)
    (tmp_path / "wal-000000").unlink()
    with pytest.raises(LogDamaged):
        await reopened(tmp_path)


async def test_a_changed_checkpoint_is_refused(tmp_path: Path) -> None:
    await grown(tmp_path)
    data = (tmp_path / "checkpoint").read_bytes()
    (tmp_path / "checkpoint").write_bytes(data.replace(b"\n6\n", b"\n5\n"))
    with pytest.raises(LogDamaged, match="does not verify"):
        await reopened(tmp_path)


async def test_whole_records_that_are_no_entries_are_refused(tmp_path: Path) -> None:
    zero_file(RealOs(), tmp_path / "wal-000000", SMALLEST_SEGMENT, header(0, 1))
    payload = bundle.encode([b"hello"])
    digest = hashlib.sha256(GENESIS + leaf_hash(b"hello")).digest()
    with (tmp_path / "wal-000000").open("r+b") as file:
        file.seek(START)
        file.write(HEADER.pack(MAGIC, 0, 1, len(payload), digest) + payload)
    with pytest.raises(LogDamaged, match="not a ledger entry"):
        await reopened(tmp_path)
