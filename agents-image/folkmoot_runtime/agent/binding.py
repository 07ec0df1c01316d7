"""Who this process is: its entry in the tenant document, and that its key is bound to that identity in the ledger.

The document is asked for every ten seconds, which also tells the conductor that the agent lives and what it has bound. A
changed commitment is bound before the first task under it.
"""

from __future__ import annotations

import asyncio
import logging

from folkmoot_core.document import TenantDocument
from folkmoot_core.errors import FolkmootError
from folkmoot_core.signing import SigningKey, fingerprint
from folkmoot_runtime.agent.peers import Conductor
from folkmoot_runtime.agent.record import Recorder, Standing

log = logging.getLogger(__name__)
POLL_SECONDS = 10.0
RETRY_SECONDS = 2.0


class Binding:
    """The agent's entry in force. `ready` is set once it is known and bound."""

    def __init__(self, agent: str, key: SigningKey, conductor: Conductor, recorder: Recorder) -> None:
        self.ready = asyncio.Event()
        self._agent = agent
        self._fingerprint = fingerprint(key.public)
        self._conductor = conductor
        self._recorder = recorder
        self._standing: Standing | None = None
        self._bound = ""

    async def standing(self) -> Standing:
        """The entry to work under; waits until there is one."""
        await self.ready.wait()
        assert self._standing is not None  # noqa: S101 - `ready` is set after it
        return self._standing

    async def follow(self) -> None:
        """Keep the entry current, until cancelled."""
        waiting = False
        while True:
            try:
                await self.look()
                waiting = False
            except FolkmootError as error:
                if not waiting:
                    log.warning("waiting for conductor or ledger", extra={"error": error.message, "reason": error.reason})
                waiting = True
            await asyncio.sleep(POLL_SECONDS if self.ready.is_set() else RETRY_SECONDS)

    async def look(self) -> None:
        """Ask once; bind what is new."""
        document = await self._conductor.document(self._bound, self._fingerprint)
        if document is not None:
            await self._adopt(document)

    async def _adopt(self, document: TenantDocument) -> None:
        found = next((entry for entry in document.agents if entry.name == self._agent), None)
        if found is None:
            log.warning("this agent is not in the tenant document", extra={"agent": self._agent})
            self._conductor.forget()
            return
        standing = Standing(found, self._conductor.digest)
        if found.identity.commitment != self._bound:
            try:
                await self._recorder.bound(standing, self._fingerprint)
            except FolkmootError:
                self._conductor.forget()  # asked for again, or the next answer would be "unchanged"
                raise
            self._bound = found.identity.commitment
            log.info("identity bound", extra={"seed": found.identity.seed[:12], "commitment": self._bound[:12]})
        self._standing = standing
        self.ready.set()
