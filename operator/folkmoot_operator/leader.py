"""One leader among the replicas, by a Lease (15 s long, renewed every 2 s, given up after 10 s without success).

The holder's word counts only while its own clock says so: a leader that cannot renew for `renew_deadline` raises `LeaderLost`
five seconds before anybody else may take over, and the process exits. Pausing instead would leave writes in flight.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from folkmoot_core.errors import Conflict, FolkmootError, Missing
from folkmoot_operator.kinds import LEASE, Key, Obj
from folkmoot_operator.kube import Kube

log = logging.getLogger(__name__)
NAME: Final = "folkmoot-operator"


class LeaderLost(Exception):
    """The Lease could not be renewed in time, or somebody else holds it. The process must end."""


@dataclass
class Elector:
    """Acquires and keeps the Lease. `now` gives RFC 3339 with microseconds for the object; waiting is the event loop's time."""

    kube: Kube
    namespace: str
    identity: str
    now: Callable[[], str]
    duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    _seen: tuple[str, float] = ("", 0.0)  # the Lease's version and when we first saw it: others' clocks are not trusted
    _holder: str = ""
    leading: asyncio.Event = field(default_factory=asyncio.Event)

    async def acquire(self) -> None:
        """Wait until this replica leads."""
        while not await self._try():  # noqa: ASYNC110 - what is waited for lies in the cluster
            await asyncio.sleep(self.retry_period)
        self.leading.set()
        log.info("leading", extra={"identity": self.identity})

    async def keep(self) -> None:
        """Renew until cancelled; raises `LeaderLost`."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            await asyncio.sleep(self.retry_period)
            began = loop.time()
            left = self.renew_deadline - (began - renewed)
            if left <= 0:
                raise LeaderLost(f"the Lease {NAME} was not renewed for {self.renew_deadline:.0f} s")
            try:
                async with asyncio.timeout(left):
                    held = await self._try()
            except TimeoutError:
                held = False  # the next round says how long it has been
            if held:
                renewed = began
            elif self._holder not in ("", self.identity):
                raise LeaderLost(f"the Lease {NAME} is held by {self._holder}")

    async def release(self) -> None:
        """Give the Lease back at a clean end, so that the other replica need not wait for it to expire."""
        self.leading.clear()
        try:
            lease = await self.kube.get(LEASE, Key(self.namespace, NAME))
            if (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                await self.kube.update(
                    LEASE, {**lease, "spec": {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}}
                )
        except FolkmootError as error:
            log.warning("the Lease was not released", extra={"error": str(error)})

    async def _try(self) -> bool:
        """One attempt to take or renew; False if it failed for now."""
        try:
            taken = await self._take()
        except FolkmootError as error:
            log.warning("the Lease could not be renewed", extra={"error": str(error)})
            return False
        if taken:
            self._holder = self.identity
        return taken

    async def _take(self) -> bool:
        key = Key(self.namespace, NAME)
        try:
            lease = await self.kube.get(LEASE, key)
        except Missing:
            lease = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": {"name": NAME, "namespace": self.namespace}}
            try:
                await self.kube.create(LEASE, {**lease, "spec": self._spec(0, "")})
            except Conflict:
                return False
            return True
        spec = lease.get("spec") or {}
        self._holder = spec.get("holderIdentity") or ""
        if self._holder not in ("", self.identity) and not self._expired(lease):
            return False
        transitions = int(spec.get("leaseTransitions") or 0) + (0 if self._holder == self.identity else 1)
        acquired = spec.get("acquireTime", "") if self._holder == self.identity else ""
        try:
            await self.kube.update(LEASE, {**lease, "spec": self._spec(transitions, acquired)})
        except Conflict:
            return False
        return True

    def _spec(self, transitions: int, acquired: str) -> Obj:
        now = self.now()
        return {"holderIdentity": self.identity, "leaseDurationSeconds": int(self.duration), "leaseTransitions": transitions,
                "acquireTime": acquired or now, "renewTime": now}  # fmt: skip

    def _expired(self, lease: Obj) -> bool:
        """Unchanged for its whole duration by our own clock."""
        version = str(lease["metadata"].get("resourceVersion"))
        now = asyncio.get_running_loop().time()
        if version != self._seen[0]:
            self._seen = (version, now)
        length = float((lease.get("spec") or {}).get("leaseDurationSeconds") or self.duration)
        return now - self._seen[1] > length
