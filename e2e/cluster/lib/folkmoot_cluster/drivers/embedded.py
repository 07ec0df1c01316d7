"""Kubernetes' own components on this machine, in namespaces of their own. See the module `kernel` for what that buys.

`up` starts from nothing or not at all: what is found half done (a crash, a reboot, Ctrl-C) is taken down first. A
cluster is seconds to make, and a repaired one would be a third state that nobody tests.
"""

import base64
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import build, configuration, containers, host, kernel, kube, manifests, processes, storage
from ..errors import ClusterError
from ..names import Instance
from ..shell import run, say, step
from .observed import NETPOL, observe

GATE_WAIT = 15.0  # seconds for the enforcer to read the cluster's state and answer


class Embedded:
    """The driver; see `Driver` for what each method promises."""

    name = "embedded"

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    # -- up ------------------------------------------------------------------------------------------------------------

    def up(self, *, enforcer: bool) -> None:
        host.require_linux_root()
        with build.exclusive(self.instance.run.with_suffix(".lock")):
            if self._already(enforcer):
                return
            if self._remains():
                say("found an unfinished or damaged cluster; taking it down first")
                self._remove()
            finished = False
            try:
                self._make(enforcer)
                finished = True
            finally:
                if not finished and not os.environ.get("FOLKMOOT_KEEP_FAILED"):
                    say("not finished: removing what was made (FOLKMOOT_KEEP_FAILED=1 keeps it)")
                    self._remove()

    def _already(self, enforcer: bool) -> bool:
        if not self.instance.kubeconfig.exists() or not self.status()["healthy"]:
            return False
        say(f"{self.instance.name} is up and healthy")
        if enforcer != self._enforcing():
            self.enforcer(on=enforcer)
        return True

    def _make(self, enforcer: bool) -> None:
        instance = self.instance
        with step("packages"):
            host.require_packages(host.PACKAGES)
        with step("binaries"):
            binaries = build.binaries(instance.cache)
        with step("namespaces, mounts, cgroups"):
            kernel.create(instance)
        with step("certificates and configuration"):
            self._configure(binaries)
        with step("etcd and API server"):
            self._start_control_plane(binaries)
        with step("containerd and node"):
            self._start_node(binaries)
        if enforcer:
            with step("NetworkPolicy enforcer"):
                self.enforcer(on=True)
        with step("DNS, storage, node ready"):
            self._finish(binaries)

    def _configure(self, binaries: build.Binaries) -> None:
        instance = self.instance
        for path, text in configuration.files(instance, build.PAUSE_IMAGE).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        plugins = instance.configuration / "cni" / "bin"
        plugins.mkdir()
        for plugin in Path("/usr/lib/cni").iterdir():
            (plugins / plugin.name).symlink_to(plugin)
        (plugins / "gate").symlink_to(binaries.gate)
        (instance.state / "binaries").symlink_to(binaries.node)
        addresses = ",".join(configuration.server_addresses(instance))
        hosts = ",".join(configuration.server_hosts())
        argv: list[str | Path] = ["pki", "--directory", instance.pki, "--node", instance.node_name]
        run([binaries.node / "node", *argv, "--address", addresses, "--host", hosts])
        inside = f"https://{instance.node_address}:{configuration.API_PORT}"
        for user in ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "equipment"):
            self._write_kubeconfig(instance.configuration / f"{user}.kubeconfig", inside, user)

    def _write_kubeconfig(self, path: Path, server: str, user: str) -> None:
        pki = self.instance.pki
        parts = [base64.b64encode((pki / name).read_bytes()).decode() for name in ("ca.crt", f"{user}.crt", f"{user}.key")]
        path.touch(mode=0o600)
        path.write_text(configuration.kubeconfig(server, parts[0], parts[1], parts[2], f"folkmoot-{self.instance.name}"))

    def _start(self, name: str, argv: Sequence[str | Path], *, inside: bool = True) -> None:
        words = [str(word) for word in argv]
        if inside:
            words = [*kernel.enter(self.instance), *words]
        words = kernel.in_node_cgroup(self.instance, words)
        processes.start(self.instance.records, name, words, self.instance.logs / f"{name}.log")

    def _wait(self, what: str, condition: kube.Condition, seconds: float = 60) -> None:
        kube.wait_for(what, condition, seconds, self._first_dead)

    def _first_dead(self) -> str:
        for process in processes.recorded(self.instance.records):
            if not processes.alive(process):
                log = self.instance.logs / f"{process.name}.log"
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
                return f"{process.name} ended; its last words:\n{tail}"
        return ""

    def _start_control_plane(self, binaries: build.Binaries) -> None:
        instance = self.instance
        self._start("etcd", [binaries.node / "etcd", *configuration.etcd(instance)])
        self._start("kube-apiserver", [binaries.node / "kube-apiserver", *configuration.api_server(instance)])
        # containerd needs a moment too; it starts while the API server does.
        self._start("containerd", ["containerd", "--config", instance.configuration / "containerd.toml"])
        port = _free_port(instance.port)
        target = f"{instance.node_address}:{configuration.API_PORT}"
        argv: list[str | Path] = [
            "--listen",
            f"127.0.0.1:{port}",
            "--namespace",
            instance.net_namespace,
            "--to",
            target,
        ]
        self._start("forward", [binaries.node / "node", "forward", *argv], inside=False)
        self._write_kubeconfig(instance.kubeconfig, f"https://127.0.0.1:{port}", "admin")
        api = kube.Api(instance.kubeconfig)
        self._wait("the API server", api.ready)
        manager = binaries.node / "kube-controller-manager"
        self._start("kube-controller-manager", [manager, *configuration.controller_manager(instance)])
        self._start("kube-scheduler", [binaries.node / "kube-scheduler", *configuration.scheduler(instance)])

    def _start_node(self, binaries: build.Binaries) -> None:
        instance = self.instance
        self._wait("containerd's socket", lambda: containers.answers(instance))
        containers.import_archive(instance, binaries.pause_image)
        self._start("kubelet", [binaries.node / "kubelet", *configuration.kubelet_flags(instance)])
        proxy = instance.configuration / "kube-proxy.json"
        self._start("kube-proxy", [binaries.node / "kube-proxy", f"--config={proxy}"])
        instance.volumes.mkdir()
        self._start("volumes", [binaries.node / "node", "volumes", *configuration.volumes_flags(instance)])

    def _finish(self, binaries: build.Binaries) -> None:
        api = kube.Api(self.instance.kubeconfig)
        for path, manifest in manifests.embedded(self.instance, build.coredns_image()):
            api.apply(path, manifest)
        containers.import_archive(self.instance, binaries.coredns_image)
        self._wait("the node to be Ready", lambda: api.node_ready(self.instance.node_name))
        self._wait("the volumes", lambda: api.volume_count() >= configuration.VOLUME_COUNT)
        self._wait("cluster DNS", lambda: api.available("kube-system", "coredns"))

    # -- down ----------------------------------------------------------------------------------------------------------

    def down(self) -> None:
        host.require_linux_root()
        with build.exclusive(self.instance.run.with_suffix(".lock")):
            if self._remains():
                self._remove()
            else:
                say(f"{self.instance.name}: nothing to remove")
        self.instance.run.with_suffix(".lock").unlink(missing_ok=True)
        for folder in (self.instance.run.parent, self.instance.state.parent):
            storage.remove_if_empty(folder)

    def _remains(self) -> bool:
        paths = [self.instance.state, self.instance.run]
        paths += [hierarchy / self.instance.cgroup for hierarchy in kernel.hierarchies()]
        return any(path.exists() for path in paths)

    def _remove(self) -> None:
        """Pods while their runtime still answers, then the components, then what is left in the cgroups."""
        instance = self.instance
        everything = processes.recorded(instance.records)
        runtime = [process for process in everything if process.name == "containerd"]
        others = [process for process in everything if process.name != "containerd"]
        ended = [process.name for process in processes.stop(instance.records, others)]
        pods = containers.end_all(instance) if any(map(processes.alive, runtime)) else 0
        ended += [process.name for process in processes.stop(instance.records, runtime)]
        stragglers = kernel.stragglers(instance)
        kernel.end(stragglers)
        removed = kernel.destroy(instance)
        for folder in (instance.state, instance.run):
            if folder.exists():
                shutil.rmtree(folder)
                removed.append(str(folder))
        say(f"ended: {', '.join(ended) or 'no component'}; {pods} containers; {len(stragglers)} left-over processes")
        for line in removed:
            say(f"removed: {line}")

    # -- looking -------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        return observe(self.instance)

    def kubeconfig(self) -> Path:
        if not self.instance.kubeconfig.exists():
            raise ClusterError(f"{self.instance.name} is not up; run e2e/cluster/up")
        return self.instance.kubeconfig

    def load(self, images: Sequence[str]) -> None:
        self.kubeconfig()
        for image in images:
            with step(f"load {image}"):
                containers.load(self.instance, image)

    # -- the enforcer --------------------------------------------------------------------------------------------------

    def enforcer(self, *, on: bool) -> None:
        self.kubeconfig()
        if on == self._enforcing():
            say(f"the NetworkPolicy enforcer is {'on' if on else 'off'} already")
        elif on:
            self._enforcer_on()
        else:
            self._enforcer_off()

    def _enforcing(self) -> bool:
        process = processes.find(self.instance.records, NETPOL)
        return process is not None and processes.alive(process)

    def _enforcer_on(self) -> None:
        binary = self.instance.state / "binaries" / "node"
        self.instance.gate_socket.unlink(missing_ok=True)
        self._start(NETPOL, [binary, NETPOL, *configuration.enforcer_flags(self.instance)])
        # It opens its socket after its first rules are in the kernel.
        self._wait("the enforcer's rules", self.instance.gate_socket.exists, GATE_WAIT)

    def _enforcer_off(self) -> None:
        """First the process, which would put its table back; then the socket, by whose absence the gate knows."""
        process = processes.find(self.instance.records, NETPOL)
        processes.stop(self.instance.records, [process] if process else [])
        self.instance.gate_socket.unlink(missing_ok=True)
        table = "table inet folkmoot_netpol"
        inside = kernel.enter(self.instance, mounts=False)
        run([*inside, "nft", "-f", "-"], text=f"{table}\ndelete {table}\n")
        say("the NetworkPolicy enforcer is off; every pod reaches every pod")


def _free_port(first: int) -> int:
    """The first port from `first` on that nobody listens at; should another take it before us, `up` says so."""
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ClusterError(f"no free port on 127.0.0.1 from {first} to {first + 99}")
