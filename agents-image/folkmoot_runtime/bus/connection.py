"""The router's connection to Valkey: redis-py, with the settings that its defaults get wrong. Participants use `resp.py`.

runtime.md §3.3: by default it retries ten times in silence, which stores an entry twice when only the reply was lost. Here
nothing is retried underneath; the router looks at what is pending instead.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Connection, ConnectionPool, Redis, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from folkmoot_core.errors import Invalid
from folkmoot_runtime.bus.resp import COMMAND_TIMEOUT, LOOPBACK, MAX_BLOCK, Login

__all__ = [
    "AuthenticationError", "NoPermissionError", "RedisConnectionError", "RedisError", "ResponseError", "connect",
]  # fmt: skip


class _Kept(UnixDomainSocketConnection):
    """The router's own connections are not those to be closed when clients take too much memory."""

    async def on_connect(self) -> None:
        await super().on_connect()
        await self.send_command("CLIENT", "NO-EVICT", "ON")
        await self.read_response()


def connect(url: str, login: Login, *, keep: bool = False) -> Any:
    """A client that connects on first use. `url`: unix:///path, or redis:// on the loopback. `keep`: for the router itself.

    Bytes that are no UTF-8 are replaced, not refused: agents write what they like into their outboxes, and the router must be
    able to read it in order to refuse it. Typed loosely: redis-py's annotations are unions over protocols that we do not use.
    """
    parts = urlsplit(url)
    options: dict[str, Any] = {
        "username": login.username, "password": login.password, "protocol": 2, "decode_responses": True,
        "encoding_errors": "replace", "socket_timeout": COMMAND_TIMEOUT + MAX_BLOCK, "socket_connect_timeout": COMMAND_TIMEOUT,
        "retry": Retry(NoBackoff(), 0), "driver_info": None,
    }  # fmt: skip
    kind: type[Any]
    where: dict[str, Any]
    if parts.scheme == "unix":
        kind, where = _Kept if keep else UnixDomainSocketConnection, {"path": parts.path}
    elif parts.scheme == "redis" and parts.hostname in LOOPBACK:
        kind, where = Connection, {"host": parts.hostname, "port": parts.port or 6379}
    else:
        raise Invalid(f"router's bus URL {url!r}: expected unix:///path, or redis:// on the loopback")
    pool: Any = ConnectionPool(connection_class=kind, max_connections=16, **options, **where)
    return Redis.from_pool(pool)
