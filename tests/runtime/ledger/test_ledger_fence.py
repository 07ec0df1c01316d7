"""The fence: nothing is shown that the witness did not cosign, and a volume that was rolled back or forked is not continued."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from witness_bench import Bench, terms

from folkmoot_core.document import AuditEntry
from folkmoot_core.entries import Actor, EntryRequest, Producer, new_entry
from folkmoot_core.errors import Invalid, Unavailable
from folkmoot_core.ledger import checkpoint, note, policy, rotation
from folkmoot_core.ledger.audit import Trust, verify_log
from folkmoot_core.ledger.fence import Answer
from folkmoot_runtime.durable import RealOs
from folkmoot_runtime.ledger.export import write_directory
from folkmoot_runtime.ledger.faults import EIO, ENOSPC, FaultyOs
from folkmoot_runtime.ledger.log import Log, Options, open_log
from folkmoot_runtime.ledger.segments import SMALLEST_SEGMENT
from folkmoot_runtime.ledger.witnesses import Witnesses

CONDUCTOR = Producer(id="core/conductor")
NOW = 1_800_000_000.0


class Clock:
    """Stands still unless moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class World:
    """One witness bench, one clock, logs over directories."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.bench = Bench(self.clock)
        self.open: list[Log] = []

    async def log(self, directory: Path, audit: AuditEntry | None, *, calls: RealOs | None = None, register: bool = True) -> Log:
        options = Options(
            tenant="acme", first_segment=SMALLEST_SEGMENT, fence=Witnesses(self.bench), clock=self.clock, checkpoint_interval=3600.0,
            calls=calls or RealOs(),
        )  # fmt: skip
        log = await open_log(directory, options)
        self.open.append(log)
        if register:
            await self.bench.register(log.origin, log.status().vkeys)
        if audit is not None:
            log.follow(audit)
        return log

    async def close(self, log: Log) -> None:
        self.open.remove(log)
        await log.aclose()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    for log in made.open:
        await log.aclose()


def fact(number: int) -> EntryRequest:
    return new_entry("session.start", Actor(kind="service", id="conductor"), id=f"fact-{number:06d}", data={"n": number}, now=NOW)


async def grow(log: Log, first: int, count: int) -> None:
    await log.append([fact(number) for number in range(first, first + count)], CONDUCTOR)


async def test_what_is_published_carries_both_signatures_and_the_witnesss(world: World, tmp_path: Path) -> None:
    audit = terms(world.bench.add())
    log = await world.log(tmp_path, audit)
    await grow(log, 0, 5)
    assert await log.publish()
    published = await log.read("checkpoint")
    rules = policy.parse((await log.read("policy") or b"").decode())
    assert published is not None
    assert rules.check(published).size == 6
    ed25519, mldsa = (note.parse_vkey(vkey) for vkey in log.status().vkeys)
    assert checkpoint.open_checkpoint(published, [ed25519, mldsa]).size == 6
    assert log.status().witnessed == ("cluster",)
    with pytest.raises(Invalid, match="quorum"):
        rules.check(note.sign(checkpoint.parse(note.split(published)[0]).body(), log._volume.keys.signers(0)))


async def test_nothing_is_shown_before_the_terms_are_known(world: World, tmp_path: Path) -> None:
    entry = world.bench.add()
    log = await world.log(tmp_path, None)
    await grow(log, 0, 1)
    assert not await log.publish()
    assert await log.read("checkpoint") is None
    assert log.status().reason == "TermsNotKnown"
    log.follow(terms(entry))
    assert await log.publish()


async def test_terms_without_the_installations_witness_are_no_terms(world: World, tmp_path: Path) -> None:
    """A document made while the operator did not know the witness's key must not read as "there is no witness"."""
    entry = world.bench.add()
    log = await world.log(tmp_path, None)
    await grow(log, 0, 1)
    with pytest.raises(Invalid, match="expected the installation's witness"):
        log.follow(AuditEntry())
    assert not await log.publish()
    assert log.status().reason == "TermsNotKnown"
    log.follow(terms(entry))
    with pytest.raises(Invalid, match="expected the installation's witness"):
        log.follow(AuditEntry(retention_days=400))
    assert await log.publish()
    assert log.status().witnessed == ("cluster",)


