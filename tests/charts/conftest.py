"""Renders the charts with the helm binary, if there is one; a laptop without it skips, CI does not."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = "1.34.4"
Render = Callable[..., list[dict[str, Any]]]


@functools.cache
def helm() -> str:
    """Path of helm: on the PATH, or as e2e/cluster has built it before. Never builds: that takes minutes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "folkmoot" / "bin"
    built = sorted(cache.glob("helm-*/helm"), key=lambda path: path.stat().st_mtime)
    return shutil.which("helm") or (str(built[-1]) if built else "")


@pytest.fixture(scope="session")
def run_helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    if not helm():
        assert not os.environ.get("CI"), "helm is missing; run e2e/cluster/tool helm"
        pytest.skip("helm is missing; run e2e/cluster/tool helm")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([helm(), *words], capture_output=True, text=True, check=False, cwd=ROOT)

    return run


@pytest.fixture(scope="session")
def render(run_helm: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """Objects of a chart with values given as key=value."""

    @functools.cache
    def text(chart: str, values: tuple[str, ...]) -> str:
        options = [word for value in values for word in ("--set-json" if value.endswith(("]", "}")) else "--set", value)]
        done = run_helm(
            "template", "folkmoot", f"charts/{chart}", "--namespace", "folkmoot-system", "--kube-version", KUBERNETES, *options
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def objects(*values: str, chart: str = "folkmoot") -> list[dict[str, Any]]:
        return [document for document in yaml.safe_load_all(text(chart, values)) if document]

    return objects
