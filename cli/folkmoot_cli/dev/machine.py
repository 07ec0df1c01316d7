"""What this machine offers: free ports on the loopback, and something that holds a sandbox."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterable

from folkmoot_cli.dev.layout import LOOPBACK


def isolation() -> str:
    """What holds a sandbox on this machine: bubblewrap where it works, nothing elsewhere."""
    jail = shutil.which("bwrap")
    if jail is None:
        return "none"
    tried = subprocess.run(  # noqa: S603 - a fixed command, to see whether the kernel lets it
        [jail, "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True, timeout=10, check=False
    )
    return "bwrap" if tried.returncode == 0 else "none"


def free_ports(doors: Iterable[str]) -> dict[str, int]:
    """A free loopback port per door. They are held together, so that no two are the same."""
    with contextlib.ExitStack() as held:
        ports = {}
        for door in doors:
            listener = held.enter_context(socket.socket())
            listener.bind((LOOPBACK, 0))
            ports[door] = int(listener.getsockname()[1])
        return ports
