"""Is this replica alive, and can it serve? Alive: the event loop keeps time and the watches still bring what happens.

A port that answers proves nothing: operators of this kind die by watches that fall silent. So a heartbeat is written every
`beat` seconds into a ConfigMap of our own namespace, one per replica, and must come back through the watch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from folkmoot_core import names
from folkmoot_core.errors import FolkmootError
from folkmoot_operator.cache import Cache
from folkmoot_operator.kinds import CONFIG_MAP, Key, Obj, annotations_of
from folkmoot_operator.kube import Kube
from folkmoot_operator.metrics import Metrics

log = logging.getLogger(__name__)
ANNOTATION_BEAT: Final = f"{names.GROUP}/heartbeat"  # number of the last beat, on the replica's canary ConfigMap
CANARY: Final = "folkmoot-canary-"
MAX_LAG: Final = 10.0  # seconds the event loop may be late
_TICK: Final = 1.0


@dataclass
class Health:
    """Both probes. Times are the event loop's."""

    kube: Kube
    cache: Cache
    metrics: Metrics
    namespace: str
    identity: str
    beat: float = 30.0
    patience: float = 180.0
    endpoint_up: bool = False
    _number: int = 0
    _sent: float | None = None  # when the oldest beat that has not come back was written
    _ticked: float | None = None

    @property
    def key(self) -> Key:
        """This replica's canary."""
        return Key(self.namespace, f"{CANARY}{self.identity}"[:253].lower())

    def unwell(self) -> str:
        """Why this process should be replaced, or empty."""
        now = asyncio.get_running_loop().time()
        if self._ticked is not None and now - self._ticked > MAX_LAG:
            return f"the event loop is {now - self._ticked:.0f} s late"
        if self._sent is not None and now - self._sent > self.patience:
            return f"a heartbeat written {now - self._sent:.0f} s ago has not come back through the watch"
        return ""

    def ready(self) -> bool:
        """The cache is filled and the endpoint answers; a replica that does not lead is ready too."""
        return self.cache.filled.is_set() and self.endpoint_up

    def seen(self, obj: Obj) -> None:
        """The watch brought the canary."""
        if annotations_of(obj).get(ANNOTATION_BEAT) == str(self._number):
            self._sent = None

    async def run(self) -> None:
        """Tick and beat until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick())
            group.create_task(self._beat())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._ticked = loop.time()
        while True:
            due = loop.time() + _TICK
            await asyncio.sleep(_TICK)
            self._ticked = loop.time()
            self.metrics.lag(max(0.0, self._ticked - due))

    async def _beat(self) -> None:
        await self.cache.filled.wait()
        while True:
            # While the last one is still on its way no new one is sent: its age is what counts.
            if self._sent is None:
                await self._write()
            await asyncio.sleep(self.beat)

    async def _write(self) -> None:
        self._number += 1
        self._sent = asyncio.get_running_loop().time()
        labels = {names.LABEL_MANAGED_BY: names.MANAGER, names.LABEL_COMPONENT: "operator"}
        metadata = {"name": self.key.name, "namespace": self.key.namespace, "labels": labels}
        metadata["annotations"] = {ANNOTATION_BEAT: str(self._number)}
        try:
            await self.kube.apply(CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
        except FolkmootError as error:
            # An API server that does not answer is not cured by a restart of ours: the watch is judged by beats that were taken.
            self._sent = None
            log.warning("the heartbeat could not be written", extra={"error": str(error)})

    async def remove(self) -> None:
        """At a clean end: the canary goes with its replica."""
        try:
            await self.kube.delete(CONFIG_MAP, self.key)
        except FolkmootError as error:
            log.warning("the canary was not removed", extra={"error": str(error)})


def probes(health: Health, metrics: Metrics, leads: Callable[[], bool]) -> web.Application:
    """`/healthz`, `/readyz` and `/metrics`, plain HTTP on a port of their own."""

    async def healthz(_: web.Request) -> web.Response:
        why = health.unwell()
        return web.Response(text=why or "ok", status=503 if why else 200)

    async def readyz(_: web.Request) -> web.Response:
        ready = health.ready()
        return web.Response(text="ok" if ready else "starting", status=200 if ready else 503)

    async def scrape(_: web.Request) -> web.Response:
        metrics.leads(leads())
        return web.Response(body=metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", scrape)
    return app
