"""The HTTP client: retries, Retry-After, pages, tokens, rate. Against a server that misbehaves on demand."""

from __future__ import annotations

import asyncio
import base64
import ssl

import aiohttp
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec

from folkmoot_core import certificates
from folkmoot_core.errors import Conflict, Invalid, Missing, Unauthorized, Unavailable
from folkmoot_operator import ca, kube_config
from folkmoot_operator.app import _utc
from folkmoot_operator.kinds import AGENT, CONFIG_MAP, TENANT, Key
from folkmoot_operator.kube import HttpKube, TokenBucket, listed, merged, middleware
from folkmoot_operator.kube_config import Connection
from folkmoot_operator.metrics import Metrics


@pytest.fixture
async def rig():
    answers, seen, slept, tokens = [], [], [], ["one"]

    async def handle(request):
        seen.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        answer = answers.pop(0) if answers else {}
        return answer if isinstance(answer, web.Response) else web.json_response(answer)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    server = TestServer(app)
    await server.start_server()
    connection = Connection(str(server.make_url("")).rstrip("/"), ssl.create_default_context(), lambda: tokens[0])

    async def sleep(seconds):
        slept.append(seconds)

    async with aiohttp.ClientSession(middlewares=[middleware(connection)]) as session:
        kube = HttpKube(connection, session, TokenBucket(1000, 1000), Metrics(), sleep=sleep)
        yield type(
            "Rig", (), {"kube": kube, "answers": answers, "seen": seen, "slept": slept, "tokens": tokens, "server": server}
        )
    await server.close()


def error(code, **headers):
    return web.json_response({"kind": "Status", "message": "because", "reason": "AlreadyExists"}, status=code, headers=headers)


async def test_pages_follow_the_continue_token_and_carry_their_kind(rig):
    rig.answers += [
        {"metadata": {"continue": "next"}, "items": [{"metadata": {"name": "a"}}]},
        {"metadata": {}, "items": [{"metadata": {"name": "b"}}]},
    ]
    found = await listed(rig.kube, TENANT, labels="x=y")
    assert [(o["kind"], o["metadata"]["name"]) for o in found] == [("Tenant", "a"), ("Tenant", "b")]
    assert "limit=500" in rig.seen[0][1]
    assert "continue=next" in rig.seen[1][1]
    assert "labelSelector=x%3Dy" in rig.seen[1][1]


async def test_retry_after_is_obeyed_and_retries_are_bounded(rig):
    rig.answers += [error(429, **{"Retry-After": "3"}), error(500), {"metadata": {"name": "a"}}]
    await rig.kube.get(CONFIG_MAP, Key("n", "a"))
    assert rig.slept[0] == 3
    assert len(rig.slept) == 2
    rig.answers += [error(503) for _ in range(9)]
    with pytest.raises(Unavailable, match="because"):
        await rig.kube.get(CONFIG_MAP, Key("n", "a"))
    assert len(rig.seen) == 3 + 4


async def test_a_long_retry_after_is_left_to_the_queue(rig):
    rig.answers.append(error(429, **{"Retry-After": "60"}))
    with pytest.raises(Unavailable) as caught:
        await rig.kube.get(CONFIG_MAP, Key("n", "a"))
    assert caught.value.retry_after == 60
    assert rig.slept == []


@pytest.mark.parametrize(
    ("code", "kind"), [(400, Invalid), (401, Unauthorized), (403, Unauthorized), (404, Missing), (409, Conflict), (422, Invalid)]
)
async def test_answers_become_our_errors_and_are_not_retried(rig, code, kind):
    rig.answers.append(error(code))
    with pytest.raises(kind, match="because"):
        await rig.kube.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "n"}})
    assert len(rig.seen) == 1


@pytest.mark.parametrize(
    "name", ["..", "../../folkmoot-globex/agents/a", "a?watch=1", "a#", "a/status", "%2e%2e", ".a", "x" * 254]
)
async def test_a_name_that_leads_elsewhere_is_never_asked_for(rig, name):
    for key in (Key("folkmoot-acme", name), Key(name, "a")):
        with pytest.raises(Invalid):
            await rig.kube.get(AGENT, key)
    assert rig.seen == []


async def test_a_renewed_token_is_used_at_once(rig):
    await rig.kube.get(CONFIG_MAP, Key("n", "a"))
    rig.tokens[0] = "two"
    await rig.kube.get(CONFIG_MAP, Key("n", "a"))
    assert [headers["Authorization"] for _, _, headers, _ in rig.seen] == ["Bearer one", "Bearer two"]


async def test_a_server_that_is_gone_is_unavailable_and_counted(rig):
    await rig.server.close()
    with pytest.raises(Unavailable):
        await rig.kube.get(CONFIG_MAP, Key("n", "a"))
    assert 'rest_client_requests_total{code="<error>",method="GET"} 4.0' in rig.kube.meter.text().decode()


@pytest.mark.looptime(start=100)
async def test_the_bucket_spreads_writes_after_its_burst():
    bucket = TokenBucket(rate=10, burst=5)
    loop = asyncio.get_running_loop()
    done = []

    async def write():
        await bucket.take()
        done.append(loop.time() - 100)

    await asyncio.gather(*(write() for _ in range(25)))
    assert sum(when < 0.001 for when in done) == 5
    assert max(done) == pytest.approx(2.0)


def test_merge_patches():
    assert merged({"a": {"b": 1, "c": 2}, "l": [1]}, {"a": {"b": None, "d": 3}, "l": [2]}) == {"a": {"c": 2, "d": 3}, "l": [2]}


def pair():
    authority = certificates.make_authority(ec.generate_private_key(ec.SECP256R1()), "CA", certificates.Moment(_utc(), 3))
    return authority, ca.Signer(authority, _utc).client_pair()


def test_a_kubeconfig_with_a_client_certificate(tmp_path):
    authority, (certificate, key) = pair()
    text = {
        name: base64.b64encode(data).decode()
        for name, data in (("ca", authority.pem().encode()), ("crt", certificate), ("key", key))
    }
    config = {
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://h:1/", "certificate-authority-data": text["ca"]}}],
        "users": [{"name": "u", "user": {"client-certificate-data": text["crt"], "client-key-data": text["key"]}}],
    }  # fmt: skip
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    connection = kube_config.load({"KUBECONFIG": str(path)})
    assert connection.server == "https://h:1"
    assert connection.token() == ""
    assert connection.tls.cert_store_stats()["x509_ca"] == 1
    path.write_text("{}")
    with pytest.raises(Invalid, match="current-context"):
        kube_config.load({"KUBECONFIG": str(path)})


def test_a_pods_service_account(tmp_path):
    (tmp_path / "ca.crt").write_text(pair()[0].pem())
    (tmp_path / "token").write_text("secret\n")
    env = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    connection = kube_config.load(env, tmp_path)
    assert connection.server == "https://[fd00::1]:443"
    assert connection.token() == "secret"
    with pytest.raises(Invalid, match="KUBECONFIG"):
        kube_config.load({}, tmp_path)
