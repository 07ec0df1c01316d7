"""The client of the operator door against a server that demands the operator's certificate."""

from __future__ import annotations

import io
import ssl
import tarfile

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec

from folkmoot_core import certificates, names
from folkmoot_core.document import Identity, SessionOrder, SessionReport, TenantDocument
from folkmoot_core.errors import Conflict, FolkmootError, Invalid, LimitReached, Missing, Unauthorized, Unavailable
from folkmoot_core.identity import GrantsV1
from folkmoot_core.resources import SessionSpec
from folkmoot_operator import ca
from folkmoot_operator.app import _utc
from folkmoot_operator.conductor_client import HttpConductor
from folkmoot_operator.tls import load_pair

IDENTITY = Identity(name="acme", scope="f/acme/acme", cause="c", seed="0" * 64, commitment="0" * 64, grants=GrantsV1())
DOCUMENT = TenantDocument(tenant="acme", tenant_uid="u", namespace="folkmoot-acme", generation=1, identity=IDENTITY)
SPEC = SessionSpec.model_validate({"target": {"kind": "Agent", "name": "a"}, "task": "t"})
ORDER = SessionOrder(uid="u1", name="s", generation=1, spec=SPEC, inputs={"big": {"k": "A" * 2_000_000}})
REPORT = SessionReport(uid="u1", name="s", generation=1, sequence=1, phase="Pending")


def tar(*members, cut=0):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in members:
            info = tarfile.TarInfo(name)
            info.size = 3000
            archive.addfile(info, io.BytesIO(b"x" * 3000))
    data = buffer.getvalue()
    return data[:cut] if cut else data


class Door:
    """A conductor's operator door; `answer` replaces the next answers."""

    def __init__(self):
        self.seen, self.answer, self.evidence = [], None, tar("checkpoint", "tile/0/000")

    async def handle(self, request):
        body = await request.read()
        self.seen.append((request.method, request.path, len(body), request.transport.get_extra_info("peercert")))
        if self.answer is not None:
            return self.answer()
        if request.path.endswith("/document"):
            return web.json_response({"digest": TenantDocument.model_validate_json(body).digest()})
        if request.path.endswith("/evidence"):
            return web.Response(body=io.BytesIO(self.evidence))
        if request.path.endswith("/seal"):
            return web.json_response({"size": 12})
        if request.path.endswith("/sessions"):
            return web.json_response({"sessions": [REPORT.model_dump()]})
        return web.json_response(text=REPORT.model_dump_json())


@pytest.fixture
async def rig():
    key = ec.generate_private_key(ec.SECP256R1())
    authority = certificates.make_authority(key, "CA", certificates.Moment(_utc(), 5))
    signer = ca.Signer(authority, _utc)
    contexts = ca.Contexts(signer, ["x"])
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(serving, *signer.serving_pair(names.service_names("core", "folkmoot-acme")))
    serving.load_verify_locations(cadata=authority.pem())
    serving.verify_mode = ssl.CERT_REQUIRED
    door = Door()
    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", door.handle)
    server = TestServer(app, scheme="https", host="127.0.0.1")
    await server.start_server(ssl=serving)

    def client(context):
        return HttpConductor(aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)), f"127.0.0.1:{server.port}")

    made = [client(contexts.client)]
    yield type(
        "Rig",
        (),
        {
            "door": door,
            "conductor": made[0],
            "client": staticmethod(client),
            "made": made,
            "authority": authority,
            "signer": signer,
        },
    )
    for one in made:
        await one.session.close()
    await server.close()


async def test_every_route_with_the_operators_certificate(rig, tmp_path):
    conductor = rig.conductor
    assert await conductor.put_document(DOCUMENT) == DOCUMENT.digest()
    assert await conductor.put_session("acme", ORDER) == REPORT
    assert await conductor.sessions("acme") == [REPORT]
    await conductor.cancel("acme", "u1")
    assert await conductor.seal("acme") == 12
    await conductor.evidence("acme", tmp_path / "e.tar")
    assert tarfile.is_tarfile(tmp_path / "e.tar")
    assert [(m, p) for m, p, _, _ in rig.door.seen] == [
        ("PUT", "/operator/v1/document"), ("PUT", "/operator/v1/sessions/u1"), ("GET", "/operator/v1/sessions"),
        ("DELETE", "/operator/v1/sessions/u1"), ("POST", "/operator/v1/seal"), ("GET", "/operator/v1/evidence"),
    ]  # fmt: skip
    assert all(dict(item[0] for item in cert["subject"])["commonName"] == ca.CLIENT_NAME for *_, cert in rig.door.seen)


async def test_a_serving_certificate_is_no_way_in(rig):
    context = ssl.create_default_context(cadata=rig.authority.pem())
    load_pair(context, *rig.signer.serving_pair(["core.folkmoot-evil.svc"]))
    rig.made.append(rig.client(context))
    with pytest.raises(Unavailable):
        await rig.made[-1].sessions("acme")
    assert rig.door.seen == []


async def test_another_tenants_core_is_not_taken_for_this_one(rig):
    with pytest.raises(Unavailable):
        await rig.conductor.sessions("other")  # the certificate says folkmoot-acme
    assert rig.door.seen == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Invalid),
        (401, Unauthorized),
        (403, Unauthorized),
        (404, Missing),
        (409, Conflict),
        (413, LimitReached),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
async def test_answers_become_our_errors(rig, status, error):
    body = {"type": "SomeReason", "detail": "because"}
    rig.door.answer = lambda: web.json_response(body, status=status, headers={"Retry-After": "9"})
    with pytest.raises(error, match="because") as caught:
        await rig.conductor.put_document(DOCUMENT)
    if isinstance(caught.value, Unavailable):
        assert caught.value.retry_after == 9
    else:
        assert caught.value.reason == "SomeReason"


async def test_nobody_is_followed_elsewhere(rig, tmp_path):
    rig.door.answer = lambda: web.Response(status=307, headers={"Location": "/elsewhere"})
    with pytest.raises(Unavailable):
        await rig.conductor.sessions("acme")
    with pytest.raises(Unavailable):
        await rig.conductor.put_document(DOCUMENT)
    with pytest.raises(FolkmootError):
        await rig.conductor.evidence("acme", tmp_path / "e.tar")
    assert "/elsewhere" not in [path for _, path, _, _ in rig.door.seen]


async def test_cancelling_what_is_unknown_is_no_error(rig):
    rig.door.answer = lambda: web.Response(status=404)
    await rig.conductor.cancel("acme", "u1")


@pytest.mark.parametrize("text", ["", "[]", '{"sessions": 1}', '{"sessions": [{"uid": 1}]}', "\xff"])
async def test_rubbish_is_refused(rig, text):
    rig.door.answer = lambda: web.Response(text=text)
    with pytest.raises(FolkmootError):
        await rig.conductor.sessions("acme")


@pytest.mark.parametrize("evidence", [tar("other"), b"", b"no tar at all", tar("checkpoint", cut=1200)])
async def test_evidence_that_is_not_whole_gets_no_name(rig, tmp_path, evidence):
    rig.door.evidence = evidence
    with pytest.raises(Unavailable):
        await rig.conductor.evidence("acme", tmp_path / "e.tar")
    assert not (tmp_path / "e.tar").exists()


async def test_an_export_volume_that_is_full_or_missing_says_so(rig, tmp_path):
    with pytest.raises(Unavailable, match="export volume"):
        await rig.conductor.evidence("acme", tmp_path / "missing" / "e.tar")
