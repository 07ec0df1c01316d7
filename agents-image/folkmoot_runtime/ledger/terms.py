"""How the ledger learns on what terms it publishes, and reaches witnesses: the tenant document, and the broker's door.

The document's `audit` part is asked of the conductor every few seconds and kept on the volume, so that a log that starts knows
its witness without anybody else. Neither conductor nor broker is waited for by anything but publishing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Final, Protocol

from pydantic import ValidationError

from folkmoot_core.document import AuditEntry
from folkmoot_core.errors import Invalid, Unavailable
from folkmoot_core.ledger.fence import Answer
from folkmoot_core.ledger.witness import MAX_ANSWER
from folkmoot_runtime.document import DocumentFollower
from folkmoot_runtime.durable import Os, replace_file
from folkmoot_runtime.peer import Peer

log = logging.getLogger(__name__)
MAX_SENTENCE: Final = 300
FILE: Final = "audit.json"


class Follower(Protocol):
    """What is told of new terms: the log."""

    def follow(self, audit: AuditEntry) -> None: ...


class Terms:
    """Keeps a log's terms current. `path` is the copy on the volume."""

    def __init__(self, conductor: Peer, calls: Os, path: Path, tenant: str) -> None:
        self._document = DocumentFollower(conductor, self._take)
        self._follower: Follower | None = None
        self._calls = calls
        self._path = path
        self._tenant = tenant
        self.current: AuditEntry | None = None

    def load(self) -> None:
        """Take the copy from the volume, if there is a usable one."""
        try:
            self.current = AuditEntry.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return
        except ValidationError:
            log.warning("copy of the log's terms is not usable", extra={"path": str(self._path)})

    async def follow_forever(self, follower: Follower) -> None:
        """Hand them on, now and whenever they change."""
        self._follower = follower
        if self.current is not None:
            _hand_on(follower, self.current)
        await self._document.follow(lambda: self.current is not None)

    async def _take(self, content: bytes) -> None:
        found = _audit(content, self._tenant)
        if found == self.current:
            return
        try:
            await asyncio.to_thread(replace_file, self._calls, self._path, found.model_dump_json().encode())
        except OSError as error:  # a volume without room ends neither the log nor its old terms; it is asked for again
            raise Unavailable(f"the log's terms cannot be kept at {self._path}: {error.strerror}") from error
        self.current = found
        if self._follower is not None:
            _hand_on(self._follower, found)


class BrokerTransport:
    """`witnesses.Transport` through the broker, which alone has a way out."""

    def __init__(self, broker: Peer) -> None:
        self._broker = broker

    async def add_checkpoint(self, witness: str, body: bytes) -> Answer:
        """See `Transport.add_checkpoint`."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        response = await self._broker.request("POST", f"/v1/witnesses/{witness}/add-checkpoint", body=body, headers=headers)
        content_type = response.headers.get("Content-Type", "")
        if content_type.startswith("application/problem+json"):  # the broker's own word, not the witness's
            raise Unavailable(f"the broker does not reach it ({response.status_code}){_said(response.content)}")
        return Answer(response.status_code, content_type, response.content[: MAX_ANSWER + 1])


def _hand_on(follower: Follower, audit: AuditEntry) -> None:
    try:
        follower.follow(audit)
    except Invalid as error:
        log.error("the log's terms cannot be used; the old ones stay", extra={"detail": error.message})


def _said(problem: bytes) -> str:
    """The sentence of a problem document, if it has one."""
    try:
        return f": {str(json.loads(problem)['detail'])[:MAX_SENTENCE]}"
    except (ValueError, KeyError, TypeError):
        return ""


def _audit(content: bytes, tenant: str) -> AuditEntry:
    try:
        value = json.loads(content)
        if value["tenant"] != tenant:
            raise Invalid(f"the conductor handed out a document of another tenant than {tenant}")
        return AuditEntry.model_validate(value["audit"])
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid("the conductor answered something else than a tenant document") from error
