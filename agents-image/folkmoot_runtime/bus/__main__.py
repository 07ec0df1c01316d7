"""The router process: `python -m folkmoot_runtime.bus`. It prepares what Valkey starts with, then routes and hands out passwords.

Order: ACL file and certificate into the shared memory directory (server.py waits for them), then the Unix socket, then the
door. Restarting at any moment is harmless: what was read and not settled is pending, the rest is in Valkey.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from folkmoot_core import names
from folkmoot_runtime import process, web
from folkmoot_runtime.bus.accounts import Accounts
from folkmoot_runtime.bus.connection import RedisError, connect
from folkmoot_runtime.bus.directory import LONGEST_LOOK, ConductorDirectory
from folkmoot_runtime.bus.door import Door
from folkmoot_runtime.bus.recorder import Recorder
from folkmoot_runtime.bus.resp import Login
from folkmoot_runtime.bus.router import Router
from folkmoot_runtime.bus.server import Paths, paths
from folkmoot_runtime.bus.upkeep import Upkeep
from folkmoot_runtime.ledger.client import LedgerClient
from folkmoot_runtime.peer import Peer
from folkmoot_runtime.settings import Settings, from_environment
from folkmoot_runtime.tls import ServingCertificate
from folkmoot_runtime.trust import Trust

log = logging.getLogger(__name__)
ROUTER_USER = "router"
RETRY_SECONDS = 0.5
LEDGER_TIMEOUT = 20.0


def prepare(where: Paths) -> Login:
    """The ACL file Valkey starts with: nobody but the router. Its password outlives the router's container, not the pod."""
    where.run.mkdir(parents=True, exist_ok=True)
    if not where.password.exists():
        _write(where.password, secrets.token_urlsafe(32))
    password = where.password.read_text()
    hashed = hashlib.sha256(password.encode()).hexdigest()
    _write(where.acl, f"user default off resetchannels -@all\nuser {ROUTER_USER} on allkeys allchannels +@all #{hashed}\n")
    return Login(ROUTER_USER, password)


def _write(path: Path, text: str) -> None:
    """Replace a file atomically, readable by owner and the core pod's group."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


async def reach(redis: Any) -> None:
    """Until Valkey answers; it starts after this process has prepared its files, and first reads its log."""
    waiting = False
    while True:
        try:
            await redis.ping()
        except (RedisError, OSError) as error:
            if not waiting:
                log.warning("waiting for the bus", extra={"error": type(error).__name__})
            waiting = True
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return


async def reread(redis: Any, where: Paths) -> None:
    """Have Valkey read its renewed certificate. It re-reads the files though their names stay the same."""
    while True:
        await reach(redis)
        try:
            await redis.config_set("tls-cert-file", str(where.certificate), "tls-key-file", str(where.key))
        except (RedisError, OSError) as error:
            log.warning("the bus did not take its new certificate", extra={"error": type(error).__name__})
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return


async def run(settings: Settings) -> None:
    """Everything this process does, until cancelled."""
    where = paths(settings)
    trust = Trust(settings.trust, settings.namespace)
    login = prepare(where)
    certificate = ServingCertificate(settings, trust, where.run)
    await certificate.obtain()
    redis = connect(f"unix://{where.socket}", login, keep=True)
    patience = min(settings.timeout, LONGEST_LOOK)
    conductor = Peer(settings.conductor_url, settings.token_file(names.AUDIENCE_CONDUCTOR), trust, patience)
    directory = ConductorDirectory(conductor)
    accounts = Accounts(redis, settings.tenant)
    token = None if settings.ledger_url.startswith("unix://") else settings.token_file(names.AUDIENCE_LEDGER)
    ledger = LedgerClient(settings.ledger_url, token, trust, LEDGER_TIMEOUT)
    router = Router(redis, settings.tenant, directory, accounts)
    door = Door(trust, accounts, directory)
    await reach(redis)
    await accounts.load()

    if settings.bus_url.startswith("rediss:"):
        certificate.on_renewal(lambda: reread(redis, where))
    door.ready = True
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(certificate.renew_forever())
        tasks.create_task(directory.follow())
        tasks.create_task(router.run())
        tasks.create_task(Upkeep(redis, settings.tenant, directory, accounts, router).run())
        tasks.create_task(Recorder(redis, settings.tenant, directory, ledger).run())
        tasks.create_task(
            web.serve(
                door.app(), host=settings.listen_host, port=settings.port or names.PORT_ROUTER,
                context=certificate.server_context(),
            )
        )  # fmt: skip


async def main() -> None:
    """From the environment."""
    await run(from_environment())


if __name__ == "__main__":
    sys.exit(process.main("router", main))
