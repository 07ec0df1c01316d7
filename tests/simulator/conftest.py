"""A running simulator per test, on a free port of the loopback, and what tests ask of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from simulator.app import App
from simulator.http1 import Limits
from simulator.scenario import load
from simulator.server import Server


class Vote(BaseModel):
    """The structured output that the SDKs are asked for."""

    digest: str
    approve: bool


@dataclass(frozen=True)
class Simulated:
    """A simulator under test. `control` is a plain HTTP client on its address."""

    port: int
    control: httpx2.AsyncClient

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def counts(self) -> dict[str, Any]:
        return dict((await self.control.get("/_sim/counts")).json())

    async def calls(self) -> list[dict[str, Any]]:
        return list((await self.control.get("/_sim/calls")).json())


Simulate = Callable[..., Awaitable[Simulated]]


@pytest.fixture
async def simulate() -> AsyncIterator[Simulate]:
    """Starts a simulator with a scenario (its text) and, if wanted, other limits."""
    async with AsyncExitStack() as stack:

        async def start(scenario: str, limits: Limits | None = None) -> Simulated:
            server = await stack.enter_async_context(Server(App(load(scenario)), limits))
            client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=20)
            return Simulated(server.port, await stack.enter_async_context(client))

        yield start


@pytest.fixture
def vote() -> type[Vote]:
    return Vote


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDKs would send even loopback requests through a proxy the machine has configured."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
