"""Trust material of a pod: the CA bundle and JWKS that the operator keeps current, and who a bearer token proves.

Files are re-read when they change, so a rotated key or bundle needs no restart. What an attacker who can write these
files could do: pass as any workload of this tenant; they are a ConfigMap guarded by the admission policy.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from folkmoot_core.errors import Unauthorized

if TYPE_CHECKING:
    from folkmoot_core.tokens import Caller


@dataclass
class Trust:
    """Reads `ca.crt`, `jwks.json` and `issuer` from one directory. `clock` gives epoch seconds."""

    directory: Path
    namespace: str
    clock: Callable[[], float] = time.time
    _cache: dict[str, tuple[int, str]] = field(default_factory=dict)

    def caller(self, authorization: str | None, audience: str) -> Caller:
        """Verify an `Authorization: Bearer` header for one audience; raises `Unauthorized`."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized(f"no bearer token; expected a ServiceAccount token for audience {audience}")
        from folkmoot_core import tokens  # here, because the agent verifies nobody and its memory is counted

        issuer = self.read("issuer").strip()
        return tokens.verify(
            token.strip(),
            self.read("jwks.json"),
            issuer=issuer,
            audience=audience,
            namespace=self.namespace,
            now=self.clock(),
        )

    def client_context(self) -> ssl.SSLContext:
        """TLS towards a peer of this tenant or the operator: only the installation's CA is trusted."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=self.read("ca.crt"))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context

    def read(self, name: str) -> str:
        """Text of a trust file, from memory unless it changed."""
        path = self.directory / name
        stamp = path.stat().st_mtime_ns
        cached = self._cache.get(name)
        if cached is None or cached[0] != stamp:
            cached = (stamp, path.read_text())
            self._cache[name] = cached
        return cached[1]
