"""A serving certificate from the operator: key made in memory, names decided by the token, renewed at two thirds.

wiring.md §2. The private key is written to a memory-backed directory only because TLS libraries load files from there.
A pod that starts while no operator answers waits and says so; a running one serves on with what it has.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from folkmoot_core import names
from folkmoot_core.document import CertificateAnswer, CertificateRequest
from folkmoot_runtime.settings import Settings
from folkmoot_runtime.trust import Trust

log = logging.getLogger(__name__)
RETRY_SECONDS = 2.0
MINIMUM_WAIT = 30.0


class ServingCertificate:
    """Obtains and renews one certificate in `directory` (tls.crt, tls.key) and keeps a server context loaded with it."""

    def __init__(self, settings: Settings, trust: Trust, directory: Path) -> None:
        self._settings = settings
        self._trust = trust
        self.certificate = directory / "tls.crt"
        self.key = directory / "tls.key"
        self._not_after = datetime.fromtimestamp(0, UTC)
        self._contexts: list[ssl.SSLContext] = []
        self._renewed: list[Callable[[], Awaitable[None]]] = []

    def server_context(self, *, require_client_certificate: bool = False) -> ssl.SSLContext:
        """A TLS 1.3 server context that follows renewals. With `require_client_certificate`, OpenSSL's purpose check
        refuses serving certificates (they carry serverAuth only): only the operator holds one with clientAuth."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.certificate, self.key)
        if require_client_certificate:
            context.load_verify_locations(cadata=self._trust.read("ca.crt"))
            context.verify_mode = ssl.CERT_REQUIRED
        self._contexts.append(context)
        return context

    def on_renewal(self, action: Callable[[], Awaitable[None]]) -> None:
        """Run `action` after each renewal (the router tells Valkey to re-read)."""
        self._renewed.append(action)

    async def obtain(self) -> None:
        """Ask until the operator answers."""
        while True:
            try:
                await self._request()
            except (httpx2.HTTPError, OSError, ValueError) as error:
                log.warning("waiting for a certificate", extra={"operator": self._settings.operator_url, "error": str(error)})
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def renew_forever(self) -> None:
        """Renew at two thirds of the lifetime; failures are retried while the old certificate still serves."""
        while True:
            left = (self._not_after - datetime.now(UTC)).total_seconds()
            await asyncio.sleep(max(left / 3 * 2 if left > 0 else 0.0, MINIMUM_WAIT))
            await self.obtain()
            for context in self._contexts:
                context.load_cert_chain(self.certificate, self.key)
            for action in self._renewed:
                await action()

    async def _request(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self._settings.pod[:64])])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        body = CertificateRequest(csr=csr.public_bytes(serialization.Encoding.PEM).decode())
        token = self._settings.token_file(names.AUDIENCE_OPERATOR).read_text().strip()
        async with httpx2.AsyncClient(verify=self._trust.client_context(), timeout=self._settings.timeout) as client:
            response = await client.post(
                f"{self._settings.operator_url}/v1/certificates", content=body.model_dump_json(),
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            )  # fmt: skip
        response.raise_for_status()
        answer = CertificateAnswer.model_validate_json(response.content)
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        _write_private(self.key, pem)
        _write_private(self.certificate, answer.certificate.encode())
        self._not_after = datetime.fromisoformat(answer.not_after)


def _write_private(path: Path, data: bytes) -> None:
    """Replace a file atomically, readable by owner and group (the core pod's fsGroup) alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)
