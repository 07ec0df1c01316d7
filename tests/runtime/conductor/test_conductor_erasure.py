"""The erasure drill: what was said is gone from every file, what was recorded is all still there, and nothing in between."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from folkmoot_core import names
from folkmoot_core.canonical import commit
from folkmoot_core.errors import Conflict, Missing, Unavailable
from folkmoot_core.ledger import bundle
from folkmoot_core.ledger.audit import Trust, verify_log
from folkmoot_core.privacy import ErasureRequest, HoldRequest
from folkmoot_runtime.conductor.erasure import BrokerCalls
from folkmoot_runtime.conductor.store import SCHEMA_VERSION, InlineExecutor, Store

pytestmark = pytest.mark.looptime
KEY = ec.generate_private_key(ec.SECP256R1())
CANARY = "canary-4711-of-somebody"
OTHER = "wholly-unrelated-0815"
SUBJECT = "case-4711"
BASIS = "GDPR Art. 17(1)(b), request 12"


def as_(world: Any, account: str, **kwargs: Any) -> dict[str, str]:
    claims = {
        "iss": "https://kubernetes.default.svc", "aud": [kwargs.get("audience", names.AUDIENCE_CONDUCTOR)],
        "sub": f"system:serviceaccount:folkmoot-acme:{account}", "exp": int(world.clock()) + 600,
    }  # fmt: skip
    return {"Authorization": f"Bearer {jwt.encode(claims, KEY, algorithm='ES256', headers={'kid': 'k1'})}"}


@asynccontextmanager
async def doors(world: Any, store: Store | None = None) -> AsyncIterator[tuple[Any, httpx2.AsyncClient]]:
    trust = world.directory / "trust"
    trust.mkdir(exist_ok=True)
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key()))
    (trust / "jwks.json").write_text(json.dumps({"keys": [{**public, "kid": "k1"}]}))
    (trust / "issuer").write_text("https://kubernetes.default.svc")
    async with world.running(store) as conductor:
        transport = httpx2.ASGITransport(conductor.service_door())
        async with httpx2.AsyncClient(transport=transport, base_url="https://core:8443") as client:
            yield conductor, client


def canaries(directory: Path, canary: str = CANARY) -> list[str]:
    """Files below that hold the canary in plain."""
    return [str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file() and canary.encode() in p.read_bytes()]


def sealed(world: Any) -> set[str]:
    return {p.name for p in (world.directory / "sealed").rglob("*") if p.is_file()}


async def decided(world: Any, make: Any, conductor: Any) -> None:
    """Two sessions of a subject and one of nobody's, all full of words."""
    for name in make.agents:
        world.replies[name] = lambda task: {
            **make.say(task), "output": f"{task.kind}: {task.prompt} {CANARY}" if task.output is None else {"vote": CANARY}
        }  # fmt: skip
    await conductor.documents.put(make.document())
    for uid, name in (("11111111-aaaa", "first"), ("22222222-aaaa", "second")):
        await conductor.sessions.accept(make.order(uid, name, task=f"Look at {CANARY}.", subject=SUBJECT))
        await world.ended(conductor, name)
    for name in make.agents:
        world.replies[name] = lambda task: {
            **make.say(task), "output": f"{task.kind} {OTHER}" if task.output is None else {"vote": OTHER}
        }  # fmt: skip
    await conductor.sessions.accept(make.order("33333333-aaaa", "other", task=f"Look at {OTHER}."))
    await world.ended(conductor, "other")


async def exported(world: Any, client: httpx2.AsyncClient) -> dict[str, bytes]:
    content = (await client.get("/v1/evidence", headers=as_(world, "folkmoot-auditor"))).content
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]


def lines(files: dict[str, bytes], name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in files[f"artifacts/{name}.jsonl"].splitlines()]


def entries(world: Any, kind: str, stage: str | None = None) -> list[Any]:
    return [e for e in world.ledger.entries.values() if e.type == kind and stage in (None, e.data.get("stage"))]


