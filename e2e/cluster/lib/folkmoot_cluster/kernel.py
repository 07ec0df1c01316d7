"""What a cluster takes from the kernel: a network namespace, a mount namespace, a cgroup per hierarchy.

Everything Kubernetes does to a machine happens inside them. The components write to fixed paths below /var/lib,
/var/log and /run, change sysctls, add nftables rules and mount hundreds of file systems; in namespaces of their own
none of that reaches the host, two clusters do not meet, and all of it ends with the last process.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import ClusterError
from .names import Instance, hidden
from .processes import Process, alive, start_time
from .shell import run, succeeds

CGROUPS = Path("/sys/fs/cgroup")
BRIDGE = "node0"
# The kubelet sets these on the machine unless they read as it wants; in its mount namespace they do.
KUBELET_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
# Of the namespace, not of the host. Without the bridge settings, pods of one node would pass by the forward hook.
NAMESPACE_SYSCTLS = (
    "net/ipv4/ip_forward=1",
    "net/bridge/bridge-nf-call-iptables=1",
    "net/bridge/bridge-nf-call-ip6tables=1",
)


def create(instance: Instance) -> None:
    """Namespaces with their network and mounts, and the cgroups."""
    for path in (instance.state, instance.cache):
        if hidden(path.resolve()):
            raise ClusterError(f"{path} would be hidden inside the cluster; set XDG_STATE_HOME and XDG_CACHE_HOME elsewhere")
    namespaces = instance.net_namespace.parent
    namespaces.mkdir(parents=True, exist_ok=True)
    run(["mount", "--bind", namespaces, namespaces])
    run(["mount", "--make-private", namespaces])
    for path in (instance.net_namespace, instance.mount_namespace):
        path.touch()
    run(["unshare", f"--net={instance.net_namespace}", "true"])
    run(["unshare", f"--mount={instance.mount_namespace}", "--propagation", "private", "true"])
    _mounts(instance)
    _network(instance)
    for hierarchy in hierarchies():
        (hierarchy / instance.cgroup).mkdir(exist_ok=True)


def enter(instance: Instance, *, network: bool = True, mounts: bool = True) -> list[str]:
    """Words before a command so that it runs inside (not `ip netns exec`: that remounts /sys, without cgroups)."""
    words = ["nsenter"]
    if network:
        words.append(f"--net={instance.net_namespace}")
    if mounts:
        words.append(f"--mount={instance.mount_namespace}")
    return [*words, "--"]


def in_node_cgroup(instance: Instance, argv: list[str]) -> list[str]:
    """The same command, but it moves itself into the cluster's cgroup first: so what it starts is counted and found."""
    joins = "".join(f"echo $$ > {folder}/cgroup.procs; " for folder in _node_cgroups(instance))
    return ["sh", "-c", f'cd /; {joins}exec "$@"', "sh", *argv]


def _node_cgroups(instance: Instance) -> Iterator[Path]:
    for hierarchy in hierarchies():
        if hierarchy.name in ("memory", "pids") or hierarchy == CGROUPS:
            folder = hierarchy / instance.cgroup / "node"
            folder.mkdir(parents=True, exist_ok=True)
            yield folder


def hierarchies() -> list[Path]:
    """Every cgroup hierarchy: one on v2, one per controller on v1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in sorted(CGROUPS.iterdir()) if path.is_dir() and not path.is_symlink()]


def _mounts(instance: Instance) -> None:
    """Own /var/lib, /var/log, /run; in /run, /run/folkmoot is the host's, for the sockets."""
    private = instance.state / "private"
    script = ["set -e", "mount --make-rshared /"]
    for name, path in (("lib", "/var/lib"), ("log", "/var/log")):
        (private / name).mkdir(parents=True, exist_ok=True)
        script.append(f"mount --bind '{private / name}' {path}")
    (private / "run" / "folkmoot").mkdir(parents=True, exist_ok=True)
    script.append(f"mount --rbind /run/folkmoot '{private}/run/folkmoot'")
    script.append(f"mount --rbind '{private}/run' /run")
    for name, value in KUBELET_SYSCTLS.items():
        stand_in = private / "sysctl" / name.replace("/", ".")
        stand_in.parent.mkdir(exist_ok=True)
        stand_in.write_text(value + "\n")
        script.append(f"mount --bind '{stand_in}' /proc/sys/{name}")
    run([*enter(instance, network=False), "sh", "-c", "\n".join(script)])


def _network(instance: Instance) -> None:
    """Loopback and a bridge without ports that holds the node's address. The default route leads nowhere, but without
    one the kernel refuses Service addresses before kube-proxy's rules can rewrite them."""
    commands = [
        "set -e",
        "ip link set lo up",
        f"ip link add {BRIDGE} type bridge",
        f"ip address add {instance.node_address}/24 dev {BRIDGE}",
        f"ip link set {BRIDGE} up",
        f"ip route add default dev {BRIDGE} src {instance.node_address}",
        "modprobe -q br_netfilter 2>/dev/null || true",
    ]
    for setting in NAMESPACE_SYSCTLS:
        name, _, value = setting.partition("=")
        commands.append(f"echo {value} > /proc/sys/{name}")
    run([*enter(instance, mounts=False), "sh", "-c", "\n".join(commands)])


def stragglers(instance: Instance) -> list[Process]:
    """Processes still in the cluster's cgroups: containers and shims whose runtime went away."""
    pids: set[int] = set()
    for hierarchy in hierarchies():
        for procs in (hierarchy / instance.cgroup).rglob("cgroup.procs"):
            try:
                pids.update(int(line) for line in procs.read_text().split())
            except OSError:
                continue  # the group vanished while we looked
    found = ((pid, start_time(pid)) for pid in pids)
    return [Process(f"pid {pid}", pid, started) for pid, started in found if started is not None]


def end(processes: list[Process]) -> None:
    """End stragglers at once; they are containers nobody listens to any more."""
    for process in processes:
        if alive(process):
            os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)


def destroy(instance: Instance) -> list[str]:
    """Undo `create`; says what was removed. Safe to run on nothing."""
    removed = []
    namespaces = instance.net_namespace.parent
    for path in (instance.mount_namespace, instance.net_namespace, namespaces):
        while path.exists() and succeeds(["mountpoint", "-q", path]):
            run(["umount", path])
            removed.append(f"mount {path}")
    count = sum(_remove_cgroup(hierarchy / instance.cgroup) for hierarchy in hierarchies())
    return [*removed, f"{count} cgroups"] if count else removed


def _remove_cgroup(folder: Path) -> int:
    """Remove a cgroup with all below it, deepest first; a just emptied one may be busy for a moment."""
    if not folder.exists():
        return 0
    groups = sorted((path for path in folder.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
    for group in [*groups, folder]:
        _patiently_remove(group)
    return len(groups) + 1


def _patiently_remove(group: Path) -> None:
    for _ in range(50):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise ClusterError(f"cgroup {group} stays busy; processes in it: {(group / 'cgroup.procs').read_text().split()}")


def memory_used(instance: Instance) -> int:
    """Anonymous memory of components and pods together, in bytes, as the kernel counts it."""
    for folder, field in ((CGROUPS / "memory", "total_rss"), (CGROUPS, "anon")):
        path = folder / instance.cgroup / "memory.stat"
        if path.exists():
            values = dict(line.split() for line in path.read_text().splitlines())
            return int(values.get(field, "0"))
    return 0
