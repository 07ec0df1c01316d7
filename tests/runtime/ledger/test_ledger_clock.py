"""Starts under a clock that was set back: refused with both times, and let pass by a person's word alone, which goes on record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from folkmoot_core.entries import Actor, EntryRequest, Producer, new_entry, rfc3339
from folkmoot_core.ledger import bundle
from folkmoot_runtime.ledger.clock import TOLERANCE, ClockSetBack
from folkmoot_runtime.ledger.log import Log, Options, open_log
from folkmoot_runtime.ledger.segments import SMALLEST_SEGMENT

NOW = 1_800_000_000.0
YEAR = 365 * 86_400.0
BY = Producer(id="core/conductor")


def fact(number: int) -> EntryRequest:
    return new_entry("session.start", Actor(kind="service", id="conductor"), id=f"request-{number}", data={}, now=NOW)


async def at(directory: Path, now: float) -> Log:
    """The log, opened at this time, which stands still."""
    return await open_log(
        directory, Options(tenant="acme", first_segment=SMALLEST_SEGMENT, checkpoint_interval=3600.0, clock=lambda: now)
    )


async def written(directory: Path, now: float, *, closed: bool = False) -> None:
    log = await at(directory, now)
    await log.append([fact(1)], BY)
    if closed:
        await log.close_log()
    await log.aclose()


async def entries(log: Log) -> list[dict[str, object]]:
    data = await log.read(f"tile/entries/000.p/{log.size}")
    assert data is not None
    return [json.loads(entry) for entry in bundle.decode(data)]


async def test_a_clock_set_back_is_no_start_and_the_sentence_says_both_times(tmp_path: Path) -> None:
    await written(tmp_path, NOW)
    with pytest.raises(ClockSetBack) as refused:
        await at(tmp_path, NOW - 3600)
    for part in (rfc3339(NOW), rfc3339(NOW - 3600), str(tmp_path / "clock")):
        assert part in refused.value.message
    await (await at(tmp_path, NOW)).aclose()  # the clock was set right


@pytest.mark.parametrize("gone", ["checkpoint", "nothing"])
async def test_entry_and_checkpoint_each_suffice(tmp_path: Path, gone: str) -> None:
    await written(tmp_path, NOW)
    (tmp_path / gone).unlink(missing_ok=True)
    with pytest.raises(ClockSetBack, match="newest entry" if gone == "checkpoint" else "recorded"):
        await at(tmp_path, NOW - TOLERANCE - 1)


async def test_a_checkpoint_signed_later_than_the_newest_entry_counts(tmp_path: Path) -> None:
    await written(tmp_path, NOW)
    log = await at(tmp_path, NOW + 500)
    assert await log.publish()
    await log.aclose()
    with pytest.raises(ClockSetBack, match="checkpoint was signed"):
        await at(tmp_path, NOW + 400)


async def test_a_step_of_the_clock_is_no_reason(tmp_path: Path) -> None:
    await written(tmp_path, NOW)
    log = await at(tmp_path, NOW - TOLERANCE)
    await log.append([fact(2)], BY)
    await log.aclose()


async def test_a_closed_log_takes_nothing_and_needs_no_clock(tmp_path: Path) -> None:
    await written(tmp_path, NOW, closed=True)
    log = await at(tmp_path, NOW - YEAR)
    assert len(await entries(log)) == 3
    await log.aclose()


async def test_a_person_may_say_that_the_clock_was_wrong_then_and_the_log_says_so(tmp_path: Path) -> None:
    await written(tmp_path, NOW + YEAR)
    with pytest.raises(ClockSetBack) as refused:
        await at(tmp_path, NOW)
    stamp = refused.value.message.split("write ")[1].split(",")[0]
    (tmp_path / "clock").write_text(stamp + "\n")
    log = await at(tmp_path, NOW)
    assert await log.publish()  # signs at once, a year before its last checkpoint
    assert (tmp_path / "clock").exists()
    await log.append([fact(2)], BY)
    await log.append([fact(3)], BY)
    assert await log.publish()
    assert not (tmp_path / "clock").exists()
    said = (await entries(log))[3]
    assert said["ce"]["type"] == "dev.folkmoot.audit.log.degraded.v1"  # type: ignore[index]
    assert said["data"] == {"reason": "ClockSetBack", "until": rfc3339(NOW + YEAR)}
    await log.aclose()
    await (await at(tmp_path, NOW)).aclose()
    with pytest.raises(ClockSetBack):
        await at(tmp_path, NOW - 60)  # the guard is back


async def test_a_word_that_was_given_is_good_for_the_starts_until_it_is_on_record(tmp_path: Path) -> None:
    await written(tmp_path, NOW + YEAR)
    (tmp_path / "clock").write_text(rfc3339(NOW + YEAR))
    for _ in range(2):
        await (await at(tmp_path, NOW)).aclose()
    log = await at(tmp_path, NOW)
    await log.append([fact(2)], BY)
    await log.aclose()
    log = await at(tmp_path, NOW)
    await log.append([fact(3)], BY)
    await log.aclose()
    assert not (tmp_path / "clock").exists()


async def test_a_word_covers_no_later_time_than_it_names(tmp_path: Path) -> None:
    await written(tmp_path, NOW + YEAR)
    (tmp_path / "clock").write_text(rfc3339(NOW + YEAR - 1))
    with pytest.raises(ClockSetBack, match="set back"):
        await at(tmp_path, NOW)


@pytest.mark.parametrize("said", ["", "yes", "2027-01-01T00:00:00", "9" * 5000, "\x00\xff", "99999-01-01T00:00:00Z"])
async def test_a_word_that_is_no_time_is_refused(tmp_path: Path, said: str) -> None:
    await written(tmp_path, NOW)
    (tmp_path / "clock").write_text(said)
    with pytest.raises(ClockSetBack, match="expected a time like"):
        await at(tmp_path, NOW)
