"""What the ledger's process of a tenant reaches, without a cluster: for tests that have a log timestamped by real processes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from authority_process import free_port
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from folkmoot_cli.dev.issuer import Issuer
from folkmoot_cli.dev.stand_in import StandIn
from folkmoot_core import names
from folkmoot_core.document import AuditEntry, TenantDocument
from folkmoot_runtime import web
from folkmoot_runtime.broker.forward import Forwarder
from folkmoot_runtime.ledger.client import LedgerClient
from folkmoot_runtime.trust import Trust

NAMESPACE = "folkmoot-acme"


@dataclass
class Core:
    """What the ledger's process reaches: an operator, a conductor with terms, and the broker's own way out."""

    directory: Path
    stand_in: StandIn
    audit: AuditEntry
    port: int

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        trust = Trust(self.directory / "trust", NAMESPACE)
        forwarder = Forwarder(lambda: cast(TenantDocument, SimpleNamespace(audit=self.audit)), trust)

        async def document(request: Request) -> Response:
            trust.caller(request.headers.get("Authorization"), names.AUDIENCE_CONDUCTOR)
            return JSONResponse({"tenant": "acme", "audit": self.audit.model_dump(mode="json")})

        app = web.app([Route("/v1/document", document), *forwarder.routes()], ready=lambda: True)
        app.mount("/operator", self.stand_in.app())
        context = self.stand_in.server_context(self.directory)
        serving = asyncio.create_task(web.serve(app, host="127.0.0.1", port=self.port, context=context))
        try:
            yield
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await forwarder.aclose()

    async def start(self) -> asyncio.subprocess.Process:
        """The ledger's process."""
        url = f"https://127.0.0.1:{self.port}"
        env = {
            "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "FOLKMOOT_TENANT": "acme", "FOLKMOOT_NAMESPACE": NAMESPACE,
            "FOLKMOOT_LISTEN_HOST": "127.0.0.1", "FOLKMOOT_PORT": str(free_port()), "FOLKMOOT_DATA": str(self.directory / "data"),
            "FOLKMOOT_RUN": str(self.directory / "run"), "FOLKMOOT_TOKENS": str(self.directory / "tokens"),
            "FOLKMOOT_TRUST": str(self.directory / "trust"), "FOLKMOOT_OPERATOR_URL": f"{url}/operator",
            "FOLKMOOT_CONDUCTOR_URL": url, "FOLKMOOT_BROKER_URL": url,
            "FOLKMOOT_LEDGER_SOCKETS": f"{self.directory / 'c.sock'}=core/conductor",
        }  # fmt: skip
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "folkmoot_runtime.ledger", env=env, stderr=asyncio.subprocess.PIPE
        )

    def client(self) -> LedgerClient:
        """As the conductor's container."""
        return LedgerClient(f"unix://{self.directory / 'c.sock'}", None, None, 60.0)

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[LedgerClient]:
        """A ledger that is asked to stop at the end."""
        process, client = await self.start(), self.client()
        try:
            yield client
        finally:
            await client.aclose()
            process.terminate()
            _, said = await process.communicate()
        assert process.returncode == 0, said.decode()


def new_core(directory: Path) -> Core:
    """With trust and tokens of an installation of its own."""
    issuer = Issuer()
    stand_in = StandIn(issuer)
    stand_in.write_trust(directory / "trust")
    audiences = (names.AUDIENCE_CONDUCTOR, names.AUDIENCE_BROKER, names.AUDIENCE_OPERATOR)
    issuer.project(directory / "tokens", NAMESPACE, names.SA_CORE, audiences, "core-0")
    issuer.project(directory / "time", names.SYSTEM_NAMESPACE, names.SA_TIMESTAMPS, (names.AUDIENCE_OPERATOR,), "timestamps-0")
    return Core(directory, stand_in, AuditEntry(), free_port())