@pytest.mark.parametrize(
    "fault", ["away", "unknown", "nonsense", "false line", "other key", "larger", "no size", "same size", "redirect"]
)
async def test_without_the_witnesss_cosignature_the_old_checkpoint_stays(world: World, tmp_path: Path, fault: str) -> None:
    entry = world.bench.add()
    log = await world.log(tmp_path, terms(entry), register=fault != "unknown")
    if fault != "unknown":
        assert await log.publish()
    before = await log.read("checkpoint")
    await grow(log, 0, 3)
    other = world.bench.add("other")
    false = next(line for line in (before or b"").decode().splitlines() if "witness.test/cluster" in line) if before else ""
    answers = {
        "nonsense": Answer(200, "text/plain", b"\xff\x00 hello"), "false line": Answer(200, "text/plain", f"{false}\n".encode()),
        "other key": Answer(200, "text/plain", b""), "larger": Answer(200, "text/plain", b"x" * 100_000),
        "no size": Answer(409, "text/x.tlog.size", b"many\n"), "same size": Answer(409, "text/x.tlog.size", b"1\n"),
        "redirect": Answer(302, "text/plain", b""),
    }  # fmt: skip
    if fault == "away":
        world.bench.away.add("cluster")
    if fault in answers:
        world.bench.answers["cluster"] = answers[fault]
    assert not await log.publish()
    assert await log.read("checkpoint") == before
    status = log.status()
    assert (status.state, status.reason) == ("Open", "WitnessUnavailable")
    assert "cluster" in status.message
    await grow(log, 3, 1)  # a running log goes on taking entries
    world.bench.away.clear()
    world.bench.answers.clear()
    await world.bench.register(log.origin, status.vkeys)
    assert await log.publish()
    assert log.status().reason == ""
    assert other.name not in log.status().witnessed


async def test_an_old_snapshot_freezes_and_stays_frozen(world: World, tmp_path: Path) -> None:
    audit = terms(world.bench.add())
    log = await world.log(tmp_path / "log", audit)
    await grow(log, 0, 3)
    assert await log.publish()
    await world.close(log)
    shutil.copytree(tmp_path / "log", tmp_path / "snapshot")
    log = await world.log(tmp_path / "log", audit)
    await log.publish()
    await grow(log, 3, 3)
    assert await log.publish()
    await world.close(log)

    restored = await world.log(tmp_path / "snapshot", audit)
    assert not await restored.publish()
    status = restored.status()
    assert (status.state, status.reason) == ("Frozen", "ForkDetected")
    assert "cosigned 7 entries" in status.message
    assert "Restore the volume" in status.message
    with pytest.raises(Unavailable, match="frozen") as refused:
        await grow(restored, 9, 1)
    assert refused.value.reason == "LogFrozen"
    restored._publisher.checked.set()  # even if somebody waited long enough
    with pytest.raises(Unavailable, match="frozen"):
        await grow(restored, 9, 1)
    await world.close(restored)
    again = await world.log(tmp_path / "snapshot", None)  # without any witness to ask
    assert again.status().state == "Frozen"


async def test_an_append_waits_for_the_witnesss_first_word_after_a_restart(world: World, tmp_path: Path) -> None:
    audit = terms(world.bench.add())
    log = await world.log(tmp_path, audit)
    assert await log.publish()
    await world.close(log)
    world.bench.away.add("cluster")
    log = await world.log(tmp_path, audit)
    await log.publish()
    appending = asyncio.create_task(grow(log, 0, 1))
    await asyncio.sleep(0)
    assert not appending.done()
    world.bench.away.clear()
    await log.publish()
    await appending
    assert log.size == 2
    assert await log.publish()


