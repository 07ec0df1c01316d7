"""The cluster's own programs: Go modules built once and kept in the cache under a key of their inputs.

node      Kubernetes' components, etcd, kubectl and our equipment, one binary under several names
gate      the CNI plugin that lets no pod start before its NetworkPolicies are in force
coredns, pause   their binaries become images
"""

import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import host, keys, scratch
from .errors import MissingRequirement
from .shell import say, stream

SOURCE = Path(__file__).resolve().parents[2]
LINKS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "etcd",
)
KUBERNETES = "k8s.io/kubernetes"
PAUSE_IMAGE = "folkmoot.local/pause:1"
VERSION_VARIABLE = "k8s.io/component-base/version"
# The coredns module asks for the newest Go of all.
GO_WANTED = "1.26.0"
KEPT = 4  # builds of one program in the cache; a running cluster may use an older one


@dataclass(frozen=True)
class Binaries:
    """Where the programs are after a build."""

    node: Path
    gate: Path
    pause_image: Path
    coredns_image: Path

    @property
    def kubectl(self) -> Path:
        return self.node / "kubectl"


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds a lock on `path` (made if absent): two `up` at once must not write the same files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def kubernetes_version() -> str:
    """Pinned in node/go.mod and nowhere else."""
    return keys.required_version((SOURCE / "node" / "go.mod").read_text(), KUBERNETES)


def coredns_image() -> str:
    """Name of the image; its version is pinned in coredns/go.mod."""
    version = keys.required_version((SOURCE / "coredns" / "go.mod").read_text(), "github.com/coredns/coredns")
    return f"folkmoot.local/coredns:{version}"


def binaries(cache: Path) -> Binaries:
    """Build what is not in the cache yet."""
    require_amd64()
    with exclusive(cache / "lock"):
        go = host.find_go(cache, GO_WANTED)
        node = _module(cache, go, "node", ".", _kubernetes_flags())
        for name in LINKS:
            link = node / name
            if not link.is_symlink():
                link.symlink_to("node")
        gate = _module(cache, go, "node", "./gate", ()) / "gate"
        pause = _module(cache, go, "pause", ".", ())
        coredns = _module(cache, go, "coredns", ".", ())
        return Binaries(
            node=node,
            gate=gate,
            pause_image=_image(pause, PAUSE_IMAGE, "pause"),
            coredns_image=_image(coredns, coredns_image(), "coredns"),
        )


def require_amd64() -> None:
    """Nothing below is known to work elsewhere; better said than found out."""
    if platform.machine() not in ("x86_64", "amd64"):
        raise MissingRequirement(f"the embedded cluster was built for x86_64 only, this is {platform.machine()}")


def _kubernetes_flags() -> tuple[str, ...]:
    version = kubernetes_version()
    major, minor, *_ = keys.version_tuple(version)
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return tuple(f"-X {VERSION_VARIABLE}.{name}={value}" for name, value in values.items())


def judges(cache: Path) -> Path:
    """The program that runs other people's verifiers over our logs (e2e/judges)."""
    with exclusive(cache / "lock"):
        go = host.find_go(cache, GO_WANTED)
        return _module(cache, go, "judges", ".", (), SOURCE.parent) / "judges"


def ledger_load(cache: Path) -> Path:
    """The other side of the ledger's measurements (bench/ledger-load)."""
    with exclusive(cache / "lock"):
        go = host.find_go(cache, GO_WANTED)
        return _module(cache, go, "ledger-load", ".", (), SOURCE.parents[1] / "bench") / "ledger-load"


def _module(  # noqa: PLR0913 - the place is the one that differs once
    cache: Path, go: Path, module: str, package: str, variables: tuple[str, ...], root: Path = SOURCE
) -> Path:
    """Folder with the binary, called after the module (or the package, where there are two)."""
    source = root / module
    name = module if package == "." else Path(package).name
    files = {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    toolchain = ".".join(map(str, host.go_version(go)))
    target = cache / "bin" / f"{name}-{keys.module_key(files, toolchain, [package, *variables])}"
    if not (target / name).exists():
        flags = ["-trimpath", "-ldflags", " ".join(("-s", "-w", *variables))]
        compile_into(target, name, [go, "-C", source, "build", *map(str, flags)], package)
    return target


def compile_into(target: Path, name: str, command: list[str | Path], package: str) -> None:
    """Build beside the target and rename: an interrupted build leaves no half binary behind."""
    say(f"building {name} (minutes when the Go cache is cold); log: {target}.log")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratchpad:
        environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
        stream([*command, "-o", Path(scratchpad) / name, package], Path(f"{target}.log"), environment=environment)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        (Path(scratchpad) / name).rename(target / name)
    _forget_old(target, name)


def _forget_old(target: Path, name: str) -> None:
    """Keep the newest few: older ones were of sources that are gone, at 140 MB each."""
    siblings = [path for path in target.parent.glob(f"{name}-*") if path.is_dir()]
    for folder in sorted(siblings, key=lambda path: -path.stat().st_mtime)[KEPT:]:
        shutil.rmtree(folder)
        Path(f"{folder}.log").unlink(missing_ok=True)


def _image(folder: Path, name: str, binary: str) -> Path:
    path = folder / "image.tar"
    if not path.exists():
        unfinished = folder / "image.tar.unfinished"
        unfinished.write_bytes(scratch.archive(name, (folder / binary).read_bytes(), binary))
        unfinished.rename(path)
    return path