async def test_a_subject_is_erased_and_the_log_is_whole(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client):
        await decided(world, make, conductor)
        assert canaries(world.directory)  # the database's working rows; nothing but those
        assert not [name for name in canaries(world.directory) if not name.startswith("conductor.sqlite")]
        before, kept = await exported(world, client), sealed(world)
        size = world.ledger.log.size
        told = await client.post("/v1/erasures", json={"subject": SUBJECT, "basis": BASIS}, headers=as_(world, "folkmoot-owner"))
        erasure = told.json()
        assert (told.status_code, erasure["state"], erasure["sessions"]) == (200, "done", 2)
        after = await exported(world, client)
        await world.until(lambda: "first" in reported(world) and not reported(world)["first"].result_digest)
    # gone, from every file
    assert canaries(world.directory) == []
    assert canaries(world.directory, SUBJECT) == []
    assert canaries(world.directory, OTHER)
    assert len(kept - sealed(world)) == erasure_files(world) > 0
    # the tree is what it was, with two entries more and those about the reads
    report = verify_log(after.get, Trust(vkey=world.ledger.log.vkey)).report
    assert report.ok
    assert verify_log(before.get, Trust(vkey=world.ledger.log.vkey)).report.ok
    assert recorded(after)[: len(recorded(before))] == recorded(before)
    # its entries say what, and are provable as every other
    (intent,), (done,) = entries(world, "erasure", "intent"), entries(world, "erasure", "done")
    assert (intent.data["basis"], intent.data["count"], intent.data["by"]) == (BASIS, erasure["count"], "folkmoot-owner")
    assert erasure["intent"] >= size
    assert done.data["intent"] == erasure["intent"] < erasure["outcome"]
    assert SUBJECT not in json.dumps([e.model_dump() for e in world.ledger.entries.values()])
    # openings: those of the others hold, those of the subject are listed as erased, each with its entry
    openings, erased = lines(after, "openings"), lines(after, "erased")
    assert lines(before, "erased") == []
    assert {o["commit"] for o in lines(before, "openings")} == {o["commit"] for o in openings} | {e["commit"] for e in erased}
    assert len(erased) == erasure["count"] > 0
    assert not {e["commit"] for e in erased} & {o["commit"] for o in openings}
    committed = {e.payload.commit: e for e in world.ledger.entries.values() if e.payload}
    for one in erased:
        assert one["erasure"] == erasure["intent"]
        assert any(first <= one["entry"] <= last for first, last in intent.data["ranges"])
        assert committed[one["commit"]].data["subject_ref"] == erasure["subject_ref"]
    for opening in openings:
        content = after["artifacts/" + opening["digest"].removeprefix("sha256:")]
        assert commit(bytes.fromhex(opening["salt"]), content) == opening["commit"]
    assert not any(CANARY.encode() in content for content in after.values())
    # and the operator is told, so that the status loses its preview
    told_last = reported(world)
    assert (told_last["first"].phase, told_last["first"].result_preview, told_last["first"].result_digest) == (
        "Succeeded",
        "",
        "",
    )
    assert told_last["first"].input_tokens == 21
    assert OTHER in told_last["other"].result_preview


def reported(world: Any) -> dict[str, Any]:
    """What the operator was told last of each session."""
    return {r.name: r for report in world.operator.reports for r in report.sessions}


def recorded(files: dict[str, bytes]) -> list[bytes]:
    """The entries of an exported log."""
    return [entry for path in sorted(files) if path.startswith("tile/entries/") for entry in bundle.decode(files[path])]


def erasure_files(world: Any) -> int:
    (intent,) = entries(world, "erasure", "intent")
    return int(intent.data["files"])


