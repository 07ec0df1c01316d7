"""One suite for what producers hold: the client, over a real Unix socket to the doors, and its in-memory twin."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from folkmoot_core.document import LogReport
from folkmoot_core.entries import Actor, EntryRequest, Payload, new_entry
from folkmoot_core.errors import Conflict, FolkmootError, Invalid, LimitReached, Overloaded, Unauthorized, Unavailable
from folkmoot_core.ledger.envelope import Prepared
from folkmoot_runtime import web
from folkmoot_runtime.ledger.app import Doors
from folkmoot_runtime.ledger.client import InMemoryLedger, LedgerClient
from folkmoot_runtime.ledger.peers import CONDUCTOR, ROUTER, Socket
from folkmoot_runtime.ledger.protocol import protocol
from folkmoot_runtime.ledger.twin import MemoryLog
from folkmoot_runtime.ledger.waiting import Admission
from folkmoot_runtime.trust import Trust

pytestmark = pytest.mark.contract
SERVICE = Actor(kind="service", id="conductor")


def fact(number: int, **data: object) -> EntryRequest:
    return new_entry("session.start", SERVICE, id=f"request-{number}", data=data, now=float(number))


@dataclass
class Served:
    """Doors on a real socket."""

    doors: Doors
    log: MemoryLog
    path: Path
    server: asyncio.Task[None]

    def client(self, timeout: float = 30.0) -> LedgerClient:
        return LedgerClient(f"unix://{self.path}", None, None, timeout)

    async def stop(self) -> None:
        self.server.cancel()
        await asyncio.gather(self.server, return_exceptions=True)


async def serve(directory: Path, producer: str = CONDUCTOR) -> Served:
    doors = Doors(Trust(directory, "folkmoot-acme"))
    log = MemoryLog("acme")
    doors.ledger = log
    socket = Socket(directory / "append.sock", {os.getuid(): producer})
    server = asyncio.create_task(
        web.serve(
            doors.unix(socket),
            uds=str(socket.path),
            http=protocol(lambda body, uid: doors.begin(body, socket.of(uid))),
            proxy_headers=False,
        )
    )
    return Served(doors, log, socket.path, server)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    made = await serve(tmp_path)
    yield made
    await made.stop()


@pytest.fixture(params=["socket", "memory"])
async def ledger(request: pytest.FixtureRequest, served: Served) -> AsyncIterator[LedgerClient | InMemoryLedger]:
    made = served.client() if request.param == "socket" else InMemoryLedger()
    yield made
    await made.aclose()


async def test_receipts_rise_and_repeat(ledger: LedgerClient | InMemoryLedger) -> None:
    first = await ledger.append(fact(1, x=1))
    second = await ledger.append(fact(2))
    assert second.index == first.index + 1
    assert not first.duplicate
    assert len(first.leaf) == 64
    again = await ledger.append(fact(1, x=1).model_copy(update={"time": "2031-01-01T00:00:00Z"}))
    assert again == first.model_copy(update={"duplicate": True})


async def test_an_id_names_one_fact(ledger: LedgerClient | InMemoryLedger) -> None:
    await ledger.append(fact(1, x=1))
    for other in (
        fact(1, x=2),
        fact(1, x=1).model_copy(update={"session": "s"}),
        fact(1, x=1).model_copy(update={"config": "c"}),
    ):
        with pytest.raises(Conflict):
            await ledger.append(other)


async def test_batches_keep_their_order(ledger: LedgerClient | InMemoryLedger) -> None:
    receipts = await ledger.append_many([fact(n) for n in range(5)])
    assert [r.index - receipts[0].index for r in receipts] == list(range(5))
    for wrong in ([], [fact(n) for n in range(201)]):
        with pytest.raises(Invalid):
            await ledger.append_many(wrong)


async def test_payloads_travel(ledger: LedgerClient | InMemoryLedger) -> None:
    request = fact(1).model_copy(update={"payload": Payload(commit="0" * 64, size=3)})
    assert not (await ledger.append(request)).duplicate
    assert (await ledger.append(request)).duplicate


# -- the client alone ---------------------------------------------------------------------------------------------------
class Standing(MemoryLog):
    """A log that says how it stands."""

    frozen = ("", "")

    def status(self) -> LogReport:
        state: Literal["Open", "Frozen"] = "Frozen" if self.frozen[0] else "Open"
        return LogReport(origin=self.origin, size=self.size, state=state, reason=self.frozen[0], message=self.frozen[1])

    async def freeze(self, reason: str, message: str) -> None:
        self.frozen = (reason, message)


async def test_how_the_log_stands_and_freezing_it(served: Served) -> None:
    served.doors.ledger = Standing("acme")  # type: ignore[assignment] - as far as these two routes go
    client = served.client()
    assert (await client.status()).state == "Open"
    frozen = await client.freeze("ForkDetected", "rolled back")
    assert (frozen.state, frozen.reason, frozen.message) == ("Frozen", "ForkDetected", "rolled back")
    assert await client.status() == frozen
    with pytest.raises(Invalid):
        await client.freeze("not a word", "")
    await client.aclose()


async def test_the_router_may_not_ask_how_the_log_stands(tmp_path: Path) -> None:
    served = await serve(tmp_path, ROUTER)
    client = served.client()
    with pytest.raises(Unauthorized):
        await client.status()
    await client.aclose()
    await served.stop()


class Refusing(MemoryLog):
    """Refuses some appends before it takes them."""

    def __init__(self, *errors: FolkmootError) -> None:
        super().__init__()
        self.errors = list(errors)
        self.asked: list[str] = []

    def admit(self, prepared: Sequence[Prepared]) -> Admission:
        self.asked.append(prepared[0].id)
        if self.errors:
            raise self.errors.pop(0)
        return super().admit(prepared)


async def test_what_may_pass_is_tried_again_with_the_same_id(served: Served) -> None:
    log = Refusing(Unavailable("stopping"), Overloaded("busy", retry_after=0), Unavailable("stopping"))
    served.doors.ledger = log
    client = served.client()
    assert (await client.append(fact(1))).index == 1
    assert log.asked == ["request-1"] * 4
    await client.aclose()


@pytest.mark.parametrize("kind", [Conflict, Invalid, Unauthorized, LimitReached])
async def test_what_stays_wrong_is_raised_at_once(served: Served, kind: type[FolkmootError]) -> None:
    log = Refusing(kind("no", reason="Because"))
    served.doors.ledger = log
    client = served.client()
    with pytest.raises(kind) as raised:
        await client.append(fact(1))
    assert raised.value.reason == "Because"
    assert len(log.asked) == 1
    await client.aclose()


async def test_a_ledger_that_comes_up_late_is_waited_for(tmp_path: Path) -> None:
    client = LedgerClient(f"unix://{tmp_path}/append.sock", None, None, 30.0)
    appending = asyncio.create_task(client.append(fact(1)))
    await asyncio.sleep(0)
    served = await serve(tmp_path)
    assert (await appending).index == 1
    await client.aclose()
    await served.stop()


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b"null", b'{"index":"first","leaf":""}', b"\xff"])
async def test_an_answer_that_is_no_receipt_is_not_believed(tmp_path: Path, answer: bytes) -> None:
    async def liar(_: Request) -> Response:
        return Response(answer)

    path = tmp_path / "liar.sock"
    app = web.app([Route("/v1/entries", liar, methods=["POST"]), Route("/v1/close", liar, methods=["POST"])], ready=lambda: True)
    server = asyncio.create_task(web.serve(app, uds=str(path)))
    client = LedgerClient(f"unix://{path}", None, None, 30.0)
    for ask in (client.append(fact(1)), client.append_many([fact(1)]), client.close_log()):
        with pytest.raises(Unavailable, match="something else than a"):
            await ask
    await client.aclose()
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)


async def test_only_a_conductor_closes(tmp_path: Path) -> None:
    for producer in (ROUTER, CONDUCTOR):
        directory = tmp_path / producer.replace("/", "-")
        directory.mkdir()
        served = await serve(directory, producer)
        client = served.client()
        if producer == ROUTER:
            with pytest.raises(Unauthorized):
                await client.close_log()
        else:
            assert await client.close_log() == 2
            assert await client.read("tile/0/000.p/2") is not None
            assert await client.read("tile/0/001.p/2") is None
        await client.aclose()
        await served.stop()


async def test_a_url_without_trust_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="https"):
        await LedgerClient("https://core:8445", None, None, 1.0).append(fact(1))
