"""One session's files: safe paths, bounded reads and writes, the manifest by digest. No path leaves the root.

Blocking file calls; the door runs them in a thread. Between tool calls no process of a command lives (processes.py), so what is
checked here is not changed behind our back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from folkmoot_core.canonical import digest
from folkmoot_core.errors import Invalid, LimitReached, Missing, Unavailable
from folkmoot_core.messages import WorkspaceFile, WorkspaceManifest

MAX_FILES: Final = 5_000
MAX_FILE: Final = 10 * 1024 * 1024  # bytes; what the artefact store takes
MAX_NAME: Final = 1024  # characters of a path; what a manifest takes
SETTLED_NS: Final = 100_000_000  # a file untouched for so long has a digest worth remembering
MAX_WALK: Final = 50_000  # directory entries looked at
IGNORED: Final = frozenset({"__pycache__", ".pytest_cache"})  # by-products of running tests, never part of a submission


@dataclass
class Workspace:
    """The directory `root`, of at most `limit` bytes in all."""

    root: Path
    limit: int
    _digests: dict[str, tuple[tuple[int, int, int], str]] = field(default_factory=dict)
    _blobs: dict[str, str] = field(default_factory=dict)  # digest → path, as of the last manifest
    left_out: list[str] = field(default_factory=list)
    """What the last manifest does not hold, and why: for the model, which would otherwise count on it."""

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
        if path.exists() and not path.is_file():  # opening a pipe for writing would wait for a reader for ever
            raise Invalid(f"path {relative[:200]!r} is no plain file")
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

    def files(self, others: list[str] | None = None) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """(relative path, entry) of every plain file, sorted by directory. Links are not followed and not listed; `others` is
        told of them. What vanishes while we look (a command is running) is skipped."""
        seen = 0
        pending = [""]
        while pending:
            prefix = pending.pop()
            for entry in _entries(self.root / prefix):
                seen += 1
                if seen > MAX_WALK:
                    raise LimitReached(f"the workspace has more than {MAX_WALK} entries")
                name = f"{prefix}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in IGNORED:
                        pending.append(f"{name}/")
                elif entry.is_file(follow_symlinks=False):
                    yield name, entry
                elif others is not None:
                    others.append(f"{name[:200]} (no plain file)")

    def size(self) -> int:
        """Bytes of all files."""
        total = 0
        for _, entry in self.files():
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat(follow_symlinks=False).st_size
        return total

    def overweight(self) -> str:
        """Why a running command must end, '' while the workspace is within its size."""
        try:
            return f"the workspace is larger than {self.limit} bytes" if self.size() > self.limit else ""
        except LimitReached as error:
            return error.message

    def manifest(self) -> WorkspaceManifest:
        """Every file by digest, as far as the limits go. What a command made beyond them is in `left_out`: refusing the whole
        manifest would leave the model without a word of what it did, and with no way to make room."""
        listed: list[WorkspaceFile] = []
        self._blobs, self.left_out = {}, []
        try:
            for name, entry in self.files(self.left_out):
                if len(listed) >= MAX_FILES:
                    raise LimitReached(f"all files beyond the first {MAX_FILES}")
                found = self._listed(name, entry)
                if found is not None:
                    self._blobs[found.digest] = name
                    listed.append(found)
        except LimitReached as error:
            self.left_out.append(error.message)
        self._digests = {f.path: self._digests[f.path] for f in listed if f.path in self._digests}
        return WorkspaceManifest(files=tuple(sorted(listed, key=lambda f: f.path)))

    def _listed(self, name: str, entry: os.DirEntry[str]) -> WorkspaceFile | None:
        """One line of the manifest, or None for what cannot be kept."""
        stat = entry.stat(follow_symlinks=False)
        try:
            name.encode()
        except UnicodeEncodeError:
            self.left_out.append(f"{name.encode(errors='replace').decode()[:200]} (its name is not UTF-8)")
            return None
        if len(name) > MAX_NAME:
            self.left_out.append(f"{name[:200]} (its path is longer than {MAX_NAME} characters)")
            return None
        if stat.st_size > MAX_FILE:
            self.left_out.append(f"{name[:200]} ({stat.st_size} bytes; at most {MAX_FILE} can be kept)")
            return None
        try:
            named = self._digest(name, entry.path, stat)
        except PermissionError:
            self.left_out.append(f"{name[:200]} (not readable)")
            return None
        return WorkspaceFile(path=name, digest=named, size=stat.st_size, executable=bool(stat.st_mode & 0o100))

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
        """Remove everything below the root, which stays; raises `Unavailable` when something is left."""
        self._digests, self._blobs = {}, {}
        self.root.mkdir(parents=True, exist_ok=True)
        wipe_directory(self.root)
        if _entries(self.root):
            raise Unavailable(f"workspace {self.root} could not be wiped; nobody gets a lease on what is left", reason="NotWiped")

    def _digest(self, name: str, path: str, stat: os.stat_result) -> str:
        # ctime cannot be set back without privilege, so an unchanged key means unchanged bytes; but the kernel's clock ticks
        # every few milliseconds, so a file changed within the last tick may be changed again under the same key.
        key = (stat.st_ino, stat.st_size, stat.st_ctime_ns)
        known = self._digests.get(name)
        if known is not None and known[0] == key:
            return known[1]
        found = digest(Path(path).read_bytes())
        if time.time_ns() - stat.st_ctime_ns > SETTLED_NS:
            self._digests[name] = (key, found)
        else:
            self._digests.pop(name, None)
        return found


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda e: e.name)
    except (FileNotFoundError, PermissionError):
        return []


def wipe_directory(directory: Path, keep: Path | None = None) -> None:
    """Remove everything below a directory but `keep`; the directory itself is a mount point and stays. What belongs to
    somebody else, which a command cannot have made, is left."""
    for entry in _entries(directory):
        if keep is not None and Path(entry.path) == keep:
            continue
        with contextlib.suppress(PermissionError, FileNotFoundError):
            if entry.is_dir(follow_symlinks=False):
                _make_removable(Path(entry.path))
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def _make_removable(directory: Path) -> None:
    """A command may have taken away its own write permission; give it back so that the wipe is complete."""
    directory.chmod(0o700)
    for parent, directories, _ in os.walk(directory):
        for name in directories:
            path = Path(parent) / name
            if not path.is_symlink():
                path.chmod(0o700)