async def test_it_is_gone_for_good_also_for_who_kept_a_copy_of_the_database(world: Any, make: Any, tmp_path: Path) -> None:
    """The wrapped keys of an old copy do not unwrap: their shares are destroyed."""
    async with doors(world) as (conductor, _):
        await decided(world, make, conductor)
        artefacts = await conductor.store.run(lambda db: db.execute("SELECT ref, month FROM data_keys").fetchall())
        wrapped = {row: await conductor.vault.key(*row) for row in artefacts}
        copy = await conductor.store.run(lambda db: db.execute("SELECT ref, month, wrapped FROM data_keys").fetchall())
        erasure = await conductor.erasures.begin(ErasureRequest(subject=SUBJECT, basis=BASIS), "folkmoot-owner")
        assert len(wrapped) == len(copy) == 2
        for ref, month, blob in copy:
            if ref != erasure.subject_ref:
                assert conductor.vault._keyring.unwrap(f"{ref}/{month}", blob)
                continue
            with pytest.raises(Missing, match="gone for good"):
                conductor.vault._keyring.unwrap(f"{ref}/{month}", blob)
            with pytest.raises(Missing):
                await conductor.vault.key(ref, month)


async def test_twice_adds_nothing(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client):
        await decided(world, make, conductor)
        owner = as_(world, "folkmoot-owner")
        ask = {"subject": SUBJECT, "basis": BASIS, "id": "request-0012"}
        first = (await client.post("/v1/erasures", json=ask, headers=owner)).json()
        size = world.ledger.log.size
        assert (await client.post("/v1/erasures", json=ask, headers=owner)).json() == first
        again = await client.post("/v1/erasures", json={"session": "first", "basis": "another"}, headers=owner)
        assert again.json() == first
        gone = await client.post("/v1/erasures", json={"subject": SUBJECT, "basis": BASIS}, headers=owner)
        assert (gone.status_code, gone.json()["type"]) == (404, "NotFound")
        assert world.ledger.log.size == size
        assert (await client.get("/v1/erasures", headers=as_(world, "folkmoot-auditor"))).json() == {"erasures": [first]}
    async with doors(world) as (conductor, client):  # nor does a restart
        await asyncio.sleep(60)
        assert len(entries(world, "erasure")) == 2
        # the order is not taken for a new one, nothing more is stored for it, and the subject may come back as somebody new
        assert (await conductor.sessions.accept(make.order("11111111-aaaa", "first"))).phase == "Succeeded"
        with pytest.raises(Conflict, match="erased"):
            await conductor.artefacts.put("11111111-aaaa", b"late")
        await conductor.sessions.accept(make.order("44444444-aaaa", "third", subject=SUBJECT))
        await world.ended(conductor, "third")
        refs = {e.data["subject_ref"] for e in world.ledger.entries.values() if e.session == "44444444-aaaa" and e.payload}
        assert len(refs) == 1
        assert refs != {first["subject_ref"]}


async def test_the_brokers_part_goes_too_and_the_entry_says_so_only_then(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client):
        await decided(world, make, conductor)
        world.calls.away = True
        begun = await conductor.erasures.begin(ErasureRequest(subject=SUBJECT, basis=BASIS), "folkmoot-owner")
        assert begun.state == "destroyed"
        assert "broker-journal" in begun.not_reached
        assert entries(world, "erasure", "done") == []
    async with doors(world) as (_, client):  # a restart goes on with it
        world.calls.away = False
        await world.until(lambda: entries(world, "erasure", "done"))
        (listed,) = (await client.get("/v1/erasures", headers=as_(world, "folkmoot-auditor"))).json()["erasures"]
    assert sorted(set(world.calls.erased)) == ["11111111-aaaa", "22222222-aaaa"]
    (intent,), (done,) = entries(world, "erasure", "intent"), entries(world, "erasure", "done")
    assert "broker-journal" in intent.data["not_reached"]
    assert done.data["not_reached"] == listed["not_reached"] == ["exports", "backups", "providers"]


async def test_without_a_broker_the_entry_says_that_it_was_not_reached(world: Any, make: Any) -> None:
    world.calls = None
    async with doors(world) as (conductor, _):
        await decided(world, make, conductor)
        told = await conductor.erasures.begin(ErasureRequest(subject=SUBJECT, basis=BASIS), "folkmoot-owner")
    (done,) = entries(world, "erasure", "done")
    assert done.data["not_reached"] == list(told.not_reached)
    assert "broker-journal" in told.not_reached


