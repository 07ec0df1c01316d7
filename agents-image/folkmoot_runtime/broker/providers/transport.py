"""The HTTP client that provider files are handed: one pool per provider, no proxy from the environment, no redirect, a
bound on what an answer may weigh.

Redirects are not followed because a key would go with them; an answer without end would fill the broker's memory.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import httpx2

MAX_ANSWER = 32 * 1024 * 1024  # bytes of one answer; the largest honest ones are a few hundred KiB
CONNECT_SECONDS = 10.0
POOL = 256  # connections; the broker's own slots bound what is in flight


def client(*, ca: str = "", timeout: float) -> httpx2.AsyncClient:
    """A client for one provider. `ca` is PEM text of the server's own authority, which then alone is trusted."""
    context = ssl.create_default_context(cadata=ca) if ca else httpx2.create_ssl_context(trust_env=False)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    limits = httpx2.Limits(max_connections=POOL, max_keepalive_connections=8, keepalive_expiry=30.0)
    inner = httpx2.AsyncHTTPTransport(verify=context, limits=limits, trust_env=False, retries=0)
    return httpx2.AsyncClient(
        transport=_Bounded(inner),
        timeout=httpx2.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout)),
        follow_redirects=False,
        trust_env=False,
    )


class _Bounded(httpx2.AsyncBaseTransport):
    def __init__(self, inner: httpx2.AsyncHTTPTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _BoundedStream(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._inner:
            size += len(chunk)
            if size > MAX_ANSWER:
                raise httpx2.RemoteProtocolError(f"answer is larger than {MAX_ANSWER} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
