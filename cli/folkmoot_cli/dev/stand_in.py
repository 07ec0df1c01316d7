"""What stands in for the operator's endpoint: certificates for the processes, and reports taken in memory.

The same two routes and the same verification as the operator's (docs/architecture.md); names are those of this machine.
"""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from folkmoot_cli.dev.issuer import ISSUER, Issuer
from folkmoot_core import certificates, names, tokens
from folkmoot_core.certificates import Authority, Moment
from folkmoot_core.document import CertificateAnswer, CertificateRequest, ProviderReport, Report, SessionReport
from folkmoot_core.errors import FolkmootError, Invalid

LOOPBACK = "127.0.0.1"
MAX_BODY = 1024 * 1024
SERVING = (names.SA_CORE, names.SA_BROKER, names.SA_WITNESS, names.SA_TIMESTAMPS)  # who gets certificates
Model = TypeVar("Model", bound=BaseModel)


def _moment() -> Moment:
    return Moment(datetime.now(UTC), x509.random_serial_number())


@dataclass
class StandIn:
    """One per run, for all tenants. `sessions` and `providers` hold the newest report by (namespace, name)."""

    issuer: Issuer
    authority: Authority = field(
        default_factory=lambda: certificates.make_authority(ec.generate_private_key(ec.SECP256R1()), "folkmoot dev", _moment())
    )
    sessions: dict[tuple[str, str], SessionReport] = field(default_factory=dict)
    providers: dict[tuple[str, str], ProviderReport] = field(default_factory=dict)
    vkeys: dict[str, str] = field(default_factory=dict)

    def app(self) -> Starlette:
        """The endpoint's routes."""
        routes = [
            Route("/v1/certificates", self._certificate, methods=["POST"]),
            Route("/v1/reports", self._report, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={FolkmootError: _refuse})

    def write_trust(self, directory: Path) -> None:
        """The files that are a ConfigMap in a cluster."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "ca.crt").write_text(self.authority.pem())
        (directory / "jwks.json").write_text(self.issuer.jwks())
        (directory / "issuer").write_text(ISSUER)

    def server_context(self, directory: Path) -> ssl.SSLContext:
        """TLS of the endpoint itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = certificates.sign_serving(self.authority, key.public_key(), [LOOPBACK], _moment())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(context, directory / "endpoint", leaf, key)
        return context

    def client_context(self, directory: Path) -> ssl.SSLContext:
        """The operator's side of the conductor's operator door: the one certificate with clientAuth."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = certificates.sign_client(self.authority, key.public_key(), "folkmoot-operator", _moment())
        context = ssl.create_default_context(cadata=self.authority.pem())
        self._load(context, directory / "client", leaf, key)
        return context

    @staticmethod
    def _load(context: ssl.SSLContext, stem: Path, leaf: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        certificate, private = stem.with_suffix(".crt"), stem.with_suffix(".key")
        certificate.write_text(certificates.pem(leaf))
        private.touch(mode=0o600)
        private.write_bytes(certificates.key_pem(key))
        context.load_cert_chain(certificate, private)

    async def _certificate(self, request: Request) -> Response:
        self._caller(request)
        asked = await _parse(request, CertificateRequest)
        key = certificates.request_key(asked.csr)
        leaf = certificates.sign_serving(self.authority, key, [LOOPBACK, "localhost"], _moment())
        answer = CertificateAnswer(
            certificate=certificates.pem(leaf), ca=self.authority.pem(), not_after=leaf.not_valid_after_utc.isoformat()
        )
        return JSONResponse(answer.model_dump())

    async def _report(self, request: Request) -> Response:
        caller = self._caller(request)
        report = await _parse(request, Report)
        for session in report.sessions:
            known = self.sessions.get((caller.namespace, session.name))
            if known is None or known.uid != session.uid or session.sequence > known.sequence:
                self.sessions[caller.namespace, session.name] = session
        for provider in report.providers:
            self.providers[caller.namespace, provider.name] = provider
        if report.vkey:
            self.vkeys[caller.namespace] = report.vkey
        return Response(status_code=204)

    def _caller(self, request: Request) -> tokens.Caller:
        token = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        caller = tokens.verify(
            token, self.issuer.jwks(), issuer=ISSUER, audience=names.AUDIENCE_OPERATOR, namespace=None, now=time.time()
        )
        if caller.service_account not in SERVING:
            raise Invalid(f"{caller.service_account} serves nothing; expected one of {', '.join(SERVING)}")
        return caller


async def _parse(request: Request, model: type[Model]) -> Model:
    try:
        return model.model_validate_json((await request.body())[:MAX_BODY])
    except ValidationError as error:
        raise Invalid(f"{model.__name__}: {error.error_count()} fields do not fit") from error


async def _refuse(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, status_code=403)
