"""Who reaches whom: a connection tried from inside a pod, with Python because that is what the images have."""

from __future__ import annotations

import json
from dataclasses import dataclass

from .cluster import Cluster
from .shell import Failed

SECONDS = 4
_TRY = """
import json, socket, sys
found = {}
for target in sys.argv[2:]:
    host, port = target.rsplit(":", 1)
    try:
        address = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)[0][4]
    except OSError as error:
        found[target] = f"no address: {error}"
        continue
    try:
        socket.create_connection(address, float(sys.argv[1])).close()
        found[target] = "connected"
    except TimeoutError:
        found[target] = "timed out"
    except OSError as error:
        found[target] = f"refused: {error.strerror}"
print(json.dumps(found))
"""


def connect(cluster: Cluster, namespace: str, workload: str, *targets: str) -> dict[str, str]:
    """Target ("host:port") → "connected", "timed out", or why not, as seen from a workload's pod."""
    text = cluster.kubectl("exec", "-n", namespace, workload, "--", "python", "-c", _TRY, str(SECONDS), *targets)
    found: dict[str, str] = json.loads(text.strip().splitlines()[-1])
    return found


@dataclass(frozen=True)
class Reached:
    """What the demo shows of two tenants."""

    foreign: str
    own: str
    acme: str

    def lines(self) -> list[str]:
        """For the screen."""
        return [
            f"globex' agent → acme's bus (core.folkmoot-acme:6379): {self.foreign} after {SECONDS} s, refused by the network",
            f"globex' agent → its own bus: {self.own};  acme's agent → acme's bus: {self.acme}",
        ]


def reach(cluster: Cluster) -> Reached:
    """Globex tries acme's bus. Raises `Failed` if that works, or if the ways that must work do not."""
    bus = "core.folkmoot-acme.svc.cluster.local:6379"
    own = "core.folkmoot-globex.svc.cluster.local:6379"
    tried = connect(cluster, "folkmoot-globex", "deploy/agent-herald", bus, own)
    acme = connect(cluster, "folkmoot-acme", "deploy/agent-loom", bus)
    found = Reached(tried[bus], tried[own], acme[bus])
    if (found.foreign, found.own, found.acme) != ("timed out", "connected", "connected"):
        raise Failed(f"the network let through or held back the wrong thing: {found}")
    return found
