"""One session's files: safe paths, bounded reads and writes, the manifest by digest. No path leaves the root.

Blocking file calls; the door runs them in a thread. Between tool calls no process of a command lives (processes.py), so what is
checked here is not changed behind our back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from folkmoot_core.canonical import digest
from folkmoot_core.errors import Invalid, LimitReached, Missing
from folkmoot_core.messages import WorkspaceFile, WorkspaceManifest

MAX_FILES: Final = 5_000
MAX_FILE: Final = 10 * 1024 * 1024  # bytes; what the artefact store takes
MAX_WALK: Final = 50_000  # directory entries looked at
IGNORED: Final = frozenset({"__pycache__", ".pytest_cache"})  # by-products of running tests, never part of a submission


@dataclass
class Workspace:
    """The directory `root`, of at most `limit` bytes in all."""

    root: Path
    limit: int
    _digests: dict[str, tuple[tuple[int, int, int], str]] = field(default_factory=dict)
    _blobs: dict[str, str] = field(default_factory=dict)  # digest → path, as of the last manifest

    def resolve(self, relative: str) -> Path:
        """A path inside the root, symbolic links followed; raises `Invalid` for any way out."""
        pure = PurePosixPath(relative)
        if not relative or "\0" in relative or pure.is_absolute() or ".." in pure.parts:
            raise Invalid(f"path {relative[:200]!r}: expected a path relative to the workspace, without '..'")
        real = (self.root / pure).resolve()
        if not real.is_relative_to(self.root.resolve()):
            raise Invalid(f"path {relative[:200]!r} leads out of the workspace")
        return real

    def write(self, relative: str, data: bytes, *, executable: bool = False) -> None:
        """Create or replace one file and its directories."""
        path = self.resolve(relative)
        if len(data) > MAX_FILE:
            raise LimitReached(f"file {relative[:200]}: {len(data)} bytes; at most {MAX_FILE}")
        before = path.stat().st_size if path.is_file() else 0
        if self.size() - before + len(data) > self.limit:
            raise LimitReached(f"file {relative[:200]}: the workspace would be larger than {self.limit} bytes")
        if path.is_dir():
            raise Invalid(f"path {relative[:200]!r} is a directory")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise Invalid(f"path {relative[:200]!r}: a part of it is a file") from error
        path.write_bytes(data)
        path.chmod(0o755 if executable else 0o644)

    def read(self, relative: str, limit: int) -> bytes:
        """A file's bytes, at most `limit`; raises `Missing` or `LimitReached`."""
        path = self.resolve(relative)
        if not path.is_file():
            raise Missing(f"file {relative[:200]} does not exist in the workspace")
        if path.stat().st_size > limit:
            raise LimitReached(f"file {relative[:200]}: {path.stat().st_size} bytes; at most {limit} are read")
        return path.read_bytes()

    def files(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """(relative path, entry) of every plain file, sorted by directory. Links are not followed and not listed."""
        seen = 0
        pending = [""]
        while pending:
            prefix = pending.pop()
            with os.scandir(self.root / prefix) as entries:
                found = sorted(entries, key=lambda e: e.name)
            for entry in found:
                seen += 1
                if seen > MAX_WALK:
                    raise LimitReached(f"the workspace has more than {MAX_WALK} entries")
                name = f"{prefix}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in IGNORED:
                        pending.append(f"{name}/")
                elif entry.is_file(follow_symlinks=False):
                    yield name, entry

    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.stat(follow_symlinks=False).st_size for _, entry in self.files())

    def manifest(self) -> WorkspaceManifest:
        """Every file by digest. Raises `LimitReached` when there are too many or too large ones, naming one."""
        listed: list[WorkspaceFile] = []
        self._blobs = {}
        for name, entry in self.files():
            stat = entry.stat(follow_symlinks=False)
            if stat.st_size > MAX_FILE:
                raise LimitReached(f"file {name[:200]}: {stat.st_size} bytes; at most {MAX_FILE} can be kept")
            if len(listed) >= MAX_FILES:
                raise LimitReached(f"the workspace has more than {MAX_FILES} files")
            named = self._digest(name, entry.path, stat)
            self._blobs[named] = name
            listed.append(WorkspaceFile(path=name, digest=named, size=stat.st_size, executable=bool(stat.st_mode & 0o100)))
        self._digests = {f.path: self._digests[f.path] for f in listed}
        return WorkspaceManifest(files=tuple(sorted(listed, key=lambda f: f.path)))

    def blob(self, wanted: str) -> bytes:
        """Content of a file of the last manifest, by digest; raises `Missing` when it is not there or has changed since."""
        name = self._blobs.get(wanted)
        if name is None:
            raise Missing(f"blob {wanted[:80]} is not in the workspace's last manifest")
        data = self.read(name, MAX_FILE)
        if digest(data) != wanted:
            raise Missing(f"blob {wanted[:80]} has changed since the manifest was made")
        return data

    def wipe(self) -> None:
        """Remove everything below the root; the root itself is a mount point and stays."""
        self._digests, self._blobs = {}, {}
        self.root.mkdir(parents=True, exist_ok=True)
        for entry in list(os.scandir(self.root)):
            if entry.is_dir(follow_symlinks=False):
                _make_removable(Path(entry.path))
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)

    def _digest(self, name: str, path: str, stat: os.stat_result) -> str:
        # ctime cannot be set back without privilege, so an unchanged key means unchanged bytes.
        key = (stat.st_ino, stat.st_size, stat.st_ctime_ns)
        known = self._digests.get(name)
        if known is None or known[0] != key:
            known = (key, digest(Path(path).read_bytes()))
            self._digests[name] = known
        return known[1]


def _make_removable(directory: Path) -> None:
    """A command may have taken away its own write permission; give it back so that the wipe is complete."""
    directory.chmod(0o700)
    for parent, directories, _ in os.walk(directory):
        for name in directories:
            path = Path(parent) / name
            if not path.is_symlink():
                path.chmod(0o700)
