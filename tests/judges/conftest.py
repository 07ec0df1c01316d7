"""Builds or installs the foreign judges once; without Go, or OpenSSL, their tests say so, and fail under CI=true."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "e2e" / "cluster" / "lib"))

from folkmoot_cluster import build, names, tools
from folkmoot_cluster.errors import ClusterError

Judge = Callable[..., subprocess.CompletedProcess[str]]


def _built(make: Callable[[], Path]) -> str:
    try:
        return str(make())
    except (ClusterError, OSError, subprocess.SubprocessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the foreign judges cannot be built here: {error}")


@pytest.fixture(scope="session")
def judges() -> str:
    """Path of the program."""
    return _built(lambda: build.judges(names.instance(os.environ).cache))


@pytest.fixture(scope="session")
def fsck() -> str:
    """Path of Tessera's fsck."""
    return _built(lambda: tools.path(names.instance(os.environ).cache, "fsck"))


@pytest.fixture(scope="session")
def hammer() -> str:
    """Path of Tessera's load tool."""
    return _built(lambda: tools.path(names.instance(os.environ).cache, "hammer"))


@pytest.fixture(scope="session")
def openssl() -> str:
    """Path of OpenSSL's program."""
    return _built(lambda: tools.path(names.instance(os.environ).cache, "openssl"))
