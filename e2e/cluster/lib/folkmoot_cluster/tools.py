"""Programs the tests need beside the cluster: built once from their Go modules, kept in the cache, pinned here; or Debian's."""

import shutil
from pathlib import Path

from . import build, host, keys
from .shell import run

# name -> (package, version). kubectl is part of the node's binary and has Kubernetes' version; openssl is Debian's, and the
# judges have a module of their own (e2e/judges).
TOOLS: dict[str, tuple[str, str]] = {
    "helm": ("helm.sh/helm/v4/cmd/helm", "v4.0.4"),
    "fsck": ("github.com/transparency-dev/tessera/cmd/fsck", "v1.0.4"),
    "hammer": ("github.com/transparency-dev/tessera/internal/hammer", "v1.0.4"),
    "judges": ("", ""),
    "kubectl": ("", ""),
    "openssl": ("", ""),
}


def path(cache: Path, name: str) -> Path:
    """Where the program is, after building it if it was not there."""
    if name in host.JUDGE_PACKAGES:
        with build.exclusive(cache / "lock"):
            host.require_packages({name: host.JUDGE_PACKAGES[name]})
        return Path(shutil.which(name) or f"/usr/bin/{name}")
    if name == "judges":
        return build.judges(cache)
    if name == "kubectl":
        return build.binaries(cache).kubectl
    package, version = TOOLS[name]
    with build.exclusive(cache / "lock"):
        go = host.find_go(cache, build.GO_WANTED)
        toolchain = ".".join(map(str, host.go_version(go)))
        inputs = {"package": package.encode(), "version": version.encode(), "go": toolchain.encode()}
        target = cache / "bin" / f"{name}-{keys.key(inputs)}"
        if not (target / name).exists():
            _install(target, name, go, f"{package}@{version}")
        return target / name


def _install(target: Path, name: str, go: Path, package: str) -> None:
    """By an empty module that requires it: `go install` cannot name its output and refuses `replace` lines."""
    module = target.with_name(target.name + ".module")
    module.mkdir(parents=True, exist_ok=True)
    path, _, version = package.partition("@")
    (module / "go.mod").write_text("module folkmoot.dev/e2e/tool\n\ngo 1.24.0\n")
    run([go, "get", f"{path}@{version}"], directory=module)
    build.compile_into(target, name, [go, "-C", module, "build", "-mod=mod", "-trimpath", "-ldflags", "-s -w"], path)
