"""`python -m folkmoot_runtime.broker`: builds the broker from its environment and runs it until SIGTERM."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sys
from pathlib import Path

from folkmoot_core import names
from folkmoot_core.errors import Conflict
from folkmoot_runtime import process, web
from folkmoot_runtime import settings as environment
from folkmoot_runtime.broker import door, options
from folkmoot_runtime.broker.attempts import Attempts
from folkmoot_runtime.broker.documents import Documents
from folkmoot_runtime.broker.engine import Engine
from folkmoot_runtime.broker.forward import Forwarder
from folkmoot_runtime.broker.journal import Journal
from folkmoot_runtime.broker.providers.registry import Registry
from folkmoot_runtime.broker.reports import Reporter
from folkmoot_runtime.broker.slots import Slots
from folkmoot_runtime.ledger.client import LedgerClient
from folkmoot_runtime.peer import Peer
from folkmoot_runtime.settings import Settings
from folkmoot_runtime.tls import ServingCertificate
from folkmoot_runtime.trust import Trust

log = logging.getLogger("folkmoot_runtime.broker")
LEDGER_SECONDS = 10.0  # for a receipt; beyond it the agent is told to ask again


async def serve(settings: Settings, choices: options.Options) -> None:
    """Serve until cancelled."""
    trust = Trust(settings.trust, settings.namespace)
    data = settings.data / "broker"
    registry = Registry(choices.files)
    conductor = Peer(settings.conductor_url, settings.token_file(names.AUDIENCE_CONDUCTOR), trust, settings.timeout)
    operator = Peer(settings.operator_url, settings.token_file(names.AUDIENCE_OPERATOR), trust, settings.timeout)
    ledger = LedgerClient(settings.ledger_url, settings.token_file(names.AUDIENCE_LEDGER), trust, LEDGER_SECONDS)
    documents = Documents(conductor, data / "document.json", settings.tenant)
    documents.load()
    attempts = Attempts(registry, Slots(), choices.deadline)
    engine = Engine(Journal(data / "calls.db"), ledger, attempts, lambda: documents.current)
    reporter = Reporter(operator, registry, lambda: documents.current, lambda: engine.number("reports"))
    engine.observe = reporter.observe
    forwarder = Forwarder(lambda: documents.current, trust)
    try:
        in_doubt = await engine.recover()
        log.info("journal opened", extra={"in_doubt": in_doubt})
        async with asyncio.TaskGroup() as group:
            group.create_task(documents.follow())
            group.create_task(engine.flush_forever())
            group.create_task(reporter.follow())
            group.create_task(_door(settings, trust, engine, forwarder))
    finally:
        await engine.close()
        for resource in (registry, conductor, operator, ledger, forwarder):
            await resource.aclose()


async def _door(settings: Settings, trust: Trust, engine: Engine, forwarder: Forwarder) -> None:
    certificate = ServingCertificate(settings, trust, settings.run / "broker-tls")
    await certificate.obtain()
    async with asyncio.TaskGroup() as group:
        group.create_task(certificate.renew_forever())
        port = settings.port or names.PORT_BROKER
        log.info("serving", extra={"port": port})
        app = door.app(engine, trust, forwarder)
        group.create_task(web.serve(app, host=settings.listen_host, port=port, context=certificate.server_context()))


def _only_one(directory: Path) -> int:
    """Hold the volume's lock for the life of the process: two brokers on one journal would each make a call once."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Conflict(f"{directory}: another broker has this volume; stop it first", reason="VolumeInUse") from None
    return descriptor


async def main() -> None:
    """From the environment."""
    settings, choices = environment.from_environment(), options.from_environment()
    _only_one(settings.data / "broker")
    await serve(settings, choices)


if __name__ == "__main__":
    sys.exit(process.main("broker", main))
