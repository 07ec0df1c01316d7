"""The two doors: who may append, read and close, and that reading is on record. Log: the in-memory twin."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from folkmoot_core import names
from folkmoot_core.document import LogReport
from folkmoot_core.entries import Actor, EntryRequest, EntryType, new_entry
from folkmoot_core.errors import Invalid, Overloaded
from folkmoot_core.ledger import bundle
from folkmoot_runtime.ledger import debug
from folkmoot_runtime.ledger.app import Doors
from folkmoot_runtime.ledger.log import Options, open_log
from folkmoot_runtime.ledger.peers import CONDUCTOR, PEER, POD, ROUTER, Socket, sockets
from folkmoot_runtime.ledger.twin import MemoryLog
from folkmoot_runtime.trust import Trust

NOW = 1_800_000_000.0
NAMESPACE = "folkmoot-acme"
ISSUER = "https://kubernetes.default.svc"


@dataclass
class Setting:
    """A log behind its doors, and the key that signs the tenant's tokens."""

    doors: Doors
    log: MemoryLog
    key: ec.EllipticCurvePrivateKey
    now: float = NOW

    def tls(self, account: str = "", audience: str = names.AUDIENCE_LEDGER, namespace: str = NAMESPACE) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token(account, audience, namespace)}"} if account else {}
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(self.doors.tls()), base_url="https://ledger", headers=headers)

    def unix(self, uid: int, socket: Socket | None = None) -> httpx2.AsyncClient:
        app = self.doors.unix(socket or Socket(Path("/x"), POD))
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app, client=(PEER, uid)), base_url="http://ledger")

    def token(self, account: str, audience: str, namespace: str) -> str:
        claims = {
            "iss": ISSUER, "aud": [audience], "exp": int(NOW) + 10_000, "sub": f"system:serviceaccount:{namespace}:{account}",
        }  # fmt: skip
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": "one"})

    async def entries(self) -> list[dict[str, Any]]:
        data = await self.log.read(f"tile/entries/000.p/{self.log.size}")
        assert data is not None
        return [json.loads(entry) for entry in bundle.decode(data)]


@pytest.fixture
async def setting(tmp_path: Path) -> Setting:
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [{**jwk, "kid": "one", "alg": "ES256"}]}))
    (tmp_path / "issuer").write_text(ISSUER + "\n")
    made: Setting
    doors = Doors(Trust(tmp_path, NAMESPACE, clock=lambda: made.now), clock=lambda: made.now)
    made = Setting(doors, MemoryLog("acme"), key)
    doors.ledger = made.log
    return made


def fact(number: int, actor: Actor, kind: EntryType = "model.call.intent") -> EntryRequest:
    return new_entry("tool.call.intent" if actor == ANNA else kind, actor, id=f"request-{number}", data={}, now=NOW)


ANNA = Actor(kind="agent", id="anna")
SERVICE = Actor(kind="service", id="broker")


async def post(client: httpx2.AsyncClient, *requests: EntryRequest) -> httpx2.Response:
    if len(requests) == 1:
        return await client.post("/v1/entries", content=requests[0].model_dump_json())
    return await client.post("/v1/entries", content=json.dumps({"entries": [r.model_dump() for r in requests]}))


async def test_a_producer_is_who_its_token_says(setting: Setting) -> None:
    for account, actor, expected in (("agent-anna", ANNA, "agents/anna"), ("broker", SERVICE, "broker")):
        async with setting.tls(account) as client:
            answer = await post(client, fact(1, actor))
        assert answer.status_code == 200
        index = answer.json()["index"]
        assert (await setting.entries())[index]["obs"]["id"] == expected


async def test_a_batch_has_a_receipt_for_each(setting: Setting) -> None:
    async with setting.tls("broker") as client:
        answer = await post(client, fact(1, SERVICE), fact(2, SERVICE), fact(1, SERVICE))
    assert [(r["index"], r["duplicate"]) for r in answer.json()["receipts"]] == [(1, False), (2, False), (1, True)]


