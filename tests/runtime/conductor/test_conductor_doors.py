"""The two doors as their callers see them: who may do what, artefacts, journal, leases, events, evidence."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from folkmoot_core import names
from folkmoot_core.canonical import commit, digest
from folkmoot_core.document import TenantDocument
from folkmoot_core.errors import Unavailable
from folkmoot_core.workspace import StepRecord

pytestmark = pytest.mark.looptime
KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER = "https://kubernetes.default.svc"


def token(world: Any, account: str, audience: str = names.AUDIENCE_CONDUCTOR, namespace: str = "folkmoot-acme") -> str:
    claims = {
        "iss": ISSUER,
        "aud": [audience],
        "sub": f"system:serviceaccount:{namespace}:{account}",
        "exp": int(world.clock()) + 600,
    }
    return jwt.encode(claims, KEY, algorithm="ES256", headers={"kid": "k1"})


def as_(world: Any, account: str, **kwargs: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(world, account, **kwargs)}"}


@asynccontextmanager
async def doors(world: Any) -> AsyncIterator[tuple[Any, httpx2.AsyncClient, httpx2.AsyncClient]]:
    """A running conductor, its service door and its operator door."""
    trust = world.directory / "trust"
    trust.mkdir(exist_ok=True)
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key()))
    (trust / "jwks.json").write_text(json.dumps({"keys": [{**public, "kid": "k1"}]}))
    (trust / "issuer").write_text(ISSUER)
    async with world.running() as conductor:
        service = httpx2.ASGITransport(conductor.service_door())
        operator = httpx2.ASGITransport(conductor.operator_door())
        async with (
            httpx2.AsyncClient(transport=service, base_url="https://core:8443") as people,
            httpx2.AsyncClient(transport=operator, base_url="https://core:8444") as kubernetes,
        ):
            yield conductor, people, kubernetes


async def test_the_operators_road(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, _, operator):
        document = make.document()
        answer = await operator.put("/operator/v1/document", content=document.model_dump_json())
        assert answer.json() == {"digest": document.digest()}
        accepted = await operator.put(f"/operator/v1/sessions/{make.uid}", content=make.order().model_dump_json())
        assert accepted.json()["phase"] == "Pending"
        listed = (await operator.get("/operator/v1/sessions")).json()["sessions"]
        assert [s["name"] for s in listed] == ["review"]
        await world.ended(conductor)
        assert (await operator.get("/operator/v1/sessions")).json() == {"sessions": []}
        assert (await operator.delete(f"/operator/v1/sessions/{make.uid}")).json()["phase"] == "Succeeded"
        assert (await operator.delete("/operator/v1/sessions/99999999-none")).status_code == 404
        sealed = await operator.post("/operator/v1/seal")
        assert sealed.json() == {"size": world.ledger.log.size}
        late = await operator.put("/operator/v1/sessions/late-session", content=make.order("late-session").model_dump_json())
        assert (late.status_code, late.json()["type"]) == (409, "Sealed")


async def test_the_operators_door_refuses_what_does_not_fit(world: Any, make: Any) -> None:
    async with doors(world) as (_, _, operator):
        other = make.document().model_copy(update={"tenant": "beta"})
        assert (await operator.put("/operator/v1/document", content=other.model_dump_json())).status_code == 400
        assert (await operator.put("/operator/v1/document", content=b"{}")).status_code == 400
        moved = await operator.put("/operator/v1/sessions/another-uid", content=make.order().model_dump_json())
        assert moved.status_code == 400
        assert make.uid in moved.json()["detail"]


async def test_the_document_and_its_etag(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client, _):
        early = await client.get("/v1/document", headers=as_(world, "broker"))
        assert (early.status_code, early.headers["retry-after"]) == (503, "2")
        document = make.document()
        await conductor.documents.put(document)
        for account in ("broker", "core"):
            whole = await client.get("/v1/document", headers=as_(world, account))
            assert TenantDocument.model_validate_json(whole.content) == document
            assert whole.headers["etag"] == f'"{document.digest()}"'
        mine = await client.get("/v1/document", headers=as_(world, "agent-ana"))
        assert "prompt of ana" in mine.text
        assert "prompt of ben" not in mine.text
        assert mine.headers["etag"] == f'"{document.digest()}"'
        same = await client.get("/v1/document", headers={**as_(world, "agent-ana"), "If-None-Match": mine.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        await conductor.documents.put(make.document(agents=("ana",)))
        new = await client.get("/v1/document", headers={**as_(world, "agent-ana"), "If-None-Match": mine.headers["etag"]})
        assert new.status_code == 200


async def test_an_agent_made_again_as_somebody_else_gets_no_entry_and_is_reported(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client, _):
        document = make.document()
        await conductor.documents.put(document)
        first = next(a for a in document.agents if a.name == "ana")
        ask = f"/v1/document?bound={first.identity.commitment}&key=k"
        assert '"ana"' in (await client.get(ask, headers=as_(world, "agent-ana"))).text
        other = first.model_copy(
            update={"identity": first.identity.model_copy(update={"seed": "cd" * 32, "commitment": "ef" * 32})}
        )
        agents = tuple(other if a.name == "ana" else a for a in document.agents)
        await conductor.documents.put(document.model_copy(update={"agents": agents, "generation": document.generation + 1}))
        for claims in ("", "ef" * 32):  # what it says it has bound changes nothing
            mine = TenantDocument.model_validate_json(
                (await client.get(f"/v1/document?bound={claims}", headers=as_(world, "agent-ana"))).content
            )
            assert [a.name for a in mine.agents if a.name == "ana"] == []
        assert conductor.presence.report("ana", "ef" * 32).bound_seed == first.identity.seed
        theirs = TenantDocument.model_validate_json((await client.get("/v1/document", headers=as_(world, "broker"))).content)
        assert "ana" in [a.name for a in theirs.agents]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/document", {"broker", "core", "agent-ana"}),
        ("PUT", "/v1/artifacts", {"broker", "agent-ana"}),
        ("GET", f"/v1/artifacts/sha256:{'0' * 64}", {"broker", "agent-ana", "folkmoot-owner"}),
        ("GET", f"/v1/tasks/{quote('some-session/need', safe='')}/steps", {"agent-ana"}),
        ("PUT", f"/v1/tasks/{quote('some-session/need', safe='')}/steps/0", {"agent-ana"}),
        ("POST", "/v1/leases", {"agent-ana"}),
        ("POST", "/v1/sessions", {"folkmoot-owner"}),
        ("GET", "/v1/sessions", {"folkmoot-owner", "folkmoot-viewer"}),
        ("GET", "/v1/sessions/x", {"folkmoot-owner", "folkmoot-viewer"}),
        ("GET", "/v1/sessions/x/events", {"folkmoot-owner", "folkmoot-viewer"}),
        ("GET", "/v1/evidence", {"folkmoot-owner", "folkmoot-auditor"}),
    ],
)
async def test_who_may_do_what(world: Any, method: str, path: str, allowed: set[str]) -> None:
    accounts = ["broker", "core", "agent-ana", "folkmoot-owner", "folkmoot-viewer", "folkmoot-auditor", "default", "agent-"]
    async with doors(world) as (_, client, _):
        for account in accounts:
            answer = await client.request(method, path, headers=as_(world, account))
            assert (answer.status_code != 403) == (account in allowed), (account, answer.text)
        for headers in ({}, as_(world, "broker", audience="folkmoot-bus"), as_(world, "broker", namespace="folkmoot-beta")):
            assert (await client.request(method, path, headers=headers)).status_code == 401


async def test_artefacts(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client, _):
        await open_task(world, conductor, make)
        agent, path = as_(world, "agent-ana"), f"/v1/artifacts?session={make.uid}"
        for _ in range(2):
            put = await client.put(path, content=b"hello", headers=agent)
            assert put.json() == {"digest": digest(b"hello")}
        assert (await client.get(f"/v1/artifacts/{digest(b'hello')}", headers=agent)).content == b"hello"
        assert (await client.get(f"/v1/artifacts/{digest(b'other')}", headers=agent)).status_code == 404
        for bad in ("sha256:..", "md5:00", f"sha256:{'0' * 63}/", f"sha256:{'A' * 64}"):
            assert (await client.get(f"/v1/artifacts/{quote(bad, safe='')}", headers=agent)).status_code in (307, 400, 404)
        large = await client.put(path, content=b"x" * (10 * 1024 * 1024 + 1), headers=agent)
        assert large.status_code == 429
        assert (await client.put("/v1/artifacts", content=b"whose?", headers=agent)).status_code == 400
        assert (await client.put(path, content=b"not mine", headers=as_(world, "agent-ben"))).status_code == 403
        await conductor.sessions.cancel(make.uid)  # what a tool said is recorded all the same
        assert (await client.put(path, content=b"late", headers=agent)).status_code == 200
        assert (await client.put("/v1/artifacts?session=nobody", content=b"", headers=as_(world, "broker"))).status_code == 404


async def open_task(world: Any, conductor: Any, make: Any) -> str:
    for name in make.agents:
        world.replies[name] = lambda task: None
    await conductor.documents.put(make.document())
    await conductor.sessions.accept(make.order(kind="Agent", target="ana"))
    await world.until(lambda: world.agents["ana"].worked)
    return f"{make.uid}/answer"


def step(n: int, state: str = "started", **fields: Any) -> StepRecord:
    return StepRecord.model_validate({"step": n, "call_id": f"c{n}", "tool": "bash", "state": state, **fields})


async def test_the_journal_of_tool_calls(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client, _):
        task = await open_task(world, conductor, make)
        base, ana = f"/v1/tasks/{quote(task, safe='')}/steps", as_(world, "agent-ana")

        async def put(record: StepRecord, place: int | None = None, headers: Any = ana) -> int:
            n = record.step if place is None else place
            return (await client.put(f"{base}/{n}", content=record.model_dump_json(), headers=headers)).status_code

        assert [await put(step(n)) for n in (1, 0)] == [204, 204]
        assert await put(step(0, "done", text="out")) == 204
        assert await put(step(0, "done", text="out")) == 204  # said again
        assert await put(step(0, "done", text="other")) == 409
        assert await put(step(0)) == 409
        assert await put(step(1, "interrupted", call_id="another")) == 409
        assert await put(step(1, "interrupted")) == 204
        assert await put(step(2), place=3) == 400
        assert await put(step(2, workspace="sha256:" + "0" * 64)) == 404
        assert await put(step(2), headers=as_(world, "agent-ben")) == 403
        found = (await client.get(base, headers=ana)).json()
        assert [(s["step"], s["state"]) for s in found] == [(0, "done"), (1, "interrupted")]
        assert (await client.get(base, headers=as_(world, "agent-ben"))).status_code == 403
        unknown = f"/v1/tasks/{quote(make.uid + '/none', safe='')}/steps"
        assert (await client.get(unknown, headers=ana)).status_code == 404
    async with doors(world) as (conductor, client, _):  # after a restart it is all there
        assert len((await client.get(base, headers=ana)).json()) == 2
        await conductor.sessions.cancel(make.uid)
        assert await _status(client.get(base, headers=ana)) == 404


async def _status(call: Any) -> int:
    return int((await call).status_code)


async def test_leases_rise_and_belong_to_who_works(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client, _):
        await open_task(world, conductor, make)

        async def lease(account: str, session: str) -> httpx2.Response:
            return await client.post("/v1/leases", json={"session": session}, headers=as_(world, account))

        first, second = (await lease("agent-ana", make.uid)).json(), (await lease("agent-ana", make.uid)).json()
        assert (first["fence"], second["fence"]) == (1, 2)
        assert first["nonce"] != second["nonce"]
        assert first["endpoint"] == "http://127.0.0.1:9"
        assert (await lease("agent-ben", make.uid)).status_code == 403
        assert (await lease("agent-ana", "99999999-none")).status_code == 404
        await conductor.sessions.accept(make.order("second-session", "second", "Agent", "ana"))
        await world.until(lambda: len(world.agents["ana"].worked) == 2)
        busy = await lease("agent-ana", "second-session")
        assert (busy.status_code, busy.json()["type"]) == (503, "SandboxBusy")
        await conductor.sessions.cancel(make.uid)
        assert (await lease("agent-ana", "second-session")).json()["fence"] == 3
        await conductor.sessions.accept(make.order("third-session", "third", "Agent", "ben"))
        await world.until(lambda: world.agents["ben"].worked)
        assert (await lease("agent-ben", "third-session")).json()["endpoint"] == "http://sandbox-ben:8080"


async def test_sessions_given_by_the_owner(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client, _):
        await conductor.documents.put(make.document())
        owner, viewer = as_(world, "folkmoot-owner"), as_(world, "folkmoot-viewer")
        given = await client.post("/v1/sessions", content=make.order().model_dump_json(), headers=owner)
        again = await client.post("/v1/sessions", content=make.order().model_dump_json(), headers=owner)
        assert (given.status_code, given.json()["uid"]) == (201, again.json()["uid"])
        assert given.json()["uid"] != make.uid
        await world.ended(conductor)
        assert (await client.get("/v1/sessions/review", headers=viewer)).json()["phase"] == "Succeeded"
        assert [s["name"] for s in (await client.get("/v1/sessions", headers=viewer)).json()["sessions"]] == ["review"]
        assert (await client.get("/v1/sessions/none", headers=viewer)).status_code == 404
        assert conductor.sessions.open_reports() == []
    assert not any(report.sessions for report in world.operator.reports)


class Stream:
    """A live GET on an ASGI app, chunk by chunk (httpx2's transport would wait for the end)."""

    def __init__(self, app: Any, path: str, headers: dict[str, str]) -> None:
        self.chunks: list[str] = []
        self.ended = asyncio.Event()
        self.status = 0
        self._gone = asyncio.Event()
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "GET", "scheme": "https",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "server": ("core", 8443), "client": None,
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        }  # fmt: skip
        self._sent = False
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            return
        if event.get("body"):
            self.chunks.append(event["body"].decode())
        if not event.get("more_body"):
            self.ended.set()

    def events(self) -> list[dict[str, Any]]:
        lines = [line for chunk in self.chunks for line in chunk.splitlines()]
        return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]

    async def close(self) -> None:
        self._gone.set()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_events_are_followed_live_and_end(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, _, _):
        await open_task(world, conductor, make)
        stream = Stream(conductor.service_door(), "/v1/sessions/review/events", as_(world, "folkmoot-viewer"))
        await world.until(lambda: stream.events() and stream.events()[-1]["type"] == "task.sent")
        assert not stream.ended.is_set()
        await asyncio.sleep(40)
        assert [chunk for chunk in stream.chunks if chunk.startswith(":")] == [": waiting\n\n"] * 2
        await conductor.sessions.cancel(make.uid)
        await asyncio.wait_for(stream.ended.wait(), 5)
        events = stream.events()
        assert [e["n"] for e in events] == list(range(1, len(events) + 1))
        assert (events[-1]["type"], events[-1]["phase"]) == ("session.phase", "Cancelled")
        assert stream.chunks[0].startswith("id: 1\nevent: session.accepted\ndata: {")
        await stream.close()


