"""Offline token checks: each numbered obligation of folkmoot_core.tokens, and that a refusal says nothing of the token."""

from __future__ import annotations

import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from folkmoot_core import tokens
from folkmoot_core.errors import Unauthorized

KEY, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
ISSUER, AUDIENCE, NAMESPACE, NOW = "https://issuer", "folkmoot-broker", "folkmoot-acme", 1_800_000_000.0


def jwks(*keys):
    made = [{**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(k.public_key())), "kid": f"k{n}"} for n, k in enumerate(keys)]
    return json.dumps({"keys": made})


def token(key=KEY, kid="k0", algorithm="ES256", **changes):
    claims = {
        "iss": ISSUER, "aud": [AUDIENCE], "sub": f"system:serviceaccount:{NAMESPACE}:agent-loom", "exp": NOW + 600, "nbf": NOW - 1,
        "kubernetes.io": {"pod": {"name": "agent-loom-0"}},
    }  # fmt: skip
    claims = {k: v for k, v in {**claims, **changes}.items() if v is not None}
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid})


def verify(text, now=NOW, namespace: str | None = NAMESPACE, keys=None):
    return tokens.verify(text, keys or jwks(KEY), issuer=ISSUER, audience=AUDIENCE, namespace=namespace, now=now)


def test_a_good_token_says_who_calls():
    caller = verify(token())
    assert (caller.namespace, caller.service_account, caller.pod) == (NAMESPACE, "agent-loom", "agent-loom-0")
    assert verify(token(**{"kubernetes.io": "text"})).pod == ""


def test_any_namespace_where_the_verifier_serves_all_of_them():
    assert verify(token(sub="system:serviceaccount:folkmoot-globex:core"), namespace=None).namespace == "folkmoot-globex"


BAD = {
    "another key": lambda: token(OTHER),
    "an unknown key id": lambda: token(kid="k9"),
    "a shared secret": lambda: token("s" * 32, algorithm="HS256"),
    "no signature": lambda: token(None, algorithm="none"),
    "another issuer": lambda: token(iss="https://evil"),
    "another audience": lambda: token(aud=["folkmoot-ledger"]),
    "expired": lambda: token(exp=NOW - 60),
    "no expiry": lambda: token(exp=None),
    "not valid yet": lambda: token(nbf=NOW + 60),
    "another namespace": lambda: token(sub="system:serviceaccount:folkmoot-globex:agent-loom"),
    "a person": lambda: token(sub="ana"),
    "too long": lambda: "x" * (tokens.MAX_TOKEN + 1),
    "rubbish": lambda: "a.b.c",
    "nothing": lambda: "",
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD.keys())
def test_what_is_refused(make):
    text = make()
    with pytest.raises(Unauthorized) as refused:
        verify(text)
    assert len(text) < 16 or text not in str(refused.value)


@pytest.mark.parametrize("keys", ["{}", "[]", '{"keys": [{}]}', "not json"])
def test_a_jwks_that_is_none_lets_nobody_in(keys):
    with pytest.raises(Unauthorized):
        verify(token(), keys=keys)


def test_clocks_of_nodes_may_differ_a_little():
    assert verify(token(exp=NOW - tokens.LEEWAY + 1)).service_account == "agent-loom"
