"""Keeps the installation's witness and the operator in step: its key here, tenants' logs there, and what it saw of them.

Nothing waits for the witness but what needs it: a document without its key names no such witness, and the ledger then holds its
checkpoints back. Every replica keeps the key and registers what was reported to it (registering is idempotent); the leader alone
asks for forks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from folkmoot_core.errors import Conflict, FolkmootError, Unavailable
from folkmoot_operator.witness_client import Registration, SeenLog, Witness

log = logging.getLogger(__name__)
RETRY_SECONDS: Final = 5.0  # while something is missing
KEEP_SECONDS: Final = 300.0  # between looks at the key, at refused registrations and at forks
AGAIN_SECONDS: Final = 900.0  # after which a log is registered anew: a witness restored from a copy may have forgotten it


@dataclass
class WitnessKeeper:
    """`keep` and `watch` run until cancelled. `changed` is told that the key is another."""

    witness: Witness
    changed: Callable[[], None]
    key: str = ""
    """Its vkey; empty: not heard yet."""
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    _wanted: dict[str, Registration] = field(default_factory=dict)
    _done: dict[str, tuple[Registration, float]] = field(default_factory=dict)  # and when, by the event loop's clock
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep(self) -> None:
        """Hear the key, register logs, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_key(), name="folkmoot-witness-key")
            group.create_task(self._keep_logs(), name="folkmoot-witness-logs")

    async def listen(self, seconds: float) -> None:
        """Wait for the key, but no longer than that."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.heard.wait(), seconds)

    def want(self, tenant: str, registration: Registration) -> None:
        """The tenant with this uid has this log."""
        if self._wanted.get(tenant) != registration:
            self._wanted[tenant] = registration
            self._wake.set()

    def forget(self, tenant: str) -> None:
        """The tenant with this uid is gone. The witness goes on remembering its log."""
        self._wanted.pop(tenant, None)
        self._done.pop(tenant, None)

    async def watch(
        self, tenants: Callable[[], Iterable[str]], tell: Callable[[str, tuple[SeenLog, ...]], Awaitable[None]]
    ) -> None:
        """Ask what it saw of each tenant's logs, again and again."""
        while True:
            for tenant in list(tenants()):
                try:
                    await tell(tenant, await self.witness.logs(tenant))
                except Unavailable as error:
                    log.warning("the witness does not say what it saw", extra={"error": error.message})
                    break  # nor will it of the next one
                except FolkmootError as error:
                    log.warning("what the witness saw cannot be used", extra={"tenant_uid": tenant, "error": error.message})
            await asyncio.sleep(KEEP_SECONDS)

    async def _keep_key(self) -> None:
        while True:
            try:
                self._hear(await self.witness.key())
            except FolkmootError as error:
                log.warning("the witness's key could not be read", extra={"known": bool(self.key), "error": error.message})
            await asyncio.sleep(KEEP_SECONDS if self.key else RETRY_SECONDS)

    def _hear(self, key: str) -> None:
        if key == self.key:
            return
        if self.key:  # its volume was replaced: it remembers nothing of what it cosigned before
            log.error("the witness has another key; logs are fenced by the new one", extra={"before": self.key, "key": key})
        else:
            log.info("the witness's key is known", extra={"key": key})
        self.key = key
        self._done.clear()
        self._wake.set()
        self.heard.set()
        self.changed()

    async def _keep_logs(self) -> None:
        while True:
            self._wake.clear()
            wait = await self._register()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)

    async def _register(self) -> float:
        """Register what is not; seconds until it is tried again."""
        now = asyncio.get_running_loop().time()
        for tenant, wanted in list(self._wanted.items()):
            done, at = self._done.get(tenant, (None, 0.0))
            if done == wanted and now - at < AGAIN_SECONDS:
                continue
            try:
                await self.witness.register(tenant, wanted)
            except Unavailable as error:
                log.warning("a log could not be registered with the witness", extra={"error": error.message})
                return RETRY_SECONDS  # nor could the next one
            except FolkmootError as error:  # one tenant's trouble: other keys than those known, or one log too many
                if done == wanted and isinstance(error, Conflict):  # another replica was told of newer keys; so will this one be
                    self.forget(tenant)
                    continue
                log.error(
                    "the witness refuses a log", extra={"tenant_uid": tenant, "origin": wanted.origin, "error": error.message}
                )
                continue
            self._done[tenant] = (wanted, now)
            if done != wanted:
                log.info("a log is registered with the witness", extra={"tenant_uid": tenant, "origin": wanted.origin})
        return KEEP_SECONDS