async def test_events_are_resumed_without_loss(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client, _):
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        await world.ended(conductor)
        viewer, path = as_(world, "folkmoot-viewer"), "/v1/sessions/review/events"
        whole = (await client.get(path, headers=viewer)).text.split("\n\n")[:-1]
        for last in range(len(whole) + 2):
            rest = (await client.get(path, headers={**viewer, "Last-Event-ID": str(last)})).text.split("\n\n")[:-1]
            assert rest == whole[last:]
        for bad in ("x", "-1", "1" * 30, "²"):
            odd = await client.get(path, headers={**viewer, "Last-Event-ID": bad.encode()})  # type: ignore[dict-item]
            assert odd.status_code == 400
        results = [json.loads(e.split("data: ")[1]) for e in whole if "event: task.result" in e]
        assert {(r["agent"], r["model"], r["preview"]) for r in results} >= {("ana", "claude-sonnet-5-5", "plan done")}
        assert results[0]["usage"] == {"input_tokens": 7, "output_tokens": 3, "cached_input_tokens": 0}
        assert results[0]["time"].endswith("Z")


async def test_evidence_waits_for_its_record_unless_the_log_can_take_none(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client, _):
        await conductor.documents.put(make.document())
        world.ledger.failing = Unavailable("the log is frozen", reason="LogFrozen")
        auditor = as_(world, "folkmoot-auditor")
        refused = await client.get("/v1/evidence", headers=auditor)
        assert refused.status_code == 503
        world.ledger.failing = None
        await world.ledger.freeze("ForkDetected", "another history")
        assert (await client.get("/v1/evidence", headers=as_(world, "folkmoot-auditor"))).status_code == 200


