"""Directories with one owner, and file operations that survive a power cut, over an injectable `os`, so that tests make each fail.

Order matters: content is synced before the name that shows it, the name (its directory) before anyone relies on it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from folkmoot_core.errors import Conflict, Invalid, Unavailable

ZEROS = b"\0" * (1 << 20)
FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Os(Protocol):
    """The calls of module `os` that touch the volume; the module itself is the real one."""

    def open(self, path: str, flags: int, mode: int = ...) -> int: ...
    def close(self, fd: int) -> None: ...
    def write(self, fd: int, data: bytes) -> int: ...
    def pwritev(self, fd: int, buffers: Sequence[bytes], offset: int) -> int: ...
    def pread(self, fd: int, length: int, offset: int) -> bytes: ...
    def fsync(self, fd: int) -> None: ...
    def fdatasync(self, fd: int) -> None: ...
    def replace(self, src: str, dst: str) -> None: ...
    def unlink(self, path: str) -> None: ...


class RealOs:
    """Module `os`, and nothing else."""

    def open(self, path: str, flags: int, mode: int = 0o640) -> int:
        return os.open(path, flags, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def write(self, fd: int, data: bytes) -> int:
        return os.write(fd, data)

    def pwritev(self, fd: int, buffers: Sequence[bytes], offset: int) -> int:
        return os.pwritev(fd, buffers, offset)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return os.pread(fd, length, offset)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def replace(self, src: str, dst: str) -> None:
        os.replace(src, dst)

    def unlink(self, path: str) -> None:
        os.unlink(path)


def replace_file(calls: Os, path: Path, data: bytes, mode: int = 0o640) -> None:
    """Whole old content or whole new content, whenever the machine stops; durable on return."""
    _create(calls, path, [data] if data else [], mode)


def remove_file(calls: Os, path: Path) -> None:
    """No file of this name any more, durably; no error where there is none."""
    try:
        calls.unlink(str(path))
    except FileNotFoundError:
        return
    sync_directory(calls, path.parent)


def zero_file(calls: Os, path: Path, size: int, head: bytes = b"") -> None:
    """A file of zeros behind `head`, whose blocks are on disk: later syncs of its data then commit no metadata (ledger.md §5.1)."""
    full, rest = divmod(size - len(head), len(ZEROS))
    chunks = [head, *([ZEROS] * full), ZEROS[:rest]]
    _create(calls, path, [chunk for chunk in chunks if chunk], 0o640)


def write_at(calls: Os, fd: int, data: bytes, offset: int) -> None:
    """All of `data`, however little each call takes."""
    view = memoryview(data)
    while view:
        written = calls.pwritev(fd, [bytes(view) if len(view) != len(data) else data], offset)
        view = view[written:]
        offset += written


def read_at(calls: Os, fd: int, length: int, offset: int) -> bytes:
    """`length` bytes, or fewer at the end of the file."""
    parts: list[bytes] = []
    while length > 0 and (part := calls.pread(fd, length, offset)):
        parts.append(part)
        length -= len(part)
        offset += len(part)
    return b"".join(parts)


def sync_directory(calls: Os, directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = calls.open(str(directory), os.O_RDONLY | os.O_DIRECTORY)
    try:
        calls.fsync(fd)
    finally:
        calls.close(fd)


def make_directory(calls: Os, directory: Path) -> None:
    """Create a directory, durably where it is new."""
    if not directory.is_dir():
        directory.mkdir(parents=True, mode=0o750)
        sync_directory(calls, directory.parent)


def sync_path(path: Path) -> None:
    """Make a file's content, or the names in a directory, durable; where no test needs it to fail."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def lock_directory(directory: Path) -> int:
    """The descriptor that holds it, for life; raises `Conflict` when another process has it."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise Conflict(
            f"{directory} is in use by another process, and has one writer; stop the other one, or wait until it is gone",
            reason="SecondWriter",
        ) from error
    except OSError as error:
        os.close(fd)
        raise Unavailable(f"{directory} cannot be locked: {error.strerror}; use a block volume", reason="NoLock") from error
    return fd


def refuse_shared_filesystem(directory: Path) -> None:
    """Locks and syncs of network and overlay file systems do not keep what is promised on them (ledger.md §5.1)."""
    kind = _filesystem(directory)
    if kind in _UNSAFE:
        raise Invalid(
            f"directory {directory} is on {kind}, which keeps neither locks nor syncs as they are needed; "
            "use a ReadWriteOncePod block volume"
        )


_UNSAFE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "fuse.s3fs"})


def _filesystem(directory: Path) -> str:
    """Type of the mount that a directory is on, from /proc/self/mounts; empty where that cannot be read."""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    resolved = directory.resolve()
    best, kind = -1, ""
    for line in mounts:
        fields = line.split(" ")
        point = Path(fields[1].replace("\\040", " "))
        if (point == resolved or point in resolved.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind


def _create(calls: Os, path: Path, chunks: list[bytes], mode: int) -> None:
    temporary = path.with_name(path.name + ".new")
    fd = calls.open(str(temporary), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                rest = rest[calls.write(fd, rest) :]
        calls.fsync(fd)
    finally:
        calls.close(fd)
    calls.replace(str(temporary), str(path))
    sync_directory(calls, path.parent)
