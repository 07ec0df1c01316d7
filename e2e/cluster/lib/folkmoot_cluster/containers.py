"""What containerd is asked: whether it answers, to take an image in, to end every container of ours."""

from pathlib import Path

from .errors import ClusterError
from .names import Instance
from .shell import run, succeeds

NAMESPACE = "k8s.io"


def _ctr(instance: Instance, *words: str | Path) -> str:
    return run(["ctr", "--address", instance.containerd_socket, "--namespace", NAMESPACE, *words])


def answers(instance: Instance) -> bool:
    return succeeds(["ctr", "--address", instance.containerd_socket, "version"])


def import_archive(instance: Instance, archive: Path) -> None:
    """Take an image in, unless its manifest is there already."""
    _ctr(instance, "images", "import", "--all-platforms", archive)


def load(instance: Instance, image: str) -> None:
    """Take in an image that was built here, or an archive named by its path."""
    archive = Path(image) if image.endswith(".tar") else archive_of(instance.cache, image)
    if not archive.exists():
        raise ClusterError(f"no archive of {image}: build it with e2e/cluster/image build {image} ...")
    import_archive(instance, archive)


def archive_of(cache: Path, image: str) -> Path:
    """Where the archive of an image that was built here lies."""
    return cache / "images" / (image.replace("/", "_").replace(":", "-") + ".tar")


def end_all(instance: Instance) -> int:
    """End every task by its id and say how many there were. One that refuses is left to the cgroup's sweep after it."""
    tasks = _ctr(instance, "tasks", "list", "--quiet").split()
    command: list[str | Path] = [
        "ctr",
        "--address",
        instance.containerd_socket,
        "--namespace",
        NAMESPACE,
        "tasks",
        "delete",
        "--force",
    ]
    for task in tasks:
        succeeds([*command, task])
    return len(tasks)
