"""`python -m folkmoot_runtime.sandbox`: PID 1 of a sandbox pod. It never exits by itself: CrashLoopBackOff would cost minutes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

from folkmoot_core import names
from folkmoot_core.errors import Invalid, Unavailable
from folkmoot_runtime import process, settings, web
from folkmoot_runtime.sandbox import processes
from folkmoot_runtime.sandbox.app import Rules, Sandbox
from folkmoot_runtime.sandbox.processes import Jail
from folkmoot_runtime.sandbox.workspace import Workspace
from folkmoot_runtime.trust import Trust

logger = logging.getLogger(__name__)
DEFAULT_LIMIT = 1024 * 1024 * 1024
DEFAULT_TIMEOUT = 3600
SCRATCH = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 - wiped, never trusted


def build(found: settings.Settings) -> Sandbox:
    """The sandbox from its environment: FOLKMOOT_WORKSPACE and FOLKMOOT_SANDBOX_{CALLER,TOOLS,ISOLATION,TIMEOUT,WORKSPACE_BYTES}."""
    env = os.environ
    caller = env.get("FOLKMOOT_SANDBOX_CALLER", "")
    if not caller:
        raise Invalid(
            "environment variable FOLKMOOT_SANDBOX_CALLER is not set; expected the ServiceAccount that may use this sandbox"
        )
    isolation = env.get("FOLKMOOT_SANDBOX_ISOLATION", "pod")
    if isolation not in {"pod", "bwrap", "none"}:
        raise Invalid(f"environment variable FOLKMOOT_SANDBOX_ISOLATION is {isolation!r}; expected pod, bwrap or none")
    root = Path(env.get("FOLKMOOT_WORKSPACE", "/workspace"))
    allowed = frozenset(name for name in env.get("FOLKMOOT_SANDBOX_TOOLS", "").split(",") if name)
    rules = Rules(caller, allowed, int(env.get("FOLKMOOT_SANDBOX_TIMEOUT", DEFAULT_TIMEOUT)))
    workspace = Workspace(root, int(env.get("FOLKMOOT_SANDBOX_WORKSPACE_BYTES", DEFAULT_LIMIT)))
    trust = Trust(found.trust, found.namespace)
    # Only as the first process of a pod: anywhere else these directories are other people's too.
    scratch = (*SCRATCH, found.run) if isolation == "pod" and os.getpid() == 1 else ()
    return Sandbox(trust, rules, workspace, Jail(isolation, root), found.run / "fence", scratch)


async def serve(found: settings.Settings, sandbox: Sandbox) -> None:
    """Wipe what a previous life left, then serve until SIGTERM."""
    if not processes.become_subreaper():
        logger.warning("no subreaper here: a command that detaches itself is found by its process group alone")
    if sandbox.jail.isolation == "none":
        logger.warning("commands are not isolated: they can read this machine's files and reach its network")
    processes.hide_memory()
    with contextlib.suppress(Unavailable):  # tried again, and told, with each lease; exiting would only make the pod restart
        sandbox.workspace.wipe()
    try:
        await web.serve(sandbox.app(), host=found.listen_host, port=found.port or names.PORT_SANDBOX)
    finally:
        await processes.kill_descendants()


async def main() -> None:
    """From the environment."""
    found = settings.from_environment()
    await serve(found, build(found))


if __name__ == "__main__":
    sys.exit(process.main("sandbox", main))
