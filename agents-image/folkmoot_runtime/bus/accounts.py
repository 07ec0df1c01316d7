"""Who may speak on the bus: ACL users with short-lived passwords, and the public keys that signatures are checked with.

The door grants, the router looks keys up and lets things expire. Passwords are known here and in Valkey as hashes only; keys
are kept in Valkey too, so that a router that restarts still knows who signed what lies in the outboxes.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from folkmoot_core import names
from folkmoot_core.credentials import CredentialAnswer
from folkmoot_core.errors import LimitReached
from folkmoot_core.signing import fingerprint
from folkmoot_runtime.bus.connection import ResponseError
from folkmoot_runtime.bus.resp import GROUP, ROUTER_GROUP

log = logging.getLogger(__name__)
LIFETIME = 3600  # seconds a password and a key's registration are good for
PASSWORDS_PER_POD = 4
KEYS_PER_PARTICIPANT = 64  # replicas and their predecessors
KEPT_AFTER_EXPIRY = 24 * 3600  # seconds: messages signed in time may wait in an outbox while the router is away
BLOCKED_SECONDS = 60  # after flooding


@dataclass(frozen=True)
class _Password:
    hash: str = field(repr=False)
    pod: str
    expires: float


@dataclass(frozen=True)
class _Key:
    public: bytes
    expires: float


def rules(tenant: str, participant: str) -> list[str]:
    """What a participant's user may do, and nothing else. Selectors keep commands and keys together: a flat rule would let an
    agent XACK in a peer's group or XADD to its inbox, which can wipe or brick it (runtime.md §3.2)."""
    return [
        "on", "resetchannels", "-@all", "+ping",
        f"(+xadd %W~{names.outbox_key(tenant, participant)})",
        f"(+xreadgroup +xack +xclaim +xautoclaim +xpending %RW~{names.inbox_key(tenant, participant)})",
        f"(+set %W~{names.alive_key(tenant, participant)})",
    ]  # fmt: skip


class Accounts:
    """Users and keys of one tenant. One instance per tenant's bus: the router's. `redis` is the router's own connection."""

    def __init__(self, redis: Any, tenant: str, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._tenant = tenant
        self._clock = clock
        self._passwords: dict[str, list[_Password]] = {}
        self._keys: dict[str, dict[str, _Key]] = {}  # participant → "pod/fingerprint" → key
        self._blocked: dict[str, float] = {}
        self._ensured: set[str] = set()

    async def load(self) -> None:
        """Take over what a predecessor granted: keys as stored, passwords that Valkey still knows for one lifetime more."""
        stored = await self._redis.hgetall(names.keys_key(self._tenant))
        for name, value in stored.items():
            participant, _, rest = name.partition("/")
            text, _, expires = value.partition(" ")
            self._keys.setdefault(participant, {})[rest] = _Key(base64.b64decode(text), float(expires))
        expires = self._clock() + LIFETIME
        for user in await self._redis.execute_command("ACL", "USERS"):
            participant = user if user == names.CORE else names.agent_of_service_account(user)
            if participant is not None:
                known = await self._redis.acl_getuser(user)
                self._passwords[participant] = [_Password(each, "", expires) for each in known["passwords"]]

    async def grant(self, participant: str, pod: str, public: bytes) -> CredentialAnswer:
        """A fresh password; this pod's older ones stay good until they expire. Raises `LimitReached` after flooding."""
        now = self._clock()
        if self._blocked.get(participant, 0.0) > now:
            raise LimitReached(f"{participant} flooded its outbox; it gets no password for {BLOCKED_SECONDS} s", reason="Flooded")
        await self._remember_key(participant, pod, _Key(public, now + LIFETIME))
        await self.ensure_streams(participant)
        password = secrets.token_urlsafe(32)
        fresh = _Password(hashlib.sha256(password.encode()).hexdigest(), pod, now + LIFETIME)
        self._passwords[participant] = self._still_good(participant, now, fresh)
        await self._apply(participant)
        return CredentialAnswer(username=names.bus_user(participant), password=password, expires=int(fresh.expires))

    def keys(self, participant: str, at_ms: int) -> tuple[bytes, ...]:
        """Public keys that were registered for a participant at a time (epoch ms)."""
        return tuple(key.public for key in self._keys.get(participant, {}).values() if key.expires * 1000 >= at_ms)

    async def expire(self) -> None:
        """Take away what is over. A user without any password is deleted, which closes its connections."""
        now = self._clock()
        for participant, passwords in list(self._passwords.items()):
            good = [each for each in passwords if each.expires > now]
            if len(good) != len(passwords):
                self._passwords[participant] = good
                await self._apply(participant)
        for participant, keys in self._keys.items():
            for name in [n for n, key in keys.items() if key.expires + KEPT_AFTER_EXPIRY < now]:
                await self._forget_key(participant, name)

    async def remove(self, participant: str, *, block: bool = False) -> None:
        """Close a participant's connections and void its passwords: it left the tenant document, or floods (`block`)."""
        if block:
            self._blocked[participant] = self._clock() + BLOCKED_SECONDS
        self._passwords.pop(participant, None)
        await self._redis.execute_command("ACL", "DELUSER", names.bus_user(participant))

    def holders(self) -> frozenset[str]:
        """Participants that have a user."""
        return frozenset(self._passwords)

    def forget_streams(self) -> None:
        """Look again whether streams exist: after the server was away, or streams were deleted."""
        self._ensured.clear()

    async def ensure_streams(self, participant: str) -> None:
        """Inbox and outbox with their consumer groups. Groups start at 0: what was written before them counts."""
        if participant in self._ensured:
            return
        inbox, outbox = names.inbox_key(self._tenant, participant), names.outbox_key(self._tenant, participant)
        for stream, group in ((inbox, GROUP), (outbox, ROUTER_GROUP)):
            try:
                await self._redis.xgroup_create(stream, group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        self._ensured.add(participant)

    def _still_good(self, participant: str, now: float, fresh: _Password) -> list[_Password]:
        good = [each for each in self._passwords.get(participant, []) if each.expires > now]
        same_pod = [each for each in good if each.pod == fresh.pod][-(PASSWORDS_PER_POD - 1) :]
        return [*(each for each in good if each.pod != fresh.pod), *same_pod, fresh]

    async def _apply(self, participant: str) -> None:
        """One command sets the user's whole state, so that neither a lost reply nor a restarted server leaves half of it."""
        user = names.bus_user(participant)
        passwords = self._passwords[participant]
        if not passwords:
            await self.remove(participant)
            return
        hashes = [f"#{each.hash}" for each in passwords]
        await self._redis.execute_command("ACL", "SETUSER", user, "reset", *rules(self._tenant, participant), *hashes)

    async def _remember_key(self, participant: str, pod: str, key: _Key) -> None:
        keys = self._keys.setdefault(participant, {})
        name = f"{pod}/{fingerprint(key.public)}"
        text = base64.b64encode(key.public).decode()
        await self._redis.hset(names.keys_key(self._tenant), f"{participant}/{name}", f"{text} {key.expires}")
        keys[name] = key
        while len(keys) > KEYS_PER_PARTICIPANT:
            await self._forget_key(participant, min(keys, key=lambda each: keys[each].expires))

    async def _forget_key(self, participant: str, name: str) -> None:
        await self._redis.hdel(names.keys_key(self._tenant), f"{participant}/{name}")
        self._keys[participant].pop(name, None)
