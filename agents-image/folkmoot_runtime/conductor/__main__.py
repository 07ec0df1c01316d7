"""`python -m folkmoot_runtime.conductor`: read back what is stored, open the doors, go on with every session.

Starts and is ready whether or not ledger, bus and operator answer (only the first certificate is waited for, with a sentence
in the log); what needs them waits and says so. Ends within seconds of SIGTERM; SIGKILL at any moment loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from folkmoot_core import names
from folkmoot_core.errors import Invalid
from folkmoot_core.signing import SigningKey
from folkmoot_runtime import process, web
from folkmoot_runtime import settings as environment
from folkmoot_runtime.bus.credentials import RouterDoor
from folkmoot_runtime.bus.valkey import Seat, ValkeyBus
from folkmoot_runtime.conductor.assembly import Conductor, Options, Peers
from folkmoot_runtime.conductor.checks import HttpSandbox
from folkmoot_runtime.conductor.erasure import BrokerCalls
from folkmoot_runtime.conductor.reports import OperatorClient
from folkmoot_runtime.ledger.client import LedgerClient
from folkmoot_runtime.peer import Peer
from folkmoot_runtime.settings import Settings
from folkmoot_runtime.tls import ServingCertificate
from folkmoot_runtime.trust import Trust

log = logging.getLogger("folkmoot_runtime.conductor")


async def run(settings: Settings, env: Mapping[str, str]) -> None:
    """Serve until cancelled."""
    trust = Trust(settings.trust, settings.namespace)
    kek = env.get("FOLKMOOT_KEK_FILE", "")
    options = Options(
        tenant=settings.tenant, directory=settings.data / "conductor", limit=_number(env, "FOLKMOOT_SESSIONS", 8, 1, 1000),
        kek_file=Path(kek) if kek else None,
    )  # fmt: skip
    conductor = Conductor(options, _peers(settings, trust, env))
    await conductor.start()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(
                _serve(conductor, settings, trust, _number(env, "FOLKMOOT_OPERATOR_PORT", names.PORT_CONDUCTOR_OPERATOR))
            )
            group.create_task(conductor.run())
    finally:
        await conductor.stop()


def _peers(settings: Settings, trust: Trust, env: Mapping[str, str]) -> Peers:
    key = SigningKey(Ed25519PrivateKey.generate())
    router = RouterDoor(settings.router_url, settings.token_file(names.AUDIENCE_BUS), trust, settings.timeout)
    over_socket = settings.ledger_url.startswith("unix://")
    ledger_token = None if over_socket else settings.token_file(names.AUDIENCE_LEDGER)
    sandbox = HttpSandbox(settings.sandbox_url, settings.token_file(names.AUDIENCE_SANDBOX)) if settings.sandbox_url else None
    broker = Peer(settings.broker_url, settings.token_file(names.AUDIENCE_BROKER), trust, settings.timeout)
    return Peers(
        bus=ValkeyBus(settings.bus_url, Seat(settings.tenant, names.CORE, settings.pod), key, router, trust),
        ledger=LedgerClient(settings.ledger_url, ledger_token, None if over_socket else trust, settings.timeout),
        operator=OperatorClient(settings, trust), trust=trust, sandbox=sandbox, broker=BrokerCalls(broker), checks_endpoint=settings.sandbox_url,
        endpoints=_endpoints(env.get("FOLKMOOT_SANDBOX_ENDPOINTS", "")),
    )  # fmt: skip


async def _serve(conductor: Conductor, settings: Settings, trust: Trust, operator_port: int) -> None:
    certificate = ServingCertificate(settings, trust, settings.run / "conductor")
    await certificate.obtain()
    service, operator = certificate.server_context(), certificate.server_context(require_client_certificate=True)
    host, port = settings.listen_host, settings.port or names.PORT_CONDUCTOR
    async with asyncio.TaskGroup() as group:
        group.create_task(certificate.renew_forever())
        group.create_task(web.serve(conductor.service_door(), host=host, port=port, context=service, http="httptools"))
        group.create_task(web.serve(conductor.operator_door(), host=host, port=operator_port, context=operator, http="httptools"))
        log.info("doors open", extra={"service": port, "operator": operator_port})


def _endpoints(text: str) -> dict[str, str]:
    """`agent=url,agent=url`."""
    pairs = [item.partition("=") for item in text.split(",") if item]
    if wrong := [name for name, equals, url in pairs if not (name and equals and url)]:
        raise Invalid(f"environment variable FOLKMOOT_SANDBOX_ENDPOINTS: expected agent=url pairs, found {wrong[0]!r}")
    return {name: url.rstrip("/") for name, _, url in pairs}


def _number(env: Mapping[str, str], key: str, default: int, least: int = 1, most: int = 65535) -> int:
    text = env.get(key, "") or str(default)
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise Invalid(f"environment variable {key} is {text!r}; expected a number from {least} to {most}")
    return int(text)


async def main() -> None:
    """From the environment."""
    await run(environment.from_environment(), os.environ)


if __name__ == "__main__":
    sys.exit(process.main("conductor", main))
