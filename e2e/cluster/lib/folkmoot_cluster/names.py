"""Everything that is called after an instance: addresses, directories, sockets. PURE.

Two clusters can be up on one machine (somebody's demo and a test run). Each lives in a network and a mount namespace of
its own, so addresses need not differ between them; they do anyway, so that a log line says whose it is.
"""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import ClusterError

# Short, because the name is part of a Unix socket's path, which the kernel limits to 108 bytes.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")
DEFAULT = "demo"
STORAGE_CLASS = "folkmoot-local"
CLUSTER_DOMAIN = "cluster.local"
# The mount namespace has these of its own (see kernel.py): what lies below them on the host is not seen there.
HIDDEN = ("/var/lib", "/var/log", "/run")


@dataclass(frozen=True)
class Instance:
    """One cluster: every name and number that belongs to it alone."""

    name: str
    state: Path
    cache: Path
    run: Path

    @property
    def number(self) -> int:
        """Which of 60 address blocks; instances may share one without harm."""
        return zlib.crc32(self.name.encode()) % 60

    @property
    def port(self) -> int:
        """First port tried on the host's loopback for the API server, below the kernel's ephemeral range."""
        return 20000 + zlib.crc32(self.name.encode()) % 8000

    @property
    def node_name(self) -> str:
        return f"{self.name}-node"

    @property
    def node_address(self) -> str:
        return f"10.{4 + self.number}.0.1"

    @property
    def node_network(self) -> str:
        return f"10.{4 + self.number}.0.0/24"

    @property
    def pod_network(self) -> str:
        return f"10.{68 + self.number}.0.0/16"

    @property
    def service_network(self) -> str:
        return f"10.{132 + self.number}.0.0/16"

    @property
    def api_service_address(self) -> str:
        return f"10.{132 + self.number}.0.1"

    @property
    def dns_address(self) -> str:
        return f"10.{132 + self.number}.0.10"

    @property
    def cgroup(self) -> str:
        """Below it: `node` with the components and `kubepods` with the pods, in every hierarchy."""
        return f"folkmoot-{self.name}"

    @property
    def net_namespace(self) -> Path:
        return self.run / "ns" / "net"

    @property
    def mount_namespace(self) -> Path:
        return self.run / "ns" / "mnt"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def gate_socket(self) -> Path:
        """Where the CNI gate asks the NetworkPolicy enforcer to know a pod before it starts."""
        return self.run / "gate.sock"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def configuration(self) -> Path:
        return self.state / "configuration"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def records(self) -> Path:
        """One JSON file per process that was started: the only thing processes are ended by."""
        return self.state / "processes"

    @property
    def volumes(self) -> Path:
        return self.state / "volumes"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"


def instance(environment: Mapping[str, str]) -> Instance:
    """The instance that the environment names: FOLKMOOT_CLUSTER, XDG_STATE_HOME, XDG_CACHE_HOME, HOME."""
    name = environment.get("FOLKMOOT_CLUSTER") or DEFAULT
    if not NAME.fullmatch(name):
        raise ClusterError(f"FOLKMOOT_CLUSTER must be 1-20 of a-z, 0-9 and inner hyphens, found {name!r}")
    home = Path(environment.get("HOME") or "/root")
    state = Path(environment.get("XDG_STATE_HOME") or home / ".local/state") / "folkmoot" / name
    cache = Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "folkmoot"
    return Instance(name=name, state=state, cache=cache, run=Path("/run/folkmoot") / name)


def hidden(path: Path) -> bool:
    """Whether a directory would be out of sight inside the cluster's mount namespace."""
    return any(path.is_relative_to(root) for root in HIDDEN)
