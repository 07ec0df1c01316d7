"""The operator's door: who gets which names, who may report as whom, and what everybody else is told. Real tokens, real TLS."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import ssl
import time

import aiohttp
import jwt
import pytest
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from folkmoot_core import names
from folkmoot_core.document import CertificateRequest, Report
from folkmoot_core.errors import Unavailable
from folkmoot_operator import ca, discovery
from folkmoot_operator.app import _utc
from folkmoot_operator.cache import Cache
from folkmoot_operator.endpoint import MAX_BODY, MAX_PER_NAMESPACE, MAX_PER_WINDOW, WINDOW_SECONDS, Endpoint
from folkmoot_operator.fake_kube import FakeKube
from folkmoot_operator.kinds import NAMESPACE, SECRET, TENANT
from folkmoot_operator.metrics import Metrics

NS = "folkmoot-acme"
ISSUER = "https://issuer"


class Cluster:
    """Issues ServiceAccount tokens and serves the keys that verify them."""

    def __init__(self):
        self.kube = FakeKube(namespaces=False)
        self.rotate("1")

    def rotate(self, kid):
        self.key, self.kid = ec.generate_private_key(ec.SECP256R1()), kid
        point = self.key.public_key().public_numbers()

        def text(number):
            return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()

        jwk = {"kty": "EC", "crv": "P-256", "kid": kid, "x": text(point.x), "y": text(point.y), "alg": "ES256", "use": "sig"}
        self.kube.blobs["/openid/v1/jwks"] = json.dumps({"keys": [jwk]}).encode()
        self.kube.blobs["/.well-known/openid-configuration"] = json.dumps({"issuer": ISSUER}).encode()

    def token(self, account="core", namespace=NS, **change):
        now = int(time.time())
        claims = {
            "iss": ISSUER, "aud": [names.AUDIENCE_OPERATOR], "exp": now + 600, "nbf": now - 5,
            "sub": f"system:serviceaccount:{namespace}:{account}", "kubernetes.io": {"pod": {"name": f"{account}-0"}},
        } | change  # fmt: skip
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": self.kid})


class Sink:
    """Where reports go."""

    def __init__(self):
        self.taken, self.error = [], None
        self.door, self.entered = asyncio.Event(), asyncio.Semaphore(0)
        self.door.set()

    async def take(self, tenant, namespace, report):
        if self.error:
            raise self.error
        self.entered.release()
        await self.door.wait()
        self.taken.append((tenant["metadata"]["name"], namespace, report))


def namespace(name=NS, tenant="acme", manager=names.MANAGER):
    labels = {names.LABEL_MANAGED_BY: manager, names.LABEL_TENANT: tenant}
    return {"metadata": {"name": name, "labels": labels, "resourceVersion": "1"}}


@pytest.fixture
async def rig():
    cluster, cache, sink = Cluster(), Cache(), Sink()
    keys = discovery.Discovery(cluster.kube)
    await keys.refresh()
    authority = await ca.ensure(cluster.kube, "folkmoot-system", _utc)
    contexts = ca.Contexts(ca.Signer(authority, _utc), ["127.0.0.1"])
    cache.put(NAMESPACE, namespace())
    cache.put(TENANT, {"metadata": {"name": "acme", "resourceVersion": "1"}})
    cache.filled.set()
    endpoint = Endpoint(contexts.signer, keys, cache, sink, Metrics(), names.SYSTEM_NAMESPACE)
    server = TestServer(endpoint.app(), scheme="https", host="127.0.0.1")
    await server.start_server(ssl=contexts.server)
    trust = ssl.create_default_context(cadata=authority.pem())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as client:

        async def post(path, body, token):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            data = io.BytesIO((body if isinstance(body, str) else body.model_dump_json()).encode())
            async with client.post(server.make_url(path), data=data, headers=headers) as response:
                return (
                    response.status,
                    (await response.json(content_type=None) if response.status != 204 else None),
                    response.headers,
                )

        rig = type(
            "Rig",
            (),
            {
                "endpoint": endpoint,
                "cluster": cluster,
                "cache": cache,
                "sink": sink,
                "post": staticmethod(post),
                "authority": authority,
            },
        )
        yield rig
    await server.close()


def csr(*wanted):
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if wanted:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in wanted]), critical=False)
    return CertificateRequest(csr=builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode())


@pytest.mark.parametrize("account", ["core", "broker"])
async def test_each_account_gets_the_names_of_its_service_and_no_others(rig, account):
    status, answer, _ = await rig.post("/v1/certificates", csr("core.folkmoot-other.svc", "evil"), rig.cluster.token(account))
    assert status == 200
    leaf = x509.load_pem_x509_certificate(answer["certificate"].encode())
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert tuple(found) == names.service_names(account, NS)
    assert answer["ca"] == rig.authority.pem()


@pytest.mark.parametrize("account", [names.SA_WITNESS, names.SA_TIMESTAMPS])
async def test_the_installations_own_services_get_their_names_and_report_nothing(rig, account):
    token = rig.cluster.token(account, names.SYSTEM_NAMESPACE)
    status, answer, _ = await rig.post("/v1/certificates", csr("core.folkmoot-acme.svc"), token)
    assert status == 200
    leaf = x509.load_pem_x509_certificate(answer["certificate"].encode())
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert tuple(found) == names.service_names(account, names.SYSTEM_NAMESPACE)
    assert (await rig.post("/v1/reports", Report(reporter="core", sequence=1), token))[0] == 403
    assert rig.sink.taken == []


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"account": names.SA_WITNESS}, 403),
        ({"account": "core", "namespace": names.SYSTEM_NAMESPACE}, 403),
        ({"account": "folkmoot-operator", "namespace": names.SYSTEM_NAMESPACE}, 403),
        ({"account": "agent-reviewer"}, 403),
        ({"account": "folkmoot-owner"}, 403),
        ({"account": "default"}, 403),
        ({"namespace": "default"}, 403),
        ({"aud": ["folkmoot-broker"]}, 401),
        ({"iss": "https://other"}, 401),
        ({"exp": 1}, 401),
        ({"sub": "system:node:n"}, 401),
    ],
)
async def test_everybody_else_is_refused_in_a_problem_document(rig, change, status):
    for path, body in (("/v1/certificates", csr()), ("/v1/reports", Report(reporter="core", sequence=1))):
        got, problem, headers = await rig.post(path, body, rig.cluster.token(**change))
        assert got == status
        assert headers["Content-Type"].startswith("application/problem+json")
        assert problem["status"] == status
        assert problem["detail"]
    assert rig.sink.taken == []


async def test_no_token_a_forged_token_and_a_namespace_that_only_looks_like_ours(rig):
    assert (await rig.post("/v1/certificates", csr(), ""))[0] == 401
    forged = Cluster().token()
    assert (await rig.post("/v1/certificates", csr(), forged))[0] == 401
    for name, tenant, manager in ((NS, "other", names.MANAGER), ("free", "acme", names.MANAGER), (NS, "acme", "helm")):
        rig.cache.put(NAMESPACE, namespace(name, tenant, manager))
        assert (await rig.post("/v1/certificates", csr(), rig.cluster.token(namespace=name)))[0] == 403


async def test_reports_reach_the_writer_for_their_own_namespace_alone(rig):
    status, _, _ = await rig.post("/v1/reports", Report(reporter="broker", sequence=3), rig.cluster.token("broker"))
    assert status == 204
    assert [(t, n, r.sequence) for t, n, r in rig.sink.taken] == [("acme", NS, 3)]
    status, problem, _ = await rig.post("/v1/reports", Report(reporter="core", sequence=3), rig.cluster.token("broker"))
    assert (status, problem["type"]) == (403, "Forbidden")
    assert len(rig.sink.taken) == 1


async def test_one_namespace_has_a_few_requests_at_work_and_the_others_do_not_wait_for_them(rig):
    rig.cache.put(NAMESPACE, namespace("folkmoot-globex", "globex"))
    rig.cache.put(TENANT, {"metadata": {"name": "globex", "resourceVersion": "1"}})
    rig.sink.door.clear()
    report = Report(reporter="core", sequence=1)
    flood = [asyncio.create_task(rig.post("/v1/reports", report, rig.cluster.token())) for _ in range(MAX_PER_NAMESPACE)]
    for _ in flood:
        await rig.sink.entered.acquire()
    assert (await rig.post("/v1/reports", report, rig.cluster.token()))[0] == 503
    assert (await rig.post("/v1/certificates", csr(), rig.cluster.token()))[0] == 503
    assert (await rig.post("/v1/certificates", csr(), rig.cluster.token(namespace="folkmoot-globex")))[0] == 200
    rig.sink.door.set()
    assert [answer[0] for answer in await asyncio.gather(*flood)] == [204] * MAX_PER_NAMESPACE
    assert (await rig.post("/v1/reports", report, rig.cluster.token()))[0] == 204


async def test_an_account_that_sends_without_end_is_told_to_wait_and_the_others_are_not(rig):
    rig.cache.put(NAMESPACE, namespace("folkmoot-globex", "globex"))
    rig.cache.put(TENANT, {"metadata": {"name": "globex", "resourceVersion": "1"}})
    now = 0.0
    rig.endpoint.steady = lambda: now
    report = Report(reporter="core", sequence=1)
    answers = [(await rig.post("/v1/reports", report, rig.cluster.token()))[0] for _ in range(MAX_PER_WINDOW)]
    assert set(answers) == {204}
    status, _, headers = await rig.post("/v1/reports", report, rig.cluster.token())
    assert (status, headers["Retry-After"]) == (503, "10")
    assert len(rig.sink.taken) == MAX_PER_WINDOW
    assert (await rig.post("/v1/certificates", csr(), rig.cluster.token(account="broker")))[0] == 200
    assert (await rig.post("/v1/reports", report, rig.cluster.token(namespace="folkmoot-globex")))[0] == 204
    now = WINDOW_SECONDS
    assert (await rig.post("/v1/reports", report, rig.cluster.token()))[0] == 204


async def test_an_api_server_that_is_away_says_come_again(rig):
    rig.sink.error = Unavailable("down", retry_after=7)
    status, _, headers = await rig.post("/v1/reports", Report(reporter="core", sequence=1), rig.cluster.token())
    assert (status, headers["Retry-After"]) == (503, "7")


async def test_bodies_are_bounded_and_parsed(rig):
    token = rig.cluster.token()
    assert (await rig.post("/v1/reports", "x" * (MAX_BODY + 1), token))[0] == 413
    status, problem, _ = await rig.post("/v1/reports", '{"reporter": "core", "sequence": "secret-value"}', token)
    assert status == 400
    assert "sequence" in problem["detail"]
    assert "secret-value" not in problem["detail"]
    assert (await rig.post("/v1/certificates", CertificateRequest(csr="nonsense"), token))[0] == 400


async def test_keys_that_the_cluster_rotated_are_fetched_once_needed(rig):
    rig.cluster.rotate("2")
    assert (await rig.post("/v1/reports", Report(reporter="core", sequence=1), rig.cluster.token()))[0] == 204


async def test_while_starting_it_asks_for_patience(rig):
    rig.cache.filled.clear()
    assert (await rig.post("/v1/reports", Report(reporter="core", sequence=1), rig.cluster.token()))[0] == 503


async def test_of_two_replicas_that_make_the_ca_at_once_the_loser_reads_the_winners():
    class Racing(FakeKube):
        """Another replica is faster between our look and our write."""

        async def create(self, kind, obj):
            if kind == SECRET and not self.all(SECRET):
                await ca.ensure(FakeView(self), "folkmoot-system", _utc)
            return await super().create(kind, obj)

    class FakeView:
        def __init__(self, kube):
            self.get = kube.get
            self.create = super(Racing, kube).create

    kube = Racing(namespaces=False)
    mine = await ca.ensure(kube, "folkmoot-system", _utc)
    again = await ca.ensure(kube, "folkmoot-system", _utc)
    assert mine.certificate == again.certificate
    assert len(kube.all(SECRET)) == 1