@pytest.mark.parametrize(
    ("account", "audience", "namespace", "status"),
    [
        ("", "", "", 401),
        ("broker", "folkmoot-conductor", NAMESPACE, 401),
        ("broker", "folkmoot-ledger", "folkmoot-other", 401),
        ("folkmoot-auditor", "folkmoot-ledger", NAMESPACE, 403),
        ("default", "folkmoot-ledger", NAMESPACE, 403),
        ("agent-bert", "folkmoot-ledger", NAMESPACE, 403),  # claims to act as anna
        ("agent-", "folkmoot-ledger", NAMESPACE, 403),
    ],
)
async def test_others_append_nothing(setting: Setting, account: str, audience: str, namespace: str, status: int) -> None:
    async with setting.tls(account, audience, namespace) as client:
        answer = await post(client, fact(1, ANNA))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert setting.log.size == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"entries":[]}',
        b'{"entries":{}}',
        b"[" * 100_000,
        b'{"id":1}',
        b'{"entries":[{}],"x":1}',
        b"\xff",
    ],
)
async def test_malformed_bodies_are_refused(setting: Setting, body: bytes) -> None:
    async with setting.tls("broker") as client:
        answer = await client.post("/v1/entries", content=body)
    assert answer.status_code == 400
    assert setting.log.size == 1


async def test_a_body_beyond_the_bound_is_refused(setting: Setting) -> None:
    async with setting.tls("broker") as client:
        answer = await client.post("/v1/entries", content=b" " * (10 * 1024 * 1024 + 1))
        too_many = await post(client, *(fact(n, SERVICE) for n in range(201)))
    assert answer.status_code == 429
    assert answer.json()["type"] == "BodyTooLarge"
    assert too_many.status_code == 400


async def test_the_same_id_with_other_content_is_a_conflict(setting: Setting) -> None:
    async with setting.tls("broker") as client:
        await post(client, fact(1, SERVICE))
        other = fact(1, SERVICE).model_copy(update={"session": "other"})
        answer = await post(client, other)
    assert (answer.status_code, answer.json()["type"]) == (409, "IdReused")


async def test_reading_is_on_record_once_a_minute_and_reader(setting: Setting) -> None:
    for account in ("folkmoot-auditor", "folkmoot-owner"):
        async with setting.tls(account) as client:
            for _ in range(3):
                answer = await client.get("/log.vkey")
                assert answer.text.strip() == setting.log.vkey
    setting.now += 60
    async with setting.tls("folkmoot-auditor") as client:
        await client.get("/checkpoint")
    reads = [(e["ce"]["type"], e["actor"]["id"], e["obs"]["id"]) for e in (await setting.entries())[1:]]
    read = "dev.folkmoot.audit.evidence.read.v1"
    assert reads == [(read, f"folkmoot-{who}", "core/ledger") for who in ("auditor", "owner", "auditor")]


async def test_after_a_restart_the_same_minute_is_the_same_entry(setting: Setting) -> None:
    async with setting.tls("folkmoot-auditor") as client:
        await client.get("/checkpoint")
    again = Doors(setting.doors._trust, clock=lambda: setting.now + 1)
    again.ledger = setting.log
    setting.doors = again
    async with setting.tls("folkmoot-auditor") as client:
        assert (await client.get("/checkpoint")).status_code == 200
    assert setting.log.size == 2


async def test_a_closed_log_is_still_read(setting: Setting) -> None:
    await setting.log.close_log()
    async with setting.tls("folkmoot-auditor") as client:
        answer = await client.get("/checkpoint")
    assert answer.status_code == 200
    assert answer.text.split("\n")[1] == "2"


async def test_tiles_and_their_headers(setting: Setting) -> None:
    async with setting.tls("folkmoot-viewer") as client:
        leaf = await client.get("/tile/0/000.p/1")
        missing = await client.get("/tile/0/001")
        wrong = await client.get("/tile/0/1")
        point = await client.get("/checkpoint")
        key = await client.get("/log.key")
    assert (leaf.status_code, len(leaf.content)) == (200, 32)
    assert leaf.headers["content-type"] == "application/octet-stream"
    assert "immutable" in leaf.headers["cache-control"]
    assert (missing.status_code, wrong.status_code, key.status_code) == (404, 400, 404)
    assert point.headers["cache-control"] == "no-cache"
    assert point.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("account", ["broker", "agent-anna", "core", "default"])
async def test_producers_do_not_read(setting: Setting, account: str) -> None:
    async with setting.tls(account) as client:
        for path in ("/checkpoint", "/tile/0/000.p/1", "/tile/entries/000.p/1", "/log.vkey"):
            assert (await client.get(path)).status_code == 403
    assert setting.log.size == 1


async def test_nobody_closes_through_the_tls_door(setting: Setting) -> None:
    for account in ("broker", "folkmoot-owner", "agent-anna"):
        async with setting.tls(account) as client:
            assert (await client.post("/v1/close")).status_code == 404


