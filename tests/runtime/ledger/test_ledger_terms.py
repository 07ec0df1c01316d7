"""How a log learns its terms, what it keeps of them, and how the broker's words are told from a witness's. Over a fake peer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from witness_bench import Bench, terms

from folkmoot_core.document import AuditEntry
from folkmoot_core.errors import Invalid, Unavailable
from folkmoot_runtime.document import POLL_SECONDS
from folkmoot_runtime.durable import RealOs
from folkmoot_runtime.ledger.faults import EIO, ENOSPC, FaultyOs
from folkmoot_runtime.ledger.terms import BrokerTransport, Terms

pytestmark = pytest.mark.looptime


@dataclass
class FakePeer:
    """Answers in order, the last one for ever; `asked` has what it was asked."""

    answers: list[httpx2.Response | Unavailable]
    asked: list[tuple[str, str, bytes | None, dict[str, str]]] = field(default_factory=list)

    async def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        self.asked.append((method, path, body, headers or {}))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    async def aclose(self) -> None:
        """Nothing to close."""


@dataclass
class Follower:
    """A log, as far as terms go. `refuse`: the terms cannot be used."""

    seen: list[AuditEntry] = field(default_factory=list)
    refuse: bool = False

    def follow(self, audit: AuditEntry) -> None:
        if self.refuse:
            raise Invalid("a key is none")
        self.seen.append(audit)


def document(audit: AuditEntry, tenant: str = "acme", etag: str = '"one"') -> httpx2.Response:
    content = json.dumps({"tenant": tenant, "audit": audit.model_dump(), "and": "more"}).encode()
    return httpx2.Response(200, content=content, headers={"ETag": etag})


async def followed(peer: FakePeer, path: Path, follower: Follower, rounds: int, calls: RealOs | None = None) -> Terms:
    followed = Terms(peer, calls or RealOs(), path, "acme")  # type: ignore[arg-type]
    followed.load()
    task = asyncio.create_task(followed.follow_forever(follower))
    await asyncio.sleep(rounds * POLL_SECONDS)
    task.cancel()
    await asyncio.wait([task])
    return followed


async def test_terms_are_asked_kept_and_known_without_anybody_at_the_next_start(tmp_path: Path) -> None:
    audit = terms(Bench(lambda: 0.0).add())
    peer, follower = FakePeer([document(audit), httpx2.Response(304)]), Follower()
    await followed(peer, tmp_path / "audit.json", follower, 2)
    assert follower.seen == [audit]
    assert peer.asked[1][3] == {"If-None-Match": '"one"'}
    away, again = FakePeer([Unavailable("nobody there")]), Follower()
    await followed(away, tmp_path / "audit.json", again, 2)
    assert again.seen == [audit]


@pytest.mark.parametrize(
    "answer",
    [
        Unavailable("nobody there"), httpx2.Response(503), httpx2.Response(200, content=b"\xff"), httpx2.Response(200, content=b"{}"),
        document(AuditEntry(), tenant="globex"), httpx2.Response(200, content=b'{"tenant":"acme","audit":{"anchor_entries":"x"}}'),
    ],
)  # fmt: skip
async def test_nonsense_changes_nothing(tmp_path: Path, answer: httpx2.Response | Unavailable) -> None:
    audit = terms(Bench(lambda: 0.0).add())
    follower = Follower()
    found = await followed(FakePeer([document(audit), answer]), tmp_path / "audit.json", follower, 2)
    assert follower.seen == [audit]
    assert found.current == audit


async def test_terms_that_the_log_cannot_use_do_not_end_the_following(tmp_path: Path) -> None:
    follower = Follower(refuse=True)
    peer = FakePeer([document(AuditEntry(anchor_entries=5)), document(AuditEntry(anchor_entries=7), etag='"two"')])
    await followed(peer, tmp_path / "audit.json", follower, 2)
    assert len(peer.asked) >= 2


async def test_a_torn_copy_is_asked_for_again(tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_bytes(b'{"anch')
    follower = Follower()
    await followed(FakePeer([document(AuditEntry())]), tmp_path / "audit.json", follower, 1)
    assert follower.seen == [AuditEntry()]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"{}", r"\(502\)$"), (b"\xff", r"\(502\)$"), (b"[]", r"\(502\)$"), (b'{"detail":"no way"}', r"\(502\): no way$")],
)
async def test_the_brokers_own_refusal_is_no_answer_of_a_witness(content: bytes, sentence: str) -> None:
    problem = httpx2.Response(502, content=content, headers={"Content-Type": "application/problem+json"})
    transport = BrokerTransport(FakePeer([problem]))  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match=sentence):
        await transport.add_checkpoint("cluster", b"old 0\n")


async def test_a_witnesss_answer_passes_as_it_is() -> None:
    peer = FakePeer([httpx2.Response(409, content=b"7\n", headers={"Content-Type": "text/x.tlog.size"})])
    answer = await BrokerTransport(peer).add_checkpoint("cluster", b"old 0\n")  # type: ignore[arg-type]
    assert (answer.status, answer.content_type, answer.body) == (409, "text/x.tlog.size", b"7\n")
    assert peer.asked[0][:3] == ("POST", "/v1/witnesses/cluster/add-checkpoint", b"old 0\n")


@pytest.mark.parametrize("code", [EIO, ENOSPC])
async def test_terms_that_cannot_be_kept_wait_for_room_and_end_nothing(tmp_path: Path, code: int) -> None:
    audit = terms(Bench(lambda: 0.0).add())
    peer, follower = FakePeer([document(audit)]), Follower()
    calls = FaultyOs(fail={"write": code}, times={"write": 2})
    await followed(peer, tmp_path / "audit.json", follower, 3, calls)
    assert follower.seen == [audit]
    assert calls.calls.count("write") == 3
    again = Follower()
    await followed(FakePeer([Unavailable("away")]), tmp_path / "audit.json", again, 1)
    assert again.seen == [audit]
