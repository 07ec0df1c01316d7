"""Images without a container engine: buildah, with a base made by debootstrap where no registry answers.

How this machine reaches a package index (pip's settings, a private CA) is needed inside `RUN pip install` and belongs
in no layer: it goes in by mounts that exist during the build alone. Proxies pass by themselves, buildah keeps them out.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import host, pip_settings
from .build import exclusive
from .containers import archive_of
from .errors import ClusterError, CommandFailed
from .keys import key
from .shell import run, say, step, stream

SUITE = "trixie"
# What the project's images stand on; Debian's Valkey serves the bus, so that one runtime image serves every container.
INCLUDED = ("python3", "python3-venv", "ca-certificates", "valkey-server", "git", "bash", "coreutils", "procps")
# Archives, lists and documentation: 60 MB that no container reads.
EXCLUDED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "var/log/apt")
BASE_NAME = "folkmoot.local/base"


@dataclass(frozen=True)
class Wanted:
    """What `image build` was asked for."""

    name: str
    file: str
    context: str
    arguments: tuple[str, ...]


def build(cache: Path, wanted: Wanted) -> Path:
    """Build the image and give the path of its docker-archive, which is written anew only if the image changed."""
    host.require_linux_root()
    host.require_packages(host.IMAGE_PACKAGES)
    for path in (wanted.file, wanted.context):
        if not Path(path).exists():
            raise ClusterError(f"{path} does not exist")
    arguments = list(wanted.arguments)
    if not any(each.startswith("BASE=") for each in arguments):
        arguments.append(f"BASE={base(cache)}")
    with exclusive(cache / "images.lock"), tempfile.TemporaryDirectory() as folder:
        with step(f"build {wanted.name}"):
            identity = _build(cache, wanted, arguments, Path(folder))
        return _export(cache, wanted.name, identity)


def _build(cache: Path, wanted: Wanted, arguments: Sequence[str], folder: Path) -> str:
    identity = folder / "identity"
    words = ["build", "--isolation", "chroot", "--network", "host", "--layers", "--format", "docker"]
    words += ["--iidfile", str(identity), "--tag", wanted.name, "--file", wanted.file]
    for argument in arguments:
        words += ["--build-arg", argument]
    for mount in pip_settings.mounts(folder):
        words += ["--volume", mount]
    stream(_buildah(cache, *words, wanted.context), cache / "images" / f"{archive_of(cache, wanted.name).stem}.log")
    return identity.read_text().strip()


def _export(cache: Path, name: str, identity: str) -> Path:
    archive = archive_of(cache, name)
    mark = archive.with_suffix(".id")
    if archive.exists() and mark.exists() and mark.read_text() == identity:
        say(f"{name} is unchanged")
        return archive
    unfinished = archive.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with step(f"export {name}"):
        run(_buildah(cache, "push", identity, f"docker-archive:{unfinished}:{name}"))
    unfinished.rename(archive)
    mark.write_text(identity)
    return archive


def _buildah(cache: Path, *words: str) -> list[str | Path]:
    """In a mount namespace of its own: buildah leaves its store mounted otherwise."""
    store = cache / "buildah"
    for folder in (store / "storage", store / "run", cache / "images"):
        folder.mkdir(parents=True, exist_ok=True)
    options = ["--root", str(store / "storage"), "--runroot", str(store / "run"), "--storage-driver", "overlay"]
    return ["unshare", "--mount", "--propagation", "private", "--", "buildah", *options, *words]


# -- the base ----------------------------------------------------------------------------------------------------------


def base(cache: Path) -> str:
    """Name of the base image in buildah's store, after making it once."""
    host.require_linux_root()
    host.require_packages(host.IMAGE_PACKAGES)
    recipe = {"suite": SUITE, "packages": " ".join(INCLUDED), "recipe": hashlib.sha256(_RECIPE.encode()).hexdigest()}
    name = f"{BASE_NAME}:{key({part: value.encode() for part, value in recipe.items()})}"
    with exclusive(cache / "images.lock"):
        if not _exists(cache, name):
            with step(f"base image, Debian {SUITE}"):
                _make_base(cache, name)
    return name


def _exists(cache: Path, name: str) -> bool:
    try:
        run(_buildah(cache, "inspect", "--type", "image", name))
    except CommandFailed:
        return False
    return True


# Run in the new root. Containerfiles are written for the official python image, which has `python`.
_RECIPE = """set -e
ln -sf python3 /usr/bin/python
: > /etc/pip.conf
"""


def _make_base(cache: Path, name: str) -> None:
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        root = Path(folder) / "root"
        bootstrap: list[str | Path] = [
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(INCLUDED)}",
            SUITE,
            root,
        ]
        stream(["unshare", "--mount", "--propagation", "private", "--", *bootstrap], cache / "images" / "base.log")
        run(["chroot", root, "sh", "-c", _RECIPE])
        for path in EXCLUDED:
            shutil.rmtree(root / path, ignore_errors=True)
            (root / path).mkdir(parents=True)
        containerfile = Path(folder) / "Containerfile"
        containerfile.write_text("FROM scratch\nADD root.tar /\nENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8\n")
        run(["tar", "--numeric-owner", "--one-file-system", "-C", root, "-cf", Path(folder) / "root.tar", "."])
        shutil.rmtree(root)
        words = ["build", "--isolation", "chroot", "--format", "docker", "--tag", name, "--file", str(containerfile)]
        stream(_buildah(cache, *words, folder), cache / "images" / "base-image.log")