async def test_the_evidence_is_a_tar_that_opens_every_commitment(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client, operator):
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order())
        await world.ended(conductor)
        theirs = await client.get("/v1/evidence", headers=as_(world, "folkmoot-auditor"))
        ours = await operator.get("/operator/v1/evidence")
    assert theirs.content == ours.content
    assert b"dev.folkmoot.audit.evidence.exported.v1" in ours.content  # who took a copy is in the copy
    with tarfile.open(fileobj=io.BytesIO(ours.content)) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
    assert {"checkpoint", "log.vkey", "artifacts/openings.jsonl"} <= set(files)
    openings = [json.loads(line) for line in files["artifacts/openings.jsonl"].splitlines()]
    assert openings
    for opening in openings:
        content = files["artifacts/" + opening["digest"].removeprefix("sha256:")]
        assert commit(bytes.fromhex(opening["salt"]), content) == opening["commit"]


# -- the log ------------------------------------------------------------------------------------------------------------


async def test_the_log_is_controlled_on_record(world: Any) -> None:
    async with doors(world) as (_, people, _):
        before = (await people.get("/v1/log", headers=as_(world, "folkmoot-auditor"))).json()
        rotated = (await people.post("/v1/log/rotate", headers=as_(world, "folkmoot-owner"))).json()
        anchored = await people.post("/v1/log/anchor", headers=as_(world, "folkmoot-auditor"))
        assert rotated["vkeys"] != before["vkeys"]
        assert (anchored.status_code, anchored.json()["size"]) == (200, anchored.json()["entries"])
    asked = [entry for entry in world.ledger.entries.values() if entry.type == "log.control"]
    assert [(entry.data, entry.actor.kind) for entry in asked] == [
        ({"act": "rotate", "by": "folkmoot-owner"}, "human"), ({"act": "anchor", "by": "folkmoot-auditor"}, "human")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("account", "method", "path"),
    [
        ("folkmoot-auditor", "POST", "rotate"), ("folkmoot-viewer", "POST", "rotate"), ("folkmoot-viewer", "POST", "anchor"),
        ("folkmoot-viewer", "GET", ""), ("folkmoot-agent-ana", "POST", "anchor"),
    ],
)  # fmt: skip
async def test_who_may_not_control_the_log_leaves_no_entry(world: Any, account: str, method: str, path: str) -> None:
    async with doors(world) as (_, people, _):
        answer = await people.request(method, f"/v1/log/{path}".rstrip("/"), headers=as_(world, account))
        assert answer.status_code == 403
    assert not [entry for entry in world.ledger.entries.values() if entry.type == "log.control"]


async def test_without_a_receipt_nothing_is_exchanged(world: Any) -> None:
    async with doors(world) as (_, people, _):
        vkey = world.ledger.log.vkey
        world.ledger.failing = Unavailable("away")
        answer = await people.post("/v1/log/rotate", headers=as_(world, "folkmoot-owner"))
        assert (answer.status_code, "nothing is done" in answer.json()["detail"]) == (503, True)
        assert world.ledger.log.vkey == vkey
