"""A simulator and a state directory for each test of the story without a cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from devrun import DEMO, Run

from simulator.app import App
from simulator.scenario import load
from simulator.server import Server


@pytest.fixture
def scenario() -> str:
    """The scenario's text; a test may override it."""
    return (DEMO / "scenario.yaml").read_text()


@pytest.fixture
async def run(scenario: str) -> AsyncIterator[Run]:
    """A simulator and a state directory with a short path (Unix sockets)."""
    state = Path(tempfile.mkdtemp(prefix="fm", dir="/tmp"))
    try:
        async with Server(App(load(scenario))) as server:
            yield Run(state, f"http://127.0.0.1:{server.port}")
    finally:
        shutil.rmtree(state, ignore_errors=True)
