"""The whole process: certificate, document, ledger and reports over TLS, a call of an agent, another's token, restart."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from folkmoot_core import names
from folkmoot_core.calls import CallAnswer, CallEnvelope, TextPart
from folkmoot_core.document import AuditEntry, CertificateAnswer, CertificateRequest, Report, TenantDocument, WitnessEntry
from folkmoot_core.entries import EntryRequest, Receipt
from folkmoot_core.resources.agent import AgentModel
from folkmoot_core.resources.common import ConfigMapKeyRef
from folkmoot_core.resources.tenant import ProviderSpec
from folkmoot_runtime import web

NAMESPACE = "folkmoot-acme"
ISSUER = "https://kubernetes.test"


class Installation:
    """Operator, conductor and ledger of one tenant behind one TLS port, with a CA and a token issuer of their own."""

    def __init__(self, root: Path, port: int, document: TenantDocument) -> None:
        self.root, self.port, self.document = root, port, document
        self.entries: list[EntryRequest] = []
        self.reports: list[Report] = []
        self.reported = asyncio.Event()
        self.ledger_away = False
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test CA")])
        self._signing = ec.generate_private_key(ec.SECP256R1())
        self._write_trust()
        for audience in (names.AUDIENCE_OPERATOR, names.AUDIENCE_LEDGER, names.AUDIENCE_CONDUCTOR):
            (root / "tokens").mkdir(exist_ok=True)
            (root / "tokens" / audience).write_text(self.token("broker", audience))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def _write_trust(self) -> None:
        ca = self._certificate(self._key.public_key(), ca=True)
        (self.root / "trust").mkdir()
        (self.root / "trust" / "ca.crt").write_bytes(ca)
        jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._signing.public_key()))
        (self.root / "trust" / "jwks.json").write_text(json.dumps({"keys": [{**jwk, "kid": "k", "alg": "ES256"}]}))
        (self.root / "trust" / "issuer").write_text(ISSUER)

    def _certificate(self, key: Any, *, ca: bool = False) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        subject = self._name if ca else x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "leaf")])
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )  # fmt: skip
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def token(self, account: str, audience: str, *, namespace: str = NAMESPACE) -> str:
        claims = {"iss": ISSUER, "aud": audience, "sub": f"system:serviceaccount:{namespace}:{account}", "exp": time.time() + 600}
        return jwt.encode(claims, self._signing, algorithm="ES256", headers={"kid": "k"})

    def context(self) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.root / "server.pem").write_bytes(encoded + self._certificate(key.public_key()))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.root / "server.pem")
        return context

    def routes(self) -> list[Route]:
        async def certificates(request: Request) -> Response:
            asked = CertificateRequest.model_validate_json(await request.body())
            leaf = self._certificate(x509.load_pem_x509_csr(asked.csr.encode()).public_key()).decode()
            until = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).isoformat()
            ca = (self.root / "trust" / "ca.crt").read_text()
            return web.answer(CertificateAnswer(certificate=leaf, ca=ca, not_after=until))

        async def reports(request: Request) -> Response:
            self.reports.append(Report.model_validate_json(await request.body()))
            self.reported.set()
            return Response(status_code=204)

        async def document(request: Request) -> Response:
            return web.answer(self.document)

        async def entries(request: Request) -> Response:
            if self.ledger_away:
                return Response(status_code=503)
            self.entries.append(EntryRequest.model_validate_json(await request.body()))
            return web.answer(Receipt(index=len(self.entries) - 1, leaf="0" * 64))

        async def add_checkpoint(request: Request) -> Response:
            return PlainTextResponse(f"seen {len(await request.body())}\n")

        return [
            Route("/v1/certificates", certificates, methods=["POST"]),
            Route("/v1/reports", reports, methods=["POST"]),
            Route("/v1/document", document),
            Route("/v1/entries", entries, methods=["POST"]),
            Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
        ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def installation(tmp_path: Path, document: Callable[..., TenantDocument]) -> AsyncIterator[Installation]:
    script = ConfigMapKeyRef(name="answers", key="answers.yaml")
    scripted = ProviderSpec(name="demo", type="Scripted", script=script)
    keyless = ProviderSpec(name="claude", type="Anthropic")
    base = document()
    spec = base.agents[0].spec.model_copy(update={"model": AgentModel(provider="demo", name="m1", max_output_tokens=1000)})
    agent = base.agents[0].model_copy(update={"spec": spec})
    (tmp_path / "scripts" / "demo").mkdir(parents=True)
    rules = {"rules": [{"when": {"last_user": "secret"}, "reply": {"text": "scripted"}}]}
    (tmp_path / "scripts" / "demo" / "script.yaml").write_text(json.dumps(rules))
    port = free_port()
    audit = AuditEntry(witnesses=(WitnessEntry(name="cluster", key="k", url=f"https://127.0.0.1:{port}"),))
    world = Installation(tmp_path, port, document(providers=(scripted, keyless), agents=(agent,), audit=audit))
    serving = asyncio.create_task(
        web.serve(web.app(world.routes(), ready=lambda: True), host="127.0.0.1", port=world.port, context=world.context())
    )
    yield world
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


class Broker:
    """A broker process; `client` speaks to its door."""

    def __init__(self, world: Installation) -> None:
        self.world, self.port = world, free_port()
        self.log = (world.root / "broker.log").open("ab")
        trust = ssl.create_default_context(cafile=world.root / "trust" / "ca.crt")
        self.client = httpx2.AsyncClient(verify=trust, base_url=f"https://127.0.0.1:{self.port}", timeout=20, trust_env=False)

    async def start(self) -> None:
        root, url = self.world.root, self.world.url
        environment = {
            "PYTHONPATH": ":".join(sys.path), "FOLKMOOT_TENANT": "acme", "FOLKMOOT_NAMESPACE": NAMESPACE,
            "FOLKMOOT_LISTEN_HOST": "127.0.0.1", "FOLKMOOT_PORT": str(self.port), "FOLKMOOT_DATA": str(root / "data"),
            "FOLKMOOT_RUN": str(root / "run"), "FOLKMOOT_TOKENS": str(root / "tokens"), "FOLKMOOT_TRUST": str(root / "trust"),
            "FOLKMOOT_OPERATOR_URL": url, "FOLKMOOT_CONDUCTOR_URL": url, "FOLKMOOT_LEDGER_URL": url,
            "FOLKMOOT_KEYS": str(root / "keys"), "FOLKMOOT_SCRIPTS": str(root / "scripts"),
        }  # fmt: skip
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "folkmoot_runtime.broker", env=environment, stderr=self.log
        )
        while not await self._ready():
            assert self.process.returncode is None, (root / "broker.log").read_text()
            await asyncio.sleep(0.05)

    async def _ready(self) -> bool:
        try:
            return (await self.client.get("/readyz")).status_code == 200
        except httpx2.TransportError:
            return False

    async def call(self, envelope: CallEnvelope, token: str) -> httpx2.Response:
        return await self.post("/v1/calls", envelope.model_dump_json(), token)

    async def post(self, path: str, content: str, token: str) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token}"}
        while True:
            response = await self.client.post(path, content=content, headers=headers)
            if response.status_code != 503 or response.json()["type"] != "NoDocument":
                return response
            await asyncio.sleep(0.05)

    async def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()


@pytest.fixture
async def broker(installation: Installation) -> AsyncIterator[Broker]:
    broker = Broker(installation)
    await broker.start()
    yield broker
    await broker.stop(signal.SIGKILL)
    await broker.client.aclose()
    broker.log.close()


async def test_an_agents_call_goes_through_and_survives_a_kill(
    broker: Broker, installation: Installation, call: Callable[..., CallEnvelope]
) -> None:
    token = installation.token("agent-ana", names.AUDIENCE_BROKER)
    envelope = call(provider="demo", model="m1")
    response = await broker.call(envelope, token)
    assert response.status_code == 200, response.text
    answer = CallAnswer.model_validate_json(response.content)
    assert (answer.result.parts, answer.stored, answer.family) == ((TextPart(text="scripted"),), False, "")
    assert [entry.type for entry in installation.entries] == ["model.call.intent", "model.call.outcome"]
    await installation.reported.wait()
    states = {report.name: (report.available, report.reason) for report in installation.reports[0].providers}
    assert states == {"demo": (True, "Usable"), "claude": (False, "ProviderKeyMissing")}

    assert await broker.stop(signal.SIGKILL) == -signal.SIGKILL
    await broker.start()
    again = CallAnswer.model_validate_json((await broker.call(envelope, token)).content)
    assert again == answer.model_copy(update={"stored": True})
    assert len(installation.entries) == 2
    assert await broker.stop() == 0
    for word in ("secret words", "scripted", token):
        assert word not in (installation.root / "broker.log").read_text()


async def test_who_may_not_call_is_told_why(
    broker: Broker, installation: Installation, call: Callable[..., CallEnvelope]
) -> None:
    envelope = call(provider="demo", model="m1")
    good = installation.token("agent-ana", names.AUDIENCE_BROKER)
    cases = {
        "another audience": (installation.token("agent-ana", names.AUDIENCE_LEDGER), envelope, 401, "Unauthorized"),
        "another namespace": (
            installation.token("agent-ana", names.AUDIENCE_BROKER, namespace="folkmoot-beta"), envelope, 401, "ForeignNamespace"
        ),
        "no agent": (installation.token("core", names.AUDIENCE_BROKER), envelope, 403, "Forbidden"),
        "unknown agent": (installation.token("agent-eve", names.AUDIENCE_BROKER), envelope, 403, "AgentUnknown"),
        "another model": (good, call(provider="claude", model="m1"), 403, "ModelNotAgents"),
    }  # fmt: skip
    for name, (token, asked, status, reason) in cases.items():
        response = await broker.call(asked, token)
        assert (response.status_code, response.json()["type"]) == (status, reason), name
    response = await broker.client.post("/v1/calls", content=b"{}", headers={"Authorization": f"Bearer {good}"})
    assert response.status_code == 400
    assert installation.entries == [] or all(e.data["folkmoot.outcome"] == "refused" for e in installation.entries)


async def test_the_cores_log_reaches_its_witness_through_it(broker: Broker, installation: Installation) -> None:
    path = "/v1/witnesses/cluster/add-checkpoint"
    answer = await broker.post(path, "old 0\n", installation.token("core", names.AUDIENCE_BROKER))
    assert (answer.status_code, answer.text) == (200, "seen 6\n")
    answer = await broker.post(path, "old 0\n", installation.token("agent-ana", names.AUDIENCE_BROKER))
    assert answer.status_code == 403


async def test_the_core_has_what_is_kept_of_sessions_erased(
    broker: Broker, installation: Installation, call: Callable[..., CallEnvelope]
) -> None:
    agent, core = (installation.token(account, names.AUDIENCE_BROKER) for account in ("agent-ana", "core"))
    assert (await broker.call(call(provider="demo", model="m1"), agent)).status_code == 200
    asked = json.dumps({"sessions": ["s1"]})
    assert (await broker.post("/v1/erasures", asked, agent)).status_code == 403
    for wrong in ("{}", '{"sessions": []}', '{"sessions": ["a/b"]}', json.dumps({"sessions": ["s"] * 1001})):
        assert (await broker.post("/v1/erasures", wrong, core)).status_code == 400
    assert (await broker.post("/v1/erasures", asked, core)).json() == {"calls": 1}
    refused = await broker.call(call(provider="demo", model="m1"), agent)
    assert (refused.status_code, refused.json()["type"]) == (409, "SessionErased")


async def test_without_a_receipt_nothing_leaves(
    broker: Broker, installation: Installation, call: Callable[..., CallEnvelope]
) -> None:
    """The scripted provider has no rule for this text: had the call left, the answer would be 502."""
    installation.ledger_away = True
    token = installation.token("agent-ana", names.AUDIENCE_BROKER)
    response = await broker.call(call(text="no rule for this", provider="demo", model="m1"), token)
    assert response.status_code == 503
    installation.ledger_away = False
    response = await broker.call(call(text="no rule for this", provider="demo", model="m1"), token)
    assert (response.status_code, response.json()["type"]) == (502, "ProviderRejected")


async def test_a_second_broker_on_the_same_volume_refuses_to_run(broker: Broker, installation: Installation) -> None:
    root = installation.root
    environment = {
        "PYTHONPATH": ":".join(sys.path), "FOLKMOOT_TENANT": "acme", "FOLKMOOT_NAMESPACE": NAMESPACE,
        "FOLKMOOT_DATA": str(root / "data"),
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "folkmoot_runtime.broker", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, complaint = await process.communicate()
    assert process.returncode == 1
    assert b"another broker has this volume" in complaint


async def test_an_idle_broker_has_loaded_no_vendors_sdk(broker: Broker) -> None:
    maps = Path(f"/proc/{broker.process.pid}/maps").read_text()
    status = Path(f"/proc/{broker.process.pid}/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert "anthropic" not in maps
    assert resident < 90 * 1024
    assert os.path.exists(f"/proc/{broker.process.pid}")
