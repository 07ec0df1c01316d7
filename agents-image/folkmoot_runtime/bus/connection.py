"""How this package connects to Valkey: one place for the settings that redis-py's defaults get wrong.

runtime.md §3.3: by default it retries ten times in silence, which stores an entry twice when only the reply was lost, and lets
a blocking read fail after a minute. Here nothing is retried underneath; callers retry with the same request_id.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from folkmoot_core.errors import Invalid
from folkmoot_runtime.trust import Trust

__all__ = [
    "AuthenticationError", "Login", "NoPermissionError", "RedisConnectionError", "RedisError", "ResponseError", "connect",
]  # fmt: skip

GROUP = "participant"  # consumer group of every inbox; a consumer per pod
ROUTER_GROUP = "router"  # consumer group of every outbox; one consumer
MAX_BLOCK = 2.0  # seconds of one blocking read
COMMAND_TIMEOUT = 5.0  # seconds one command may take; a blocking read may take MAX_BLOCK more
CONNECT_TIMEOUT = 5.0


@dataclass(frozen=True)
class Login:
    """Whom a connection authenticates as."""

    username: str
    password: str = field(repr=False)


class _TrustedConnection(SSLConnection):
    """TLS with our context: redis-py's own would trust the system's CAs as well."""

    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = context


def connect(url: str, login: Login, trust: Trust | None) -> Any:
    """A client that connects on first use. `url`: rediss://host:port, redis://loopback:port or unix:///path.

    Typed loosely: redis-py's annotations are unions over protocols and encodings that we do not use.
    """
    parts = urlsplit(url)
    options: dict[str, Any] = {
        "username": login.username, "password": login.password, "protocol": 2, "decode_responses": True,
        "socket_timeout": COMMAND_TIMEOUT + MAX_BLOCK, "socket_connect_timeout": CONNECT_TIMEOUT,
        "retry": Retry(NoBackoff(), 0), "driver_info": None,
    }  # fmt: skip
    kind: type[Any]
    where: dict[str, Any]
    if parts.scheme == "unix":
        kind, where = UnixDomainSocketConnection, {"path": parts.path}
    elif parts.scheme == "rediss" and trust is not None and parts.hostname:
        kind, where = _TrustedConnection, {"host": parts.hostname, "port": parts.port or 6379, "context": trust.client_context()}
    elif parts.scheme == "redis" and parts.hostname in ("127.0.0.1", "localhost", "::1"):
        kind, where = Connection, {"host": parts.hostname, "port": parts.port or 6379}
    else:
        raise Invalid(f"bus URL {url!r}: expected rediss://host:port, unix:///path, or redis:// on the loopback")
    pool: Any = ConnectionPool(connection_class=kind, max_connections=16, **options, **where)
    return Redis.from_pool(pool)