async def test_the_socket_knows_its_peers_by_uid(setting: Setting) -> None:
    kinds: dict[str, EntryType] = {CONDUCTOR: "session.start", ROUTER: "bus.refused"}
    for uid, expected in ((names.UID_CONDUCTOR, CONDUCTOR), (names.UID_ROUTER, ROUTER)):
        async with setting.unix(uid) as client:
            answer = await post(client, fact(1, SERVICE, kinds[expected]))
            assert (await setting.entries())[answer.json()["index"]]["obs"]["id"] == expected
            assert (await client.get("/checkpoint")).status_code == 200
    for uid in (0, names.UID_BUS, names.UID_BROKER, names.UID_AGENT):
        async with setting.unix(uid) as client:
            assert (await post(client, fact(2, SERVICE))).status_code == 401
            assert (await client.get("/checkpoint")).status_code == 401
            assert (await client.post("/v1/close")).status_code == 401


async def test_an_address_from_the_network_is_no_peer(setting: Setting) -> None:
    app = setting.doors.unix(Socket(Path("/x"), POD))
    transport = httpx2.ASGITransport(app, client=("127.0.0.1", names.UID_CONDUCTOR))
    async with httpx2.AsyncClient(transport=transport, base_url="http://ledger") as client:
        assert (await client.get("/checkpoint")).status_code == 401


async def test_only_the_conductor_closes(setting: Setting) -> None:
    async with setting.unix(names.UID_ROUTER) as client:
        assert (await client.post("/v1/close")).status_code == 403
    async with setting.unix(names.UID_CONDUCTOR) as client:
        assert (await client.post("/v1/close")).json() == {"size": 2}
        assert (await client.post("/v1/close")).json() == {"size": 2}
        refused = await post(client, fact(1, SERVICE, "session.start"))
    assert (refused.status_code, refused.json()["type"]) == (409, "LogClosed")


async def test_before_recovery_the_doors_ask_to_come_back(setting: Setting) -> None:
    setting.doors.ledger = None
    async with setting.unix(names.UID_CONDUCTOR) as client:
        answer = await post(client, fact(1, SERVICE, "session.start"))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        setting.doors.ledger = setting.log
        assert (await client.get("/readyz")).status_code == 503  # no certificate yet
        assert (await post(client, fact(1, SERVICE, "session.start"))).status_code == 200
        setting.doors.certified = True
        assert (await client.get("/readyz")).status_code == 200


class FullLog(MemoryLog):
    """A log whose queue is full."""

    def admit(self, prepared: Any) -> Any:
        raise Overloaded("entries wait", retry_after=1)


async def test_a_full_queue_is_429_with_a_time_to_come_back(setting: Setting) -> None:
    setting.doors.ledger = FullLog()
    async with setting.unix(names.UID_CONDUCTOR) as client:
        answer = await post(client, fact(1, SERVICE, "session.start"))
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["type"]) == (429, "1", "Overloaded")


def test_sockets_come_from_the_environment() -> None:
    (default,) = sockets({})
    assert (str(default.path), default.producers) == (names.LEDGER_SOCKET, POD)
    (moved,) = sockets({"FOLKMOOT_LEDGER_SOCKET": "/tmp/x.sock"})  # noqa: S108
    assert (str(moved.path), moved.producers) == ("/tmp/x.sock", POD)  # noqa: S108
    one, two = sockets({"FOLKMOOT_LEDGER_SOCKETS": "/a/c.sock=core/conductor, /a/r=x.sock=core/router"})
    assert (str(one.path), one.producers) == ("/a/c.sock", {os.getuid(): CONDUCTOR})
    assert (str(two.path), two.producers) == ("/a/r=x.sock", {os.getuid(): ROUTER})
    for wrong in ("/a/c.sock", "/a/c.sock=agents/anna", "=core/router", "/a=core/router,"):
        with pytest.raises(Invalid, match="FOLKMOOT_LEDGER_SOCKETS"):
            sockets({"FOLKMOOT_LEDGER_SOCKETS": wrong})
    with pytest.raises(Invalid, match="107"):
        sockets({"FOLKMOOT_LEDGER_SOCKET": "/" + "x" * 120})


# -- what the conductor alone may ask ---------------------------------------------------------------------------------------


@pytest.fixture
async def controlled(setting: Setting, tmp_path: Path) -> AsyncIterator[Setting]:
    """The doors over a log on a volume."""
    log = await open_log(tmp_path / "log", Options(tenant="acme"))
    setting.doors.ledger = log
    yield setting
    await log.aclose()


@pytest.mark.parametrize("path", ["/v1/freeze", "/v1/rotate", "/v1/anchor", "/v1/close", "/v1/status"])
@pytest.mark.parametrize(("uid", "status"), [(names.UID_ROUTER, 403), (4711, 401)])
async def test_nobody_but_the_conductor_controls_the_log(controlled: Setting, path: str, uid: int, status: int) -> None:
    async with controlled.unix(uid) as client:
        answer = await client.request("GET" if path == "/v1/status" else "POST", path, json={"reason": "X", "message": ""})
    assert answer.status_code == status


