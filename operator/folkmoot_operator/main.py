"""The operator's process: settings from the environment, the app, kopf around it, and a prompt end.

A lost Lease ends the process at once (`os._exit`): nothing may be written after it, and no clean-up is worth that risk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import kopf

from folkmoot_core.errors import FolkmootError
from folkmoot_operator import kube, log, shell
from folkmoot_operator.app import App
from folkmoot_operator.conductor_client import HttpConductor
from folkmoot_operator.kube import HttpKube, TokenBucket
from folkmoot_operator.kube_config import Connection, load
from folkmoot_operator.leader import LeaderLost
from folkmoot_operator.metrics import Metrics
from folkmoot_operator.settings import Settings, from_environment
from folkmoot_operator.witness_client import HttpWitness

logger = logging.getLogger(__name__)
CONDUCTOR_CONNECTIONS = 32
WITNESS_CONNECTIONS = 2
CLOSE_SECONDS = 3.0  # a Lease that is not given back in this time expires by itself


def main() -> int:
    """Run until a signal; the exit code is 0 for a clean end."""
    try:
        settings = from_environment()
        log.configure(settings.log_level)
        connection = load(settings.environment)
        asyncio.run(run(settings, connection))
    except FolkmootError as error:
        logger.critical("the operator cannot run", extra={"reason": error.reason, "error": error.message})
        return 1
    return 0


async def run(settings: Settings, connection: Connection) -> None:
    """Both halves, the app and the watches; when one ends, so does the other."""
    stop = asyncio.Event()
    async with _connector(settings, connection) as connector, contextlib.AsyncExitStack() as stack:
        session = aiohttp.ClientSession(connector=connector, connector_owner=False, middlewares=[kube.middleware(connection)])
        await stack.enter_async_context(session)
        metrics = Metrics()
        bucket = TokenBucket(settings.writes_per_second, 2 * settings.writes_per_second)
        client = HttpKube(connection, session, bucket, metrics)
        pools: list[aiohttp.ClientSession] = []

        def pool(context: ssl.SSLContext, limit: int) -> aiohttp.ClientSession:
            pools.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit, ssl=context)))
            return pools[-1]

        def conductor(context: ssl.SSLContext) -> HttpConductor:
            return HttpConductor(pool(context, CONDUCTOR_CONNECTIONS), settings.conductor_address)

        def witness(context: ssl.SSLContext) -> HttpWitness:
            return HttpWitness(pool(context, WITNESS_CONNECTIONS), settings.witness_operator_url)

        app = App(settings, client, conductor, witness if settings.witness_url else None, metrics)
        try:
            await _both(app, connection, connector, stop)
        finally:
            for one in pools:
                await one.close()


async def _both(app: App, connection: Connection, connector: aiohttp.BaseConnector, stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    async def ready() -> None:
        await app.cache.filled.wait()
        # kopf has put its own signal handlers up by now; ours end the app first, so that the Lease is given back.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

    work = asyncio.create_task(_app(app), name="folkmoot-app")
    watches = asyncio.create_task(_watches(app, connection, connector, ready), name="folkmoot-watches")
    signalled = asyncio.create_task(stop.wait(), name="folkmoot-signal")
    tasks: set[asyncio.Task[Any]] = {work, watches, signalled}
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if signalled in done:
        logger.info("stopped by a signal")
        return
    for task in done:
        task.result()  # raises what ended it
    raise FolkmootError("a part of the operator ended by itself", reason="Ended")


async def _app(app: App) -> None:
    try:
        await app.run()
    except* LeaderLost as lost:
        logger.critical("this replica leads no longer; the process ends", extra={"error": str(lost.exceptions[0])})
        os._exit(1)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await app.close()


async def _watches(app: App, connection: Connection, connector: aiohttp.BaseConnector, ready: shell.Ready) -> None:
    await kopf.operator(
        registry=shell.registry(app, connection, connector, ready), settings=shell.settings(), standalone=True, clusterwide=True
    )


@contextlib.asynccontextmanager
async def _connector(settings: Settings, connection: Connection) -> AsyncIterator[aiohttp.TCPConnector]:
    connector = kube.connector(connection, settings.connections)
    try:
        yield connector
    finally:
        await connector.close()
