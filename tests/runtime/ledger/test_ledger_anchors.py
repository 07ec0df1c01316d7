"""A log that is timestamped: what is kept and put on record, what happens to bad answers, and that nothing of it is needed to append."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import timestamps
from anchoring import ACTOR, CONDUCTOR, HONEST, START, Authorities, World, authority
from asn1crypto import tsp

from folkmoot_core import names
from folkmoot_core.document import AuditEntry
from folkmoot_core.entries import new_entry
from folkmoot_core.errors import Unavailable
from folkmoot_core.ledger import anchor, anchoring, timestamp, tsa
from folkmoot_runtime.durable import RealOs
from folkmoot_runtime.ledger import anchor_files
from folkmoot_runtime.ledger.anchor_files import AnchorFiles
from folkmoot_runtime.ledger.anchors import RECORD_AFTER, Anchors, BrokerTimestamps, Clocks
from folkmoot_runtime.ledger.app import Doors
from folkmoot_runtime.ledger.interface import OWN, OWN_ACTOR
from folkmoot_runtime.ledger.peers import PEER, POD, Socket
from folkmoot_runtime.ledger.twin import MemoryLog
from folkmoot_runtime.trust import Trust


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(tmp_path).open()
    yield made
    await made.log.aclose()


async def test_a_checkpoint_is_timestamped_kept_and_put_on_record(world: World) -> None:
    await world.look()
    assert world.log.status().unanchored == ""
    (said,) = await world.recorded("anchor")
    stamp = anchor.read(said)
    assert (stamp.size, stamp.authority, stamp.time, stamp.policy) == (1, "honest", "2026-11-27T12:00:00Z", tsa.POLICY)
    assert world.files() == sorted(stamp.paths())
    report = await world.verified({"": world.terms.authorities[0].certificates})  # type: ignore[union-attr]
    assert report.ok
    assert [(one.size, one.pinned) for one in report.anchors] == [(1, True)]
    status = world.log.status()
    assert (status.anchored_size, status.anchored, status.unanchored) == (1, stamp.time, "")


async def test_its_own_entries_and_heartbeats_do_not_make_it_anchor_again(world: World) -> None:
    for _ in range(20):
        await world.log.append([new_entry("heartbeat", OWN_ACTOR, id=f"heartbeat-{world.now}", data={}, now=world.now)], OWN)
        await world.log.publish()
        await world.look(300)
    assert len(world.transport.asked) == 1
    await world.record()
    await world.look()
    assert len(world.transport.asked) == 2
    assert world.log.status().anchored_size == world.log.size - 1


async def test_it_anchors_when_so_many_entries_or_seconds_have_passed(world: World) -> None:
    await world.look()
    await world.record(100)
    await world.look(59)
    assert len(world.transport.asked) == 1
    await world.record(200)
    await world.look()
    assert len(world.transport.asked) == 2
    await world.record()
    await world.look(59)
    assert len(world.transport.asked) == 2
    await world.look(1)
    assert len(world.transport.asked) == 3


SECOND = timestamps.forger(timestamps.Leaf(issuer="Second root", subject="Second"), timestamps.key(6), root=7)


async def test_of_two_authorities_one_may_be_away(tmp_path: Path) -> None:
    world = await World(tmp_path, authority(), authority("second", SECOND)).open()
    world.transport.signers["second"] = SECOND
    world.transport.away = {"second"}
    await world.look()
    assert world.log.status().unanchored == "second: nobody there"
    assert world.log.status().anchored_size == 1
    world.transport.away = set()
    await world.look(demanded=True)
    assert world.log.status().unanchored == ""
    report = await world.verified()
    assert report.ok
    assert sorted((one.size, one.authority) for one in report.anchors) == [(1, "honest"), (2, "honest"), (2, "second")]
    await world.log.aclose()


async def test_a_size_that_was_archived_keeps_its_bytes_for_the_next_authority(tmp_path: Path) -> None:
    world = await World(tmp_path, authority(), authority("second", SECOND)).open()
    world.transport.signers["second"] = SECOND
    world.transport.away = {"second"}
    world.ledger.error = Unavailable("full", reason="VolumeFull")  # no entry, so that the size stays
    await world.look()
    kept = (tmp_path / "checkpoints/1").read_bytes()
    world.log.follow(AuditEntry(anchor_entries=7))
    await world.look()
    assert await world.log.read("checkpoint") != kept  # signed again
    world.transport.away = set()
    await world.look(demanded=True)
    assert (tmp_path / "checkpoints/1").read_bytes() == kept
    world.ledger.error = None
    await world.look()
    report = await world.verified()
    assert report.ok
    assert [(one.size, one.authority) for one in report.anchors] == [(1, "honest"), (1, "second")]
    await world.log.aclose()


LIES = {
    "a web page": (lambda query: b"<!doctype html>", "not the DER of a TimeStampResp"),
    "rejected": (lambda query: tsa.rejection("unaccepted_policy", "no"), "answered rejection"),
    "rogue": (lambda query: timestamps.respond(timestamps.rogue(), query), "another certificate than the pinned one"),
    "mimic": (lambda query: timestamps.respond(timestamps.mimic(), query), "only pinned ones are trusted"),
    "other data": (lambda query: timestamps.respond(HONEST, timestamps.query()), "made over other data"),
    "replayed": (lambda query: timestamps.respond(HONEST, replayed(query)), "its nonce is not the query's"),
    "no policy": (lambda query: under_a_policy_without_end(query), "not strict DER"),
    "huge": (lambda query: b"\0" * (timestamp.MAX_RESPONSE + 1), "at most 65536"),
}


def under_a_policy_without_end(query: bytes) -> bytes:
    asked = tsp.TimeStampReq.load(query)
    fields = {"policy": "1.2" + ".1" * 100, "nonce": asked["nonce"].native, "message_imprint": asked["message_imprint"].copy()}
    return timestamps.token_over(HONEST, fields)


def replayed(query: bytes) -> bytes:
    """The same imprint under the nonce of another query."""
    nonce = timestamp.read_nonce(query)
    size = (nonce.bit_length() + 8) // 8
    return query.replace(nonce.to_bytes(size, "big"), (nonce - 1).to_bytes(size, "big"))


@pytest.mark.parametrize("name", sorted(LIES))
async def test_nothing_is_kept_of_a_bad_answer_and_it_ends_nothing(world: World, name: str) -> None:
    lie, sentence = LIES[name]
    world.transport.responses["honest"] = lie
    await world.look()
    assert world.files() == []
    assert sentence in world.log.status().unanchored
    assert world.log.status().anchored == ""
    await world.record()
    del world.transport.responses["honest"]
    await world.look(anchoring.FIRST_WAIT)
    assert world.log.status().unanchored == ""
    assert (await world.verified()).ok


async def test_a_policy_that_is_pinned_is_asked_for_and_must_be_met(world: World) -> None:
    world.terms = AuditEntry(authorities=(authority().model_copy(update={"policy": "1.2.3"}),))
    await world.look()
    assert "answered rejection (unaccepted_policy)" in world.log.status().unanchored
    world.transport.responses["honest"] = lambda query: timestamps.respond(
        HONEST, timestamp.query(last(world), timestamp.read_nonce(query))
    )
    await world.look(anchoring.FIRST_WAIT)
    assert f"made under policy {tsa.POLICY}; expected 1.2.3" in world.log.status().unanchored
    world.terms = AuditEntry(authorities=(authority().model_copy(update={"policy": tsa.POLICY}),))
    await world.look(demanded=True)
    assert world.log.status().anchored_size == 1


def last(world: World) -> bytes:
    """The published checkpoint."""
    return (world.directory / "checkpoint").read_bytes()


async def test_a_token_whose_certificates_are_out_of_order_is_kept_as_it_came(world: World) -> None:
    """As OpenSSL makes them (ledger.md §3.4): put in order to be read, and kept raw, for its digest is of these bytes."""
    whole = dataclasses.replace(HONEST, whole_chain=True)
    answers = []

    def respond(query: bytes) -> bytes:
        answers.append(timestamps.unsorted(timestamps.respond(whole, query)))
        return answers[-1]

    world.transport.responses["honest"] = respond
    await world.look()
    assert (world.directory / "anchors/1.honest.tsr").read_bytes() == answers[0]
    assert (await world.verified()).ok


async def test_an_outage_is_on_record_once_and_asked_about_ever_more_seldom(world: World) -> None:
    world.transport.status = 503
    for _ in range(200):
        await world.look(5)
    assert len(world.transport.asked) < 12
    assert await world.recorded("anchor.failed") == [
        {"authority": "honest", "reason": "NoToken", "failures": RECORD_AFTER, "size": 1}
    ]
    world.transport.status = 200
    await world.look(anchoring.LONGEST_WAIT)
    assert world.log.status().anchored_size == world.log.size - 1


async def test_certificates_that_cannot_be_used_are_said_and_the_others_go_on(tmp_path: Path) -> None:
    broken = authority("broken").model_copy(update={"certificates": "nothing"})
    world = await World(tmp_path, broken, authority()).open()
    await world.look()
    assert "broken: timestamp authority broken: its certificates are not readable PEM" in world.log.status().unanchored
    assert [name for name, _ in world.transport.asked] == ["honest"]
    await world.log.aclose()


async def test_an_authority_whose_clock_is_far_from_ours_is_kept_and_said(world: World) -> None:
    world.transport.now = lambda: START + 3600
    await world.look()
    assert world.log.status().unanchored == "honest: its clock and ours are 60 minutes apart"
    assert (await world.verified()).ok


async def test_a_new_certificate_leaves_the_old_one_beside_its_tokens(world: World) -> None:
    await world.look()
    renewed = timestamps.forger(timestamps.Leaf(serial=78), timestamps.key(3))
    world.transport.signers["honest"] = renewed
    world.terms = AuditEntry(authorities=(authority("honest", renewed),))
    await world.record()
    await world.look(60)
    assert len([path for path in world.files() if path.endswith(".pem")]) == 2
    for pinned in ({}, {"honest": world.terms.authorities[0].certificates}):
        report = await world.verified(pinned)
        assert report.ok
        assert len(report.anchors) == 2
    world.restart()
    await world.look()
    assert world.log.status().anchored == "2026-11-27T12:01:00Z"


async def running(world: World) -> asyncio.Task[None]:
    task = asyncio.create_task(world.anchors.run())
    await asyncio.sleep(0)
    return task


async def test_a_closed_log_has_its_end_timestamped_without_an_entry(world: World) -> None:
    task = await running(world)
    await world.log.anchor()
    await world.record()
    size = await world.log.close_log()
    assert size == await world.log.close_log() == world.log.size
    report = await world.verified()
    assert report.ok
    assert [one.size for one in report.anchors] == [1, size]
    assert world.log.status().anchored_size == size
    task.cancel()
    await asyncio.wait([task])
    world.restart()
    await world.look(3600)
    assert len(world.transport.asked) == 2
    assert (await world.verified()).ok


async def test_a_closed_logs_end_is_signed_by_each_authority(tmp_path: Path) -> None:
    others = [f"second-{n}" for n in range(3)]
    world = await World(tmp_path, authority(), *(authority(name, SECOND) for name in others)).open()
    world.transport.signers |= dict.fromkeys(others, SECOND)
    task = await running(world)
    await world.log.close_log()
    task.cancel()
    await asyncio.wait([task])
    report = await world.verified()
    assert report.ok
    assert {one.authority for one in report.anchors} == {"honest", *others}
    await world.log.aclose()


async def test_a_demand_is_met_at_once_and_never_awaited_for_ever(world: World) -> None:
    await world.anchors.now(0.01)  # nobody looks
    task = await running(world)
    await world.record()
    await world.log.anchor()
    assert world.log.status().anchored_size == 2
    world.terms, asked = AuditEntry(), len(world.transport.asked)
    await world.log.anchor()
    assert len(world.transport.asked) == asked
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.looptime
async def test_an_authority_that_never_answers_is_given_up(tmp_path: Path) -> None:
    log = MemoryLog("acme", lambda: START)
    transport = Authorities(lambda: START, hang={"honest"})
    terms = AuditEntry(authorities=(authority(),))
    loop = asyncio.get_running_loop()
    clocks = Clocks(lambda: START, loop.time, lambda: 7)
    anchors = Anchors(log, AnchorFiles(tmp_path, RealOs()), transport, lambda: terms, clocks)
    await anchors.look()
    assert anchors.state().unanchored == "honest: no answer within 12 s"


async def test_terms_that_are_not_known_ask_nobody(world: World) -> None:
    world.terms = None
    await world.look(demanded=True)
    world.terms = AuditEntry()
    await world.look(demanded=True)
    assert world.transport.asked == []


async def test_where_reading_has_ended_is_growth(world: World) -> None:
    await world.look()
    await world.record(255)
    world.log.minimum = 256
    world.restart()
    await world.look(60)
    assert len(world.transport.asked) == 2


async def test_a_damaged_archive_is_left_alone_and_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    task = await running(world)
    await world.log.anchor()
    (world.directory / "checkpoints/2").write_bytes(b"nonsense")
    await world.log.publish()
    await world.log.anchor()
    await world.log.anchor()
    assert len([one for one in caplog.records if one.msg == "timestamps wait"]) == 1
    assert "is not of this log's first 2 entries" in world.log.status().unanchored
    assert (world.directory / "checkpoints/2").read_bytes() == b"nonsense"
    await world.record()
    await world.log.anchor()
    assert (world.log.status().anchored_size, world.log.status().unanchored) == (3, "")
    task.cancel()
    await asyncio.wait([task])


async def test_a_kept_token_that_was_damaged_is_said_and_replaced_by_the_next(world: World) -> None:
    await world.look()
    (world.directory / "anchors/1.honest.tsr").write_bytes(b"nonsense")
    world.restart()
    await world.record()
    await world.look()
    assert world.log.status().anchored_size == 3
    report = await world.verified()
    assert not report.ok
    assert [one.size for one in report.anchors] == [3]


def test_old_tokens_are_thinned_out_on_the_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchoring, "ALL", 4)
    monkeypatch.setattr(anchoring, "HOURS", 2)
    monkeypatch.setattr(anchor_files, "SLACK", 3)
    files = AnchorFiles(tmp_path, RealOs())
    files.load()
    for size in range(1, 41):
        stamp = anchor.Stamp(size, "0" * 64, "honest", *[f"sha256:{'0' * 64}"] * 2, "2026-11-27T12:00:00Z", "1.2.3")
        files.keep(stamp, (b"signed", b"response", b"query", b"pem"), size * 1200.0)
    kept = sorted(int(file.name) for file in (tmp_path / "checkpoints").iterdir())
    assert kept[-4:] == [37, 38, 39, 40]
    assert len(kept) <= 4 + 2 + 1 + 3
    assert len(list((tmp_path / "anchors").iterdir())) == 2 * len(kept) + 1
    again = AnchorFiles(tmp_path, RealOs())
    again.load()
    assert again.newest("honest") == 40


async def test_the_files_are_served_at_both_doors_by_their_rules(world: World, tmp_path: Path) -> None:
    await world.look()
    stamp = anchor.read((await world.recorded("anchor"))[0])
    doors = Doors(Trust(tmp_path / "trust", "folkmoot-acme"))
    doors.ledger = world.log
    unix = httpx2.ASGITransport(doors.unix(Socket(Path("/x"), POD)), client=(PEER, names.UID_CONDUCTOR))
    task = await running(world)
    async with httpx2.AsyncClient(transport=unix, base_url="http://ledger") as client:
        for path in stamp.paths():
            answer = await client.get(f"/{path}")
            assert answer.content == (world.directory / path).read_bytes()
            assert "immutable" in answer.headers["Cache-Control"]
        for path in ("checkpoints/2", "anchors/closing.json", "anchors/2.honest.tsr"):
            assert (await client.get(f"/{path}")).status_code == 404
        for path in ("checkpoints/%2e%2e/log.key", "anchors/..%2flog.key", "anchors/x"):
            assert (await client.get(f"/{path}")).status_code == 400
        assert (await client.post("/v1/anchor", content=b"")).json()["anchored_size"] == 2
    task.cancel()
    await asyncio.wait([task])
    tls = httpx2.ASGITransport(doors.tls())
    async with httpx2.AsyncClient(transport=tls, base_url="https://ledger") as client:
        for path in stamp.paths():
            assert (await client.get(f"/{path}")).status_code == 401


@dataclass
class FakePeer:
    answer: httpx2.Response
    asked: tuple[str, str, bytes | None, dict[str, str] | None] = ("", "", None, None)

    async def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        self.asked = (method, path, body, headers)
        return self.answer


async def test_the_brokers_own_word_is_no_answer_of_an_authority() -> None:
    problem = httpx2.Response(502, content=b"{}", headers={"Content-Type": "application/problem+json"})
    with pytest.raises(Unavailable, match="does not reach it"):
        await BrokerTimestamps(FakePeer(problem)).ask("honest", b"q")  # type: ignore[arg-type]
    peer = FakePeer(httpx2.Response(200, content=b"x" * 70_000, headers={"Content-Type": "application/timestamp-reply"}))
    answer = await BrokerTimestamps(peer).ask("honest", b"q")  # type: ignore[arg-type]
    assert (answer.status, len(answer.body)) == (200, timestamp.MAX_RESPONSE + 1)
    assert peer.asked == ("POST", "/v1/timestamps/honest", b"q", {"Content-Type": "application/timestamp-query"})


async def test_a_log_that_takes_appends_is_not_held_up_by_an_authority_that_hangs(world: World) -> None:
    world.transport.hang = {"honest"}
    task = await running(world)
    while not world.transport.asked:
        await asyncio.sleep(0)
    fresh = new_entry("session.start", ACTOR, id="request-meanwhile", data={}, now=world.now)
    assert (await world.log.append([fresh], CONDUCTOR))[0].index == 1
    task.cancel()
    await asyncio.wait([task])
