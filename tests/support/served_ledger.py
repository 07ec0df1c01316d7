"""The real ledger process behind its TLS door, with a stand-in for the operator's endpoint: for whoever reads a log that runs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from folkmoot_cli.dev.issuer import Issuer
from folkmoot_cli.dev.stand_in import StandIn
from folkmoot_core import names
from folkmoot_runtime import web
from folkmoot_runtime.ledger.client import LedgerClient
from folkmoot_runtime.trust import Trust

NAMESPACE = "folkmoot-acme"
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@dataclass
class Tenant:
    """A ledger process and what stands around it."""

    directory: Path
    issuer: Issuer
    operator: StandIn
    url: str
    socket: Path

    def client(self, account: str, timeout: float = 60.0) -> LedgerClient:
        return LedgerClient(self.url, self.token(account, names.AUDIENCE_LEDGER), self.trust(), timeout)

    def token(self, account: str, audience: str) -> Path:
        directory = self.directory / "tokens" / account
        self.issuer.project(directory, NAMESPACE, account, (audience,), account)
        return directory / audience

    def conductor(self) -> LedgerClient:
        """At the Unix socket."""
        return LedgerClient(f"unix://{self.socket}", None, None, 60)

    def reading(self) -> list[str]:
        """The CLI's words for reading this log as its auditor."""
        token = self.token(names.SA_AUDITOR, names.AUDIENCE_LEDGER)
        return ["--source", self.url, "--token-file", str(token), "--ca-file", f"{self.directory}/trust/ca.crt"]

    def trust(self) -> Trust:
        return Trust(self.directory / "trust", NAMESPACE)


@asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[Tenant]:
    """A tenant's ledger, serving."""
    issuer = Issuer()
    operator = StandIn(issuer)
    operator.write_trust(tmp_path / "trust")
    operator_port, port = free_port(), free_port()
    context = operator.server_context(tmp_path)
    endpoint = asyncio.create_task(web.serve(operator.app(), host="127.0.0.1", port=operator_port, context=context))
    made = Tenant(tmp_path, issuer, operator, f"https://127.0.0.1:{port}", tmp_path / "c.sock")
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("core", "agents-image")),
        "FOLKMOOT_TENANT": "acme",
        "FOLKMOOT_NAMESPACE": NAMESPACE,
        "FOLKMOOT_DATA": str(tmp_path / "data"),
        "FOLKMOOT_RUN": str(tmp_path / "run"),
        "FOLKMOOT_TOKENS": str(made.token("core", names.AUDIENCE_OPERATOR).parent),
        "FOLKMOOT_TRUST": str(tmp_path / "trust"),
        "FOLKMOOT_LISTEN_HOST": "127.0.0.1",
        "FOLKMOOT_PORT": str(port),
        "FOLKMOOT_OPERATOR_URL": f"https://127.0.0.1:{operator_port}",
        "FOLKMOOT_LEDGER_SOCKETS": f"{made.socket}=core/conductor",
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "folkmoot_runtime.ledger", env=env)
    try:
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        ended = await process.wait()
        endpoint.cancel()
        await asyncio.gather(endpoint, return_exceptions=True)
    assert ended == 0
