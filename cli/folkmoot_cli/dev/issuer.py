"""What a cluster's API server gives the processes: ServiceAccount tokens, and the JWKS that verifies them.

The key lives in this process's memory and dies with it. Tokens look exactly like projected ones, so the same code verifies both.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER = "https://folkmoot.dev.local"
LIFETIME = 3600
REFRESH = LIFETIME // 2
KEY_ID = "dev"


@dataclass
class Issuer:
    """Signs tokens for the ServiceAccounts of the tenants' namespaces."""

    _key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def jwks(self) -> str:
        """The public half as a JWKS document."""
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        return json.dumps({"keys": [{**public, "kid": KEY_ID, "use": "sig", "alg": "ES256"}]})

    def token(self, namespace: str, account: str, audience: str, pod: str = "") -> str:
        """One audience-bound token, good for an hour."""
        now = int(time.time())
        claims = {
            "iss": ISSUER, "sub": f"system:serviceaccount:{namespace}:{account}", "aud": [audience], "iat": now, "nbf": now,
            "exp": now + LIFETIME, "kubernetes.io": {"namespace": namespace, "pod": {"name": pod}, "serviceaccount": {"name": account}},
        }  # fmt: skip
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": KEY_ID})

    def project(self, directory: Path, namespace: str, account: str, audiences: tuple[str, ...], pod: str) -> None:
        """Write (or renew) one token file per audience, as the kubelet does."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for audience in audiences:
            fresh = directory / f".{audience}"
            fresh.write_text(self.token(namespace, account, audience, pod))
            fresh.chmod(0o600)
            fresh.replace(directory / audience)