async def test_a_volume_from_before_brokers_were_asked_is_taken_over(world: Any, make: Any) -> None:
    async with world.running() as conductor:
        await conductor.store.run(lambda db: db.execute("ALTER TABLE erasures DROP COLUMN broker"))
        await conductor.store.run(lambda db: db.execute("PRAGMA user_version = 2"))
    async with doors(world) as (conductor, _):
        await decided(world, make, conductor)
        assert (await conductor.erasures.begin(ErasureRequest(subject=SUBJECT, basis=BASIS), "folkmoot-owner")).state == "done"


async def test_one_session_of_a_subject_leaves_the_other(world: Any, make: Any) -> None:
    """What both have stays for the other one."""
    async with doors(world) as (conductor, client):
        await conductor.documents.put(make.document())
        shared = {"notes": {"a.txt": "c2hhcmVkIGJ5IGJvdGg="}}
        for uid, name, task in (("11111111-aaaa", "first", CANARY), ("22222222-aaaa", "second", OTHER)):
            order = make.order(uid, name, task=task, subject=SUBJECT, inputs=shared,)  # fmt: skip
            await conductor.sessions.accept(order)
            await world.ended(conductor, name)
        told = await conductor.erasures.begin(ErasureRequest(session="first", basis=BASIS), "folkmoot-owner")
        assert (told.state, told.session, told.sessions) == ("done", "11111111-aaaa", 1)
        after = await exported(world, client)
        assert {e["commit"] for e in lines(after, "erased")}
        assert b"shared by both" in after.values()
        assert any(OTHER.encode() in content for content in after.values())
        rest = await conductor.erasures.begin(ErasureRequest(subject=SUBJECT, basis=BASIS), "folkmoot-owner")
        assert (rest.state, rest.sessions) == ("done", 1)
    assert canaries(world.directory) == canaries(world.directory, OTHER) == canaries(world.directory, SUBJECT) == []
    assert sealed(world) == set()


async def test_a_session_that_continues_another_belongs_to_its_subject(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, _):
        await decided(world, make, conductor)
        await conductor.sessions.accept(make.order("44444444-aaaa", "next", "Agent", "ana", continues={"name": "first"}))
        await world.ended(conductor, "next")
        erasure = await conductor.erasures.begin(ErasureRequest(subject=SUBJECT, basis=BASIS), "folkmoot-owner")
        assert erasure.sessions == 3
    assert canaries(world.directory) == []


async def test_what_two_subjects_have_in_common_is_sealed_twice(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, _):
        await conductor.documents.put(make.document())
        for n in (1, 2):
            order = make.order(f"{n}1111111-aaaa", f"s{n}", inputs={"notes": {"a.txt": "Y29tbW9u"}})
            await conductor.sessions.accept(order)
            await world.ended(conductor, f"s{n}")
        await conductor.erasures.begin(ErasureRequest(session="s1", basis=BASIS), "folkmoot-owner")
        (row,) = [a for a in await _artefacts(conductor) if await conductor.artefacts.get(a.digest, a.ref) == b"common"]
        assert (await conductor.sessions.find("s2")).inputs.refs[0].digest == row.digest


async def _artefacts(conductor: Any) -> Any:
    from folkmoot_runtime.conductor import sealed_rows

    return await conductor.store.run(sealed_rows.all_artefacts)