async def test_no_token_opens_the_control_routes(controlled: Setting) -> None:
    async with controlled.tls(names.SA_OWNER) as client:
        assert (await client.get("/v1/status")).status_code == 404
        assert (await client.post("/v1/rotate")).status_code == 404


async def test_status_rotation_and_freezing_over_the_socket(controlled: Setting) -> None:
    async with controlled.unix(names.UID_CONDUCTOR) as client:
        before = LogReport.model_validate_json((await client.get("/v1/status")).content)
        assert (before.state, before.size) == ("Open", 1)
        rotated = (await client.post("/v1/rotate")).json()["vkey"]
        assert rotated not in before.vkeys
        assert (await client.post("/v1/freeze", json={"reason": "not a word", "message": ""})).status_code == 400
        frozen = LogReport.model_validate_json(
            (await client.post("/v1/freeze", json={"reason": "ForkDetected", "message": "x"})).content
        )
        assert (frozen.state, frozen.reason, frozen.vkeys[0]) == ("Frozen", "ForkDetected", rotated)
        refused = await client.post("/v1/entries", content=fact(1, SERVICE, "session.start").model_dump_json())
        assert (refused.status_code, refused.json()["type"]) == (503, "LogFrozen")


async def test_a_frozen_log_is_read_although_it_cannot_say_who_read(controlled: Setting) -> None:
    async with controlled.unix(names.UID_CONDUCTOR) as client:
        frozen = LogReport.model_validate_json(
            (await client.post("/v1/freeze", json={"reason": "ForkDetected", "message": "x"})).content
        )
    async with controlled.tls(names.SA_AUDITOR) as client:
        assert (await client.get("/checkpoint")).status_code == 200
    async with controlled.unix(names.UID_CONDUCTOR) as client:
        after = LogReport.model_validate_json((await client.get("/v1/status")).content)
    assert (after.state, after.entries) == ("Frozen", frozen.entries)


async def test_a_receipt_may_wait_for_the_checkpoint(controlled: Setting) -> None:
    async with controlled.unix(names.UID_CONDUCTOR) as client:
        answer = await client.post("/v1/entries?wait=checkpoint", content=fact(1, SERVICE, "session.start").model_dump_json())
        index = answer.json()["index"]
        status = LogReport.model_validate_json((await client.get("/v1/status")).content)
    assert status.size > index


async def test_the_debug_door_adds_leaves_by_their_digest_and_says_so_for_ever(setting: Setting) -> None:
    transport = httpx2.ASGITransport(setting.doors.debug())
    async with httpx2.AsyncClient(transport=transport, base_url="http://ledger") as client:
        assert [(await client.post("/add", content=leaf)).text for leaf in (b"a", b"b", b"a")] == ["1\n", "2\n", "1\n"]
        assert (await client.get("/checkpoint")).status_code == 200
        assert (await client.post("/v1/entries", content=b"{}")).status_code == 404
        assert (await client.post("/add", content=b"x" * (debug.MAX_LEAF + 1))).status_code == 429
    entry = (await setting.entries())[1]
    assert entry["ce"]["type"] == "dev.folkmoot.audit.log.degraded.v1"
    assert entry["data"]["reason"] == "DebugAdd"
    assert "a" not in entry["data"].values()


async def test_no_other_door_adds_leaves(setting: Setting) -> None:
    for client in (setting.tls(names.SA_BROKER), setting.unix(names.UID_CONDUCTOR)):
        async with client:
            assert (await client.post("/add", content=b"a")).status_code == 404
    assert setting.log.size == 1


def test_the_debug_door_is_there_for_a_clear_wish_alone() -> None:
    assert debug.port({}) is None
    assert debug.port({"FOLKMOOT_DEBUG_PORT": "2025"}) is None
    assert debug.port({"FOLKMOOT_DEBUG_ADD": "true", "FOLKMOOT_DEBUG_PORT": "2025"}) == 2025


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"FOLKMOOT_DEBUG_ADD": "1"}, "expected true"),
        ({"FOLKMOOT_DEBUG_ADD": "true"}, "needs a port"),
        ({"FOLKMOOT_DEBUG_ADD": "true", "FOLKMOOT_DEBUG_PORT": "70000"}, "needs a port"),
        ({"FOLKMOOT_DEBUG_ADD": "true", "FOLKMOOT_DEBUG_PORT": "2025", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "in a cluster"),
    ],
)
def test_any_other_wish_for_the_debug_door_is_refused(env: dict[str, str], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        debug.port(env)
