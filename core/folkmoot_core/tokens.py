"""Offline verification of projected, audience-bound ServiceAccount tokens. architecture.md §2, wiring.md §1.

Pure: the JWKS text and the time come in. Obligations, numbered here and at the steps:
1. signature by a key of the JWKS, asymmetric algorithms only; 2. issuer; 3. audience is exactly this service's;
4. not expired, not before; 5. the token's namespace is the verifier's own (or one the caller of `verify` passes);
6. the subject is a ServiceAccount. The caller still owes: what that account may do here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import jwt

from folkmoot_core.errors import Unauthorized

ALGORITHMS = ["RS256", "ES256"]
LEEWAY = 10  # seconds of clock difference between nodes
MAX_TOKEN = 16 * 1024


@dataclass(frozen=True)
class Caller:
    """Who a token proves its bearer to be."""

    namespace: str
    service_account: str
    pod: str = ""
    expires: int = 0  # epoch seconds


def verify(  # noqa: PLR0913 - a token, what it is checked with, and what it is checked against
    token: str, jwks: str, *, issuer: str, audience: str, namespace: str | None, now: float
) -> Caller:
    """Check obligations 1–6 and return the caller; raises `Unauthorized` with a sentence that holds nothing of the token.

    `namespace=None` skips obligation 5: for the operator's endpoint, which serves every tenant.
    """
    if len(token) > MAX_TOKEN:
        raise Unauthorized(f"token is longer than {MAX_TOKEN} characters")
    claims = _claims(token, jwks, issuer, audience)
    expires = claims.get("exp")
    if not isinstance(expires, int | float) or now > expires + LEEWAY:  # 4
        raise Unauthorized(
            "token has expired or carries no expiry; a fresh one is projected every few minutes", reason="TokenExpired"
        )
    not_before = claims.get("nbf", 0)
    if not isinstance(not_before, int | float) or now < not_before - LEEWAY:  # 4
        raise Unauthorized("token is not valid yet", reason="TokenNotYetValid")
    parts = str(claims.get("sub", "")).split(":")
    if len(parts) != 4 or parts[:2] != ["system", "serviceaccount"]:  # 6
        raise Unauthorized("token's subject is not a ServiceAccount")
    if namespace is not None and parts[2] != namespace:  # 5
        raise Unauthorized(f"token belongs to another namespace than {namespace}", reason="ForeignNamespace")
    kubernetes = claims.get("kubernetes.io")
    pod = kubernetes.get("pod") if isinstance(kubernetes, dict) else None
    pod_name = str(pod.get("name", "")) if isinstance(pod, dict) else ""
    return Caller(namespace=parts[2], service_account=parts[3], pod=pod_name, expires=int(expires))


def _claims(token: str, jwks: str, issuer: str, audience: str) -> dict[str, object]:
    try:
        key = _key(token, jwks)
        options: jwt.types.Options = {
            "require": ["exp", "iss", "aud", "sub"],
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
        }
        claims: dict[str, object] = jwt.decode(  # 1, 2, 3
            token, key=key, algorithms=ALGORITHMS, audience=audience, issuer=issuer, options=options
        )
    except (jwt.PyJWTError, ValueError, KeyError, AttributeError, TypeError) as error:  # the last two: a JWKS of another shape
        raise Unauthorized(f"token refused: {type(error).__name__}; expected audience {audience}") from error
    return claims


def _key(token: str, jwks: str) -> jwt.PyJWK:
    header = jwt.get_unverified_header(token)
    keys = [k for k in json.loads(jwks).get("keys", []) if k.get("kid") == header.get("kid")]
    if len(keys) != 1:
        raise Unauthorized("token is signed by a key that is not in the mounted JWKS", reason="UnknownKey")
    return jwt.PyJWK(keys[0])