@pytest.mark.parametrize(
    "hold",
    [{"scope": "tenant"}, {"scope": "subject", "subject": SUBJECT}, {"scope": "session", "session": "second"}],
    ids=lambda hold: hold["scope"],
)
async def test_a_legal_hold_blocks_it_until_it_is_released(world: Any, make: Any, hold: dict[str, str]) -> None:
    async with doors(world) as (conductor, client):
        await decided(world, make, conductor)
        owner, auditor = as_(world, "folkmoot-owner"), as_(world, "folkmoot-auditor")
        placed = await client.post("/v1/holds", json={**hold, "reason": "case 2 K 11/26"}, headers=auditor)
        assert (placed.status_code, placed.json()["by"]) == (201, "folkmoot-auditor")
        ask = {"subject": SUBJECT, "basis": BASIS}
        refused = await client.post("/v1/erasures", json=ask, headers=owner)
        assert (refused.status_code, refused.json()["type"]) == (409, "LegalHold")
        world.skipped += 400 * 86400
        await conductor.sessions.tidy()  # nor does the period end for it
        assert await conductor.sessions.report("second")
        assert canaries(world.directory)
        owner, auditor = as_(world, "folkmoot-owner"), as_(world, "folkmoot-auditor")  # the old ones have expired
        released = (await client.delete(f"/v1/holds/{placed.json()['id']}", headers=auditor)).json()
        assert released["released"] is not None
        assert (await client.delete(f"/v1/holds/{placed.json()['id']}", headers=owner)).json() == released
        assert (await client.get("/v1/holds", headers=owner)).json() == {"holds": [released]}
        assert (await client.post("/v1/erasures", json=ask, headers=owner)).json()["state"] == "done"
    assert canaries(world.directory) == []
    assert [e.data["hold"] for e in entries(world, "legal.hold") + entries(world, "legal.hold.released")] == [released["id"]] * 2
    assert SUBJECT not in json.dumps([e.data for e in world.ledger.entries.values()])


async def test_a_hold_on_something_else_does_not_block_it(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, _):
        await decided(world, make, conductor)
        await conductor.holds.place(HoldRequest(scope="session", session="other", reason="r"), "folkmoot-auditor")
        await conductor.erasures.begin(ErasureRequest(subject=SUBJECT, basis=BASIS), "folkmoot-owner")
        with pytest.raises(Conflict, match="forbids"):
            await conductor.erasures.begin(ErasureRequest(session="other", basis=BASIS), "folkmoot-owner")
        with pytest.raises(Conflict, match="too late"):
            await conductor.holds.place(HoldRequest(scope="session", session="first", reason="r"), "folkmoot-auditor")
        with pytest.raises(Missing):
            await conductor.holds.place(HoldRequest(scope="subject", subject=SUBJECT, reason="r"), "folkmoot-auditor")
        with pytest.raises(Missing):
            await conductor.holds.release("no-such-hold", "folkmoot-owner")


async def test_a_hold_whose_entry_is_owed_is_in_force_and_recorded_at_the_next_start(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, _):
        await decided(world, make, conductor)
        world.ledger.failing = Unavailable("away")
        with pytest.raises(Unavailable, match="in force"):
            await conductor.holds.place(HoldRequest(scope="tenant", reason="r", id="hold-0001"), "folkmoot-auditor")
        with pytest.raises(Conflict, match="forbids"):
            await conductor.erasures.begin(ErasureRequest(subject=SUBJECT, basis=BASIS), "folkmoot-owner")
    world.ledger.failing = None
    async with doors(world) as (conductor, _):
        await world.until(lambda: entries(world, "legal.hold"))
        world.ledger.failing = Unavailable("away")
        with pytest.raises(Unavailable):
            await conductor.holds.release("hold-0001", "folkmoot-owner")
        with pytest.raises(Conflict, match="forbids"):  # until its release is on record
            await conductor.erasures.begin(ErasureRequest(subject=SUBJECT, basis=BASIS), "folkmoot-owner")
    world.ledger.failing = None
    async with doors(world) as (conductor, _):
        await world.until(lambda: entries(world, "legal.hold.released"))
        await asyncio.sleep(1)
        assert (await conductor.erasures.begin(ErasureRequest(subject=SUBJECT, basis=BASIS), "o")).state == "done"


async def test_what_runs_is_not_erased(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client):
        for name in make.agents:
            world.replies[name] = lambda task: None
        await conductor.documents.put(make.document())
        await conductor.sessions.accept(make.order(subject=SUBJECT))
        owner = as_(world, "folkmoot-owner")
        refused = await client.post("/v1/erasures", json={"subject": SUBJECT, "basis": BASIS}, headers=owner)
        assert (refused.status_code, refused.json()["type"]) == (409, "SessionOpen")
        await conductor.sessions.cancel(make.uid)
        assert (await client.post("/v1/erasures", json={"subject": SUBJECT, "basis": BASIS}, headers=owner)).status_code == 200