async def test_another_history_at_the_witness_freezes(world: World, tmp_path: Path) -> None:
    """Two volumes of one log went on apart: the second one to ask is told."""
    audit = terms(world.bench.add())
    log = await world.log(tmp_path / "a", audit)
    assert await log.publish()
    await world.close(log)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first, second = await world.log(tmp_path / "a", audit), await world.log(tmp_path / "b", audit)
    await first.publish()
    await second.publish()
    await grow(first, 0, 2)
    assert await first.publish()
    await grow(second, 5, 4)
    assert not await second.publish()
    assert second.status().reason == "ForkDetected"
    assert second.status().state == "Frozen"
    assert await first.publish()
    assert first.status().state == "Open"


async def test_a_crash_between_cosigning_and_showing_goes_on(world: World, tmp_path: Path) -> None:
    audit = terms(world.bench.add())
    calls = FaultyOs()
    log = await world.log(tmp_path, audit, calls=calls)
    assert await log.publish()
    await grow(log, 0, 3)
    calls.fail["replace"] = EIO
    assert not await log.publish()
    assert log.failure is not None
    await world.close(log)
    log = await world.log(tmp_path, audit)
    assert (await log.read("checkpoint") or b"").split(b"\n")[1] == b"1"
    assert await log.publish()
    assert log.status().size == 4


async def test_a_full_volume_keeps_the_old_checkpoint_and_says_so(world: World, tmp_path: Path) -> None:
    audit = terms(world.bench.add())
    calls = FaultyOs()
    log = await world.log(tmp_path, audit, calls=calls)
    assert await log.publish()
    await grow(log, 0, 1)
    calls.fail["write"] = ENOSPC
    assert not await log.publish()
    assert (log.status().reason, log.status().size) == ("VolumeFull", 1)
    calls.fail.clear()
    assert await log.publish()


@pytest.mark.parametrize(
    ("quorum", "away", "published"), [(1, {"p1"}, True), (2, {"p1"}, False), (1, {"cluster"}, False), (2, set(), True)]
)
async def test_partners_count_to_their_quorum_and_the_installations_own_always(
    world: World, tmp_path: Path, quorum: int, away: set[str], published: bool
) -> None:
    audit = terms(*(world.bench.add(name) for name in ("cluster", "p1", "p2")), quorum=quorum)
    log = await world.log(tmp_path, audit)
    world.bench.away = away
    assert await log.publish() == published
    if published:
        policy.parse((await log.read("policy") or b"").decode()).check(await log.read("checkpoint") or b"")


async def test_a_partner_that_cries_fork_stops_no_log_whose_own_witness_agrees(world: World, tmp_path: Path) -> None:
    audit = terms(world.bench.add(), world.bench.add("p1"), quorum=1)
    log = await world.log(tmp_path, audit)
    world.bench.answers["p1"] = Answer(422, "text/plain", b"no\n")
    assert not await log.publish()
    assert (log.status().state, log.status().reason) == ("Open", "ForkDetected")
    world.bench.answers.clear()
    assert await log.publish()


async def test_terms_that_cannot_be_used_leave_the_old_ones(world: World, tmp_path: Path) -> None:
    entry = world.bench.add()
    log = await world.log(tmp_path, terms(entry))
    with pytest.raises(Invalid):
        log.follow(terms(entry.model_copy(update={"key": "nonsense"})))
    assert await log.publish()


async def test_a_clock_set_back_signs_nothing_until_it_has_passed(world: World, tmp_path: Path) -> None:
    log = await world.log(tmp_path, terms(world.bench.add()))
    assert await log.publish()
    await grow(log, 0, 1)
    world.clock.now -= 60
    assert not await log.publish()
    assert log.status().reason == "ClockSetBack"
    world.clock.now += 61
    assert await log.publish()


async def test_somebody_else_may_freeze_it_and_the_log_says_so(world: World, tmp_path: Path) -> None:
    log = await world.log(tmp_path, terms(world.bench.add()))
    assert await log.publish()
    await log.freeze("ForkDetected", "the operator holds a larger checkpoint")
    await log.freeze("Other", "too late")
    assert (log.status().state, log.status().reason) == ("Frozen", "ForkDetected")
    last = json.loads(log._volume.wal.read(log.size - 1, 1)[0])
    assert last["ce"]["type"] == "dev.folkmoot.audit.log.frozen.v1"
    assert not await log.publish()


