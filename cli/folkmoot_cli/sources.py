"""Where a log's files are read from: a directory, a plain tar, a URL. Used by `verify` and `ledger`; it believes nothing of them.

Everything is bounded, in size and, for a URL, in time.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from io import FileIO
from pathlib import Path
from urllib.parse import urlsplit

from folkmoot_core.errors import Invalid, LimitReached, Missing

Read = Callable[[str], bytes | None]
MAX_FILE = 64 * 1024 * 1024  # bytes; a bundle has at most 17 MB, an artefact 10 MiB
_PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_source(source: str, token_file: str | None = None, ca_file: str | None = None) -> AbstractContextManager[Read]:
    """A reader of the log's files."""
    if is_url(source):
        from folkmoot_cli import urls  # an HTTP client takes longer to import than a small log to read

        return urls.opened(source, token_file, ca_file)
    path = Path(source)
    if path.is_dir():
        return _directory(path)
    if path.is_file():
        return _tar(path)
    raise Missing(f"{source}: no such directory or file; expected an exported log, a tar of one, or its https:// prefix")


def is_url(source: str) -> bool:
    """Whether it is asked over HTTP."""
    return urlsplit(source).scheme in ("http", "https")


def read_file(path: Path) -> bytes:
    """A local file, bounded; raises `Missing` with the system's word."""
    try:
        with path.open("rb", buffering=0) as file:
            return _whole(file, str(path))
    except OSError as error:
        raise Missing(f"{path}: {error.strerror}") from error


def _whole(file: FileIO, name: str) -> bytes:
    """Read at once what the file says that it has, and what comes after: a pipe says nothing."""
    data = b""
    wanted = min(os.fstat(file.fileno()).st_size, MAX_FILE) + 1
    while len(data) <= MAX_FILE and (more := file.read(wanted)):
        data += more
        wanted = len(data) + 1
    return _bounded(data, name)


@contextmanager
def _directory(directory: Path) -> Iterator[Read]:
    root = directory.resolve()
    inside: set[str] = set()
    """Folders that were looked at: a log has thousands of files in each."""

    def read(path: str) -> bytes | None:
        file = directory / path
        folder = path.rpartition("/")[0]
        if folder in inside:
            with suppress(OSError):  # nothing there, a link, or what is no file: the long way says what
                with os.fdopen(os.open(file, _PLAIN), "rb", buffering=0) as opened:
                    return _whole(opened, str(file))
        if not file.is_file():
            return None
        if not file.resolve().is_relative_to(root):
            raise Invalid(f"{file} leads out of {directory}")
        inside.add(folder)
        return read_file(file)

    yield read


@contextmanager
def _tar(path: Path) -> Iterator[Read]:
    """Plain tar only: what is compressed can grow without bound while it is searched."""
    try:
        with tarfile.open(path, "r:") as archive:
            members = {member.name.removeprefix("./"): member for member in archive if member.isfile()}

            def read(name: str) -> bytes | None:
                member = members.get(name)
                opened = archive.extractfile(member) if member is not None else None
                return _bounded(opened.read(MAX_FILE + 1), name) if opened is not None else None

            yield read
    except (tarfile.TarError, EOFError) as error:
        raise Invalid(f"{path}: not a tar file that can be read: {error}") from error


def _bounded(data: bytes, name: str) -> bytes:
    check_size(len(data), name)
    return data


def check_size(size: int, name: str) -> None:
    """Raises `LimitReached`."""
    if size > MAX_FILE:
        raise LimitReached(f"{name} is larger than {MAX_FILE} bytes")