async def test_without_a_receipt_nothing_is_destroyed(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client):
        await decided(world, make, conductor)
        before = sealed(world)
        world.ledger.failing = Unavailable("away")
        told = await client.post("/v1/erasures", json={"subject": SUBJECT, "basis": BASIS}, headers=as_(world, "folkmoot-owner"))
        assert (told.status_code, told.json()["state"]) == (202, "intended")
        assert sealed(world) == before
        assert canaries(world.directory)
        world.ledger.failing = None
        await world.until(lambda: entries(world, "erasure", "done"))
    assert canaries(world.directory) == []


async def test_a_closed_log_takes_no_erasure(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, client):
        await decided(world, make, conductor)
        await conductor.sessions.seal()
        before = sealed(world)
        told = await client.post("/v1/erasures", json={"subject": SUBJECT, "basis": BASIS}, headers=as_(world, "folkmoot-owner"))
        assert (told.status_code, told.json()["type"]) == (409, "LogClosed")
        assert sealed(world) == before
        assert any(CANARY.encode() in content for content in (await exported(world, client)).values())
        assert (await client.get("/v1/erasures", headers=as_(world, "folkmoot-owner"))).json() == {"erasures": []}


async def _erase_once(world: Any, make: Any, store: Any) -> bool:
    """Whether it crashed."""
    try:
        async with world.running(store) as conductor:
            first = asyncio.create_task(
                conductor.erasures.begin(ErasureRequest(subject=SUBJECT, basis=BASIS, id="request-0012"), "folkmoot-owner")
            )
            crashed = asyncio.create_task(store.crashed.wait())
            await asyncio.wait({first, crashed}, return_when=asyncio.FIRST_COMPLETED)
            for task in (first, crashed):
                task.cancel()
            await asyncio.gather(first, crashed, return_exceptions=True)
            return bool(store.crashed.is_set())
    except make.crash:
        return True


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_every_transaction_of_it_may_be_the_last(world: Any, make: Any, tmp_path: Path, after: bool) -> None:
    """One crash per run, at each transaction in turn; then the request is repeated once, and all of it is done, once."""
    states = set()
    for at in range(1, 80):
        again = type(world)(tmp_path / f"{at}")
        async with again.running() as conductor:
            await decided(again, make, conductor)
        crashed = await _erase_once(again, make, again.store(at, after=after))
        if entries(again, "erasure", "done"):
            assert canaries(again.directory) == []
        async with again.running() as conductor:
            if crashed:
                states |= {e.state for e in await conductor.erasures.all()}
            request = ErasureRequest(subject=SUBJECT, basis=BASIS, id="request-0012")
            erasure = await conductor.erasures.begin(request, "folkmoot-owner")
            await asyncio.sleep(40)
            assert (erasure.state, erasure.sessions) == ("done", 2)
            assert [e.data["stage"] for e in entries(again, "erasure")] == ["intent", "done"]
        assert canaries(again.directory) == canaries(again.directory, SUBJECT) == []
        assert canaries(again.directory, OTHER)
        await again.aclose()
        if not crashed:
            break
    else:
        pytest.fail("the erasure never fitted into 80 transactions")
    assert states >= {"intended", "recorded", "destroyed"}


class Stumbling:
    """A keyring whose destruction fails, as a key service that is away does."""

    def __init__(self, ring: Any) -> None:
        self.ring, self.away = ring, True
        self.id = ring.id
        self.wrap, self.unwrap = ring.wrap, ring.unwrap

    def destroy(self, name: str) -> None:
        if self.away:
            raise Unavailable("the key service is away")
        self.ring.destroy(name)