async def test_a_log_that_can_take_no_entry_freezes_without_one(world: World, tmp_path: Path) -> None:
    calls = FaultyOs()
    log = await world.log(tmp_path, terms(world.bench.add()), calls=calls)
    assert await log.publish()
    calls.fail["pwritev"] = ENOSPC
    await log.freeze("ForkDetected", "the operator holds a larger checkpoint")
    assert (log.status().state, log.status().reason, log.size) == ("Frozen", "ForkDetected", 1)
    calls.fail.clear()
    with pytest.raises(Unavailable, match="frozen"):
        await grow(log, 0, 1)


# -- rotation ------------------------------------------------------------------------------------------------------------


async def test_keys_rotate_and_the_log_goes_on(world: World, tmp_path: Path) -> None:
    audit = terms(world.bench.add())
    log = await world.log(tmp_path, audit)
    assert await log.publish()
    before = log.vkey
    after = await log.rotate()
    assert after == log.vkey != before
    assert not await log.publish()  # the witness has not been told
    status = log.status()
    assert (status.reason, "by another key" in status.message) == ("WitnessUnavailable", True)
    assert await world.bench.register(log.origin, status.vkeys) == 409
    assert await world.bench.register(log.origin, status.vkeys, status.rotation) == 200
    assert await log.publish()
    assert rotation.verify(status.rotation.encode(), note.parse_vkey(before))[0].vkey() == after
    await world.close(log)
    log = await world.log(tmp_path, audit, register=False)
    assert (log.vkey, log.status().rotation) == (after, status.rotation)
    assert await log.publish()


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace", "unlink", "pwritev", "fdatasync"])
@pytest.mark.parametrize("after", range(4))
async def test_a_rotation_that_is_interrupted_happened_or_did_not(world: World, tmp_path: Path, call: str, after: int) -> None:
    audit = terms(world.bench.add())
    calls = FaultyOs()
    log = await world.log(tmp_path, audit, calls=calls)
    assert await log.publish()
    before, size = log.vkey, log.size
    calls.fail[call], calls.after[call] = EIO, after
    failed = False
    try:
        await log.rotate()
    except (OSError, Unavailable):
        failed = True
    recorded = log.size > size
    calls.fail.clear()
    await world.close(log)
    log = await world.log(tmp_path, audit, register=False)
    recorded = log.size > size
    assert (log.vkey != before) == recorded
    assert recorded or failed
    await world.bench.register(log.origin, log.status().vkeys, log.status().rotation)
    assert await log.publish()
    if not recorded:
        await log.rotate()
        await world.bench.register(log.origin, log.status().vkeys, log.status().rotation)
        assert await log.publish()


async def test_an_export_after_growth_verifies(world: World, tmp_path: Path) -> None:
    log = await world.log(tmp_path / "log", terms(world.bench.add()))
    await grow(log, 0, 300)
    assert await log.publish()
    await write_directory(log.read, tmp_path / "export")

    def read(path: str) -> bytes | None:
        file = tmp_path / "export" / path
        return file.read_bytes() if file.is_file() else None

    report = verify_log(read, Trust(vkey=log.vkey)).report
    assert report.ok, report.as_json()
    assert (tmp_path / "export" / "policy").is_file()
    assert (tmp_path / "export" / "log.mldsa.vkey").is_file()


async def test_an_export_goes_without_bundles_whose_reading_ended_and_no_others(world: World, tmp_path: Path) -> None:
    log = await world.log(tmp_path / "log", terms(world.bench.add()))
    await grow(log, 0, 600)
    assert await log.publish()
    log.minimum = 256
    await write_directory(log.read, tmp_path / "export")
    bundles = sorted(path.name for path in (tmp_path / "export" / "tile" / "entries").iterdir())
    assert bundles == ["001", "002.p"]

    async def holed(path: str) -> bytes | None:
        return None if path == "tile/entries/001" else await log.read(path)

    log.minimum = 0
    with pytest.raises(Unavailable, match="tile/entries/001"):
        await write_directory(holed, tmp_path / "other")
