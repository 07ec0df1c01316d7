"""`python -m folkmoot_runtime.ledger`: recover the log, open the doors, keep the heartbeat.

The Unix sockets open at once and do not wait for a certificate; the TLS door opens when the operator has issued one. The
process exits with 1 and a sentence when the log must not be continued, and when a sync failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import sys
import time
import uuid
from pathlib import Path

import uvloop

from folkmoot_core import names
from folkmoot_core.entries import new_entry
from folkmoot_core.errors import Conflict, Invalid, Unavailable
from folkmoot_core.ledger import timestamp
from folkmoot_runtime import keyring, process, web
from folkmoot_runtime import settings as environment
from folkmoot_runtime.durable import RealOs
from folkmoot_runtime.ledger import debug
from folkmoot_runtime.ledger.anchor_files import AnchorFiles
from folkmoot_runtime.ledger.anchors import Anchors, BrokerTimestamps, Clocks
from folkmoot_runtime.ledger.app import Doors
from folkmoot_runtime.ledger.interface import OWN, OWN_ACTOR
from folkmoot_runtime.ledger.log import Log, Options, open_log
from folkmoot_runtime.ledger.peers import Socket, sockets
from folkmoot_runtime.ledger.protocol import protocol
from folkmoot_runtime.ledger.retention import Retention
from folkmoot_runtime.ledger.terms import FILE as TERMS
from folkmoot_runtime.ledger.terms import BrokerTransport, Terms
from folkmoot_runtime.ledger.witnesses import Witnesses
from folkmoot_runtime.peer import Peer
from folkmoot_runtime.settings import Settings
from folkmoot_runtime.tls import ServingCertificate
from folkmoot_runtime.trust import Trust

log = logging.getLogger("folkmoot_runtime.ledger")
WITNESS = "FOLKMOOT_WITNESS"  # required: nothing is published without the installation's cosignature; none: there is no witness
RETENTION = "retention.json"  # how far the log was read for holds and prunings
HEARTBEAT = 300.0  # seconds; silence is then distinguishable from no activity (ledger.md §4.2, 12(1))
COLLECT = (20_000, 20, 50)  # entries come and go by the thousand, and none of them is part of a cycle


async def run(settings: Settings, listening: list[Socket], debug_port: int | None = None) -> None:
    """Serve until cancelled; raises `FolkmootError` when the log cannot be opened or fails."""
    trust = Trust(settings.trust, settings.namespace)
    doors = Doors(trust)
    opened: list[Log] = []
    try:
        async with asyncio.TaskGroup() as group:
            for one in listening:
                group.create_task(_serve_socket(doors, one))
            group.create_task(_serve_tls(settings, trust, doors))
            if debug_port is not None:
                log.warning("debug door open: whoever reaches it reads and writes this log", extra={"port": debug_port})
                group.create_task(
                    web.serve(doors.debug(), host=debug.HOST, port=debug_port, http="httptools", proxy_headers=False)
                )
            group.create_task(_keep(settings, trust, doors, opened))
    finally:
        for one_log in opened:
            await one_log.aclose()


async def _keep(settings: Settings, trust: Trust, doors: Doors, opened: list[Log]) -> None:
    """Open the log, then watch over it."""
    directory = settings.data / "ledger"
    wrapper = keyring.from_environment(os.environ)
    fence, terms, conductor, broker = _outside(settings, trust, directory)
    recovered = await open_log(directory, Options(tenant=settings.tenant, wrapper=wrapper, fence=fence))
    opened.append(recovered)
    clocks = Clocks(time.time, time.monotonic, lambda: secrets.randbelow(2**timestamp.NONCE_BITS - 1) + 1)
    files = AnchorFiles(directory, RealOs())
    recovered.anchors = Anchors(recovered, files, BrokerTimestamps(broker), lambda: terms.current, clocks)
    doors.ledger = recovered
    log.info("log open", extra={"origin": recovered.origin, "size": recovered.size, "keys_wrapped_by": wrapper.id or "nobody"})
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(terms.follow_forever(recovered))
            group.create_task(Retention(recovered, directory / RETENTION, lambda: terms.current, time.time).run())
            group.create_task(recovered.anchors.run())
            group.create_task(_watch(recovered))
    finally:
        for peer in (conductor, broker):
            await peer.aclose()


def _outside(settings: Settings, trust: Trust, directory: Path) -> tuple[Witnesses | None, Terms, Peer, Peer]:
    """The ways to the terms, and to witnesses where this installation has one; over conductor and broker."""
    mode = os.environ.get(WITNESS, "none")
    if mode not in ("none", "required"):
        raise Invalid(f"environment variable {WITNESS} is {mode!r}; expected required or none")
    conductor = Peer(settings.conductor_url, settings.token_file(names.AUDIENCE_CONDUCTOR), trust, settings.timeout)
    broker = Peer(settings.broker_url, settings.token_file(names.AUDIENCE_BROKER), trust, settings.timeout)
    terms = Terms(conductor, RealOs(), directory / TERMS, settings.tenant)
    terms.load()
    return Witnesses(BrokerTransport(broker)) if mode == "required" else None, terms, conductor, broker


async def _watch(recovered: Log) -> None:
    """Heartbeats, until the log cannot go on."""
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(recovered.stopped.wait(), HEARTBEAT)
        if recovered.failure is not None:
            raise recovered.failure
        await heartbeat(recovered, time.time())


async def heartbeat(ledger: Log, now: float) -> None:
    """Append one; a closed or full log goes without."""
    entry = new_entry("heartbeat", OWN_ACTOR, id=f"heartbeat-{uuid.uuid4()}", data={"size": ledger.size}, now=now)
    try:
        await ledger.append([entry], OWN)
    except (Conflict, Unavailable) as error:
        log.info("no heartbeat", extra={"reason": error.reason})


async def _serve_socket(doors: Doors, one: Socket) -> None:
    one.path.parent.mkdir(parents=True, exist_ok=True)
    await web.serve(
        doors.unix(one), uds=str(one.path), http=protocol(lambda body, uid: doors.begin(body, one.of(uid))), proxy_headers=False
    )


async def _serve_tls(settings: Settings, trust: Trust, doors: Doors) -> None:
    # Not below the socket's directory: the core's other containers share that one, and the key is this container's alone.
    certificate = ServingCertificate(settings, trust, settings.run / "ledger-tls")
    await certificate.obtain()
    context = certificate.server_context()
    doors.certified = True
    async with asyncio.TaskGroup() as group:
        group.create_task(certificate.renew_forever())
        group.create_task(
            web.serve(doors.tls(), host=settings.listen_host, port=settings.port or names.PORT_LEDGER, context=context,
                      http="httptools", proxy_headers=False)
        )  # fmt: skip


async def main() -> None:
    """From the environment."""
    await run(environment.from_environment(), sockets(os.environ), debug.port(os.environ))


if __name__ == "__main__":
    gc.set_threshold(*COLLECT)
    gc.freeze()  # what was imported stays
    sys.exit(process.main("ledger", main, uvloop.new_event_loop))
