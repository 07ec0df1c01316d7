"""Sessions of a test or of the demo: start one, hear its events as they come, have its story."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from folkmoot_cli.events import Story

from . import install, tenants
from .cluster import Cluster, Manifest
from .shell import Failed
from .tenants import DEMO, name

FOLKMOOT = Path(sys.executable).with_name("folkmoot")
Event = dict[str, Any]


def demo_session(namespace: str) -> Manifest:
    """The demo's session of a tenant's namespace."""
    return next(m for m in install.manifests(DEMO / "sessions.yaml") if m["metadata"]["namespace"] == namespace)


def start(cluster: Cluster, session: Manifest) -> str:
    """Apply it under a name that is free; the name."""
    made = tenants.fresh(cluster, session)
    cluster.apply(made)
    return name(made)


def follow(cluster: Cluster, session: str, namespace: str, heard: Callable[[Event], None], seconds: int = 600) -> Story:
    """Follow with the CLI, event by event, to the end. `heard` may do harm: the CLI must find its way again."""
    words = [FOLKMOOT, "session", "watch", session, "-n", namespace, "-o", "json", "--timeout", str(seconds)]
    environment = {**os.environ, **cluster.client_environment}
    story = Story()
    with subprocess.Popen(
        [str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            event = json.loads(line)
            story.add(event)
            heard(event)
        said = process.stderr.read()
    if not story.ended:
        raise Failed(f"session {session} is {story.phase}, and the CLI ended with {process.returncode}: {said[-1500:]}")
    return story


def nothing(_: Event) -> None:
    """For `follow` when only the story is wanted."""