async def test_a_key_service_that_is_away_is_asked_again(world: Any, make: Any) -> None:
    async with doors(world) as (conductor, _):
        await decided(world, make, conductor)
        ring = conductor.vault._ring = Stumbling(conductor.vault._ring)
        waiting = await conductor.erasures.begin(ErasureRequest(subject=SUBJECT, basis=BASIS), "folkmoot-owner")
        assert waiting.state == "recorded"
        ring.away = False
        await world.until(lambda: entries(world, "erasure", "done"))
    assert canaries(world.directory) == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/erasures", {"folkmoot-owner"}),
        ("GET", "/v1/erasures", {"folkmoot-owner", "folkmoot-auditor"}),
        ("POST", "/v1/holds", {"folkmoot-owner", "folkmoot-auditor"}),
        ("GET", "/v1/holds", {"folkmoot-owner", "folkmoot-auditor"}),
        ("DELETE", "/v1/holds/no-such-hold", {"folkmoot-owner", "folkmoot-auditor"}),
    ],
)
async def test_who_may(world: Any, method: str, path: str, allowed: set[str]) -> None:
    async with doors(world) as (_, client):
        for account in ("broker", "core", "agent-ana", "folkmoot-owner", "folkmoot-viewer", "folkmoot-auditor", "default"):
            answer = await client.request(method, path, headers=as_(world, account))
            assert (answer.status_code != 403) == (account in allowed), (account, answer.text)
        for headers in ({}, as_(world, "folkmoot-owner", audience="folkmoot-ledger"), {"Authorization": "Bearer x"}):
            assert (await client.request(method, path, headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {}, {"basis": BASIS}, {"subject": SUBJECT}, {"subject": SUBJECT, "session": "x", "basis": BASIS},
        {"subject": "Jane Doe", "basis": BASIS}, {"subject": "jane@example.org", "basis": BASIS},
        {"subject": SUBJECT, "basis": "a\nb"}, {"subject": SUBJECT, "basis": "x" * 201}, {"session": "../x", "basis": BASIS},
        {"subject": SUBJECT, "basis": BASIS, "id": "short"}, {"subject": SUBJECT, "basis": BASIS, "force": True},
    ],
)  # fmt: skip
async def test_requests_that_do_not_fit_are_refused(world: Any, body: dict[str, Any]) -> None:
    async with doors(world) as (_, client):
        assert (await client.post("/v1/erasures", json=body, headers=as_(world, "folkmoot-owner"))).status_code == 400
        hold = {"scope": "subject", "reason": "r" if "basis" in body else "", **body}
        assert (await client.post("/v1/holds", json=hold, headers=as_(world, "folkmoot-owner"))).status_code == 400


def test_the_compacted_database_is_the_same_less_what_was_deleted(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path / "c.sqlite", InlineExecutor())
        await store.open()
        await store.run(lambda db: db.executemany("INSERT INTO meta VALUES (?, ?)", [(f"k{n}", CANARY * 50) for n in range(500)]))
        await store.run(lambda db: db.execute("DELETE FROM meta WHERE key <> 'k7'"))
        await store.run(lambda db: db.execute("UPDATE meta SET value = 'kept'"))
        await store.compact()
        assert await store.run(lambda db: db.execute("SELECT * FROM meta").fetchall()) == [("k7", "kept")]
        assert await store.run(lambda db: db.execute("PRAGMA user_version").fetchone()[0]) == SCHEMA_VERSION
        assert await store.run(lambda db: db.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"
        assert canaries(tmp_path) == []
        await store.close()
        with pytest.raises(Unavailable):
            await store.compact()

    asyncio.run(story())


class Door:
    """The broker's, as far as erasing goes."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.asked: list[tuple[str, str, int]] = []

    async def request(self, method: str, path: str, *, body: bytes) -> httpx2.Response:
        self.asked.append((method, path, len(json.loads(body)["sessions"])))
        return httpx2.Response(self.status)


async def test_the_broker_is_asked_in_parts_that_it_takes_and_believed_only_when_it_did() -> None:
    door: Any = Door(200)
    await BrokerCalls(door).erase([f"uid-{n}" for n in range(1001)])
    assert door.asked == [("POST", "/v1/erasures", 1000), ("POST", "/v1/erasures", 1)]
    for status in (403, 404, 503):
        door.status = status
        with pytest.raises(Unavailable, match=str(status)):
            await BrokerCalls(door).erase(["uid-1"])
