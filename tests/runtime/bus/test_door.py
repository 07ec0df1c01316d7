"""The router's door: a token in, a password for exactly that participant out; and the client that asks for it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from folkmoot_core import names
from folkmoot_core.credentials import CredentialAnswer
from folkmoot_core.document import AgentEntry, Identity, TenantDocument
from folkmoot_core.errors import FolkmootError, LimitReached, Unauthorized, Unavailable
from folkmoot_core.identity import GrantsV1
from folkmoot_core.resources import AgentSpec
from folkmoot_core.signing import SigningKey
from folkmoot_runtime.bus import credentials
from folkmoot_runtime.bus.connection import RedisConnectionError
from folkmoot_runtime.bus.directory import DocumentDirectory
from folkmoot_runtime.bus.door import Door
from folkmoot_runtime.trust import Trust

NOW = 1_700_000_000.0
SIGNER = ec.generate_private_key(ec.SECP256R1())
KEY = SigningKey(Ed25519PrivateKey.generate())


def document(*agents: str) -> TenantDocument:
    identity = Identity(name="a", scope="s", cause="I test.", seed="1", commitment="2", grants=GrantsV1())
    spec = AgentSpec.model_validate({"cause": "I test.", "model": {"provider": "p", "name": "m"}})
    entries = tuple(AgentEntry(name=name, spec=spec, identity=identity) for name in agents)
    return TenantDocument(
        tenant="acme", tenant_uid="u", namespace="folkmoot-acme", generation=1, identity=identity, agents=entries
    )


def token(account: str, audience: str = names.AUDIENCE_BUS, namespace: str = "folkmoot-acme", pod: str = "pod-1") -> str:
    claims = {
        "iss": "https://issuer", "aud": [audience], "exp": NOW + 600, "sub": f"system:serviceaccount:{namespace}:{account}",
        "kubernetes.io": {"pod": {"name": pod}},
    }  # fmt: skip
    return jwt.encode(claims, SIGNER, algorithm="ES256", headers={"kid": "k"})


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(SIGNER.public_key()))
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [{**jwk, "kid": "k", "alg": "ES256", "use": "sig"}]}))
    (tmp_path / "issuer").write_text("https://issuer\n")
    (tmp_path / "ca.crt").write_text("")
    return Trust(tmp_path, "folkmoot-acme", clock=lambda: NOW)


class Grants:
    """Accounts that remember whom they granted."""

    def __init__(self) -> None:
        self.granted: list[tuple[str, str, bytes]] = []
        self.failing: Exception | None = None

    async def grant(self, participant: str, pod: str, public: bytes) -> CredentialAnswer:
        if self.failing is not None:
            raise self.failing
        self.granted.append((participant, pod, public))
        return CredentialAnswer(username=names.bus_user(participant), password="p", expires=int(NOW))


async def ask(door: Door, bearer: str, body: dict[str, Any] | None = None) -> httpx2.Response:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=door.app()), base_url="http://door") as client:
        given = {"public_key": KEY.public_text()} if body is None else body
        return await client.post("/v1/bus-credentials", json=given, headers={"Authorization": f"Bearer {bearer}"})


async def test_the_token_alone_says_who_it_is_for(trust: Trust) -> None:
    grants: Any = Grants()
    door = Door(trust, grants, DocumentDirectory(document("athena")))
    for account, user in (("agent-athena", "agent-athena"), ("core", "core")):
        answer = await ask(door, token(account))
        assert (answer.status_code, answer.json()["username"]) == (200, user)
    assert grants.granted == [("athena", "pod-1", KEY.public), ("core", "pod-1", KEY.public)]


@pytest.mark.parametrize(
    ("bearer", "body", "status"),
    [
        ("", None, 401),
        ("rubbish", None, 401),
        (token("agent-athena", audience="folkmoot-broker"), None, 401),
        (token("agent-athena", namespace="folkmoot-other"), None, 401),
        (token("agent-stranger"), None, 403),
        (token("agent-core"), None, 403),
        (token("broker"), None, 403),
        (token("folkmoot-owner"), None, 403),
        (token("agent-athena"), {}, 400),
        (token("agent-athena"), {"public_key": "x" * 44}, 400),
        (token("agent-athena"), {"public_key": base64.b64encode(b"x" * 33).decode()}, 400),
        (token("agent-athena"), {"public_key": KEY.public_text(), "participant": "core"}, 400),
        (token("agent-athena"), {"public_key": "x" * 9000}, 429),
    ],
)
async def test_nobody_else_gets_in(trust: Trust, bearer: str, body: dict[str, Any] | None, status: int) -> None:
    grants: Any = Grants()
    answer = await ask(Door(trust, grants, DocumentDirectory(document("athena"))), bearer, body)
    assert (answer.status_code, grants.granted) == (status, [])


async def test_before_the_document_agents_wait_and_the_core_does_not(trust: Trust) -> None:
    grants: Any = Grants()
    door = Door(trust, grants, DocumentDirectory())
    waiting = await ask(door, token("agent-athena"))
    assert (waiting.status_code, waiting.headers["Retry-After"]) == (503, "2")
    assert (await ask(door, token("core"))).status_code == 200


async def test_a_bus_that_is_away_is_said_so(trust: Trust) -> None:
    grants: Any = Grants()
    grants.failing = RedisConnectionError("secret-canary")
    answer = await ask(Door(trust, grants, DocumentDirectory()), token("core"))
    assert answer.status_code == 503
    assert "canary" not in answer.text


@pytest.mark.parametrize(
    ("status", "content", "error"),
    [
        (401, b"", Unauthorized), (403, b"", Unauthorized), (503, b"", Unavailable), (429, b"", Unavailable),
        (200, b"{}", Unavailable), (400, b"", FolkmootError),
    ],
)  # fmt: skip
def test_what_the_client_makes_of_answers(status: int, content: bytes, error: type[FolkmootError]) -> None:
    with pytest.raises(error):
        credentials._answer(status, content)


async def test_flooders_are_told_to_wait(trust: Trust) -> None:
    grants: Any = Grants()
    grants.failing = LimitReached("flooded", reason="Flooded")
    assert (await ask(Door(trust, grants, DocumentDirectory()), token("core"))).status_code == 429
