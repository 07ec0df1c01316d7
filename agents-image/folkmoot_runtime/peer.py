"""Calls to another process of the installation: TLS by its CA, the pod's token for that audience."""

from __future__ import annotations

from pathlib import Path

import httpx2

from folkmoot_core.errors import Unavailable
from folkmoot_runtime.trust import Trust


class Peer:
    """One service of the installation. The token is re-read at every call, the client made anew when the CA changed."""

    def __init__(self, url: str, token_file: Path, trust: Trust, timeout: float) -> None:
        self._url = url
        self._token_file = token_file
        self._trust = trust
        self._timeout = timeout
        self._bundle = ""
        self._client: httpx2.AsyncClient | None = None

    async def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        """The answer, whatever its status; raises `Unavailable` when there is none."""
        try:
            token = self._token_file.read_text().strip()
            client = await self._connected()
            return await client.request(
                method, f"{self._url}{path}", content=body,
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json", **(headers or {})},
            )  # fmt: skip
        except (httpx2.HTTPError, OSError) as error:
            raise Unavailable(f"{self._url} did not answer: {type(error).__name__}") from error

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _connected(self) -> httpx2.AsyncClient:
        bundle = self._trust.read("ca.crt")
        if self._client is None or bundle != self._bundle:
            await self.aclose()
            self._bundle = bundle
            self._client = httpx2.AsyncClient(verify=self._trust.client_context(), timeout=self._timeout, trust_env=False)
        return self._client
