"""The cluster's ServiceAccount issuer and its public keys, read from the API server and kept current."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Final

from folkmoot_core import tokens
from folkmoot_core.errors import FolkmootError, Invalid, Unauthorized
from folkmoot_core.tokens import Caller
from folkmoot_operator.kube import Kube

log = logging.getLogger(__name__)
_CONFIGURATION: Final = "/.well-known/openid-configuration"
_JWKS: Final = "/openid/v1/jwks"


@dataclass
class Discovery:
    """`refresh` at start and every few minutes."""

    kube: Kube
    issuer: str = ""
    jwks: str = ""

    async def refresh(self) -> bool:
        """Read issuer and keys again; True if they changed. Raises what the API server answered."""
        try:
            issuer = str(json.loads(await self.kube.raw(_CONFIGURATION))["issuer"])
            keys = json.loads(await self.kube.raw(_JWKS))["keys"]
        except (ValueError, KeyError, TypeError) as error:
            raise Invalid(f"the API server's issuer discovery is not readable ({type(error).__name__})") from error
        # Sorted, so that a replica of the API server that lists keys in another order changes no ConfigMap.
        jwks = json.dumps({"keys": sorted(keys, key=lambda k: str(k.get("kid")))}, sort_keys=True, separators=(",", ":"))
        changed = (issuer, jwks) != (self.issuer, self.jwks)
        self.issuer, self.jwks = issuer, jwks
        return changed

    async def try_refresh(self) -> bool:
        """As `refresh`, but a failure is logged and keeps what is known."""
        try:
            return await self.refresh()
        except FolkmootError as error:
            log.warning("the cluster's token keys could not be read again", extra={"error": str(error)})
            return False

    def caller(self, authorization: str | None, audience: str, now: float) -> Caller:
        """Who a bearer token of this audience proves, in whatever namespace; raises `Unauthorized`."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized(f"no bearer token; expected a ServiceAccount token for audience {audience}")
        return tokens.verify(token.strip(), self.jwks, issuer=self.issuer, audience=audience, namespace=None, now=now)
