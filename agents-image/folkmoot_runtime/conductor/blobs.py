"""The tenant's artefact store: blobs by SHA-256, as files, durable before their digest is given out.

Called by the doors (agents put and get), the driver (workspaces, results) and the evidence export. Content is never
interpreted here except for workspace manifests. What an attacker who can write these files could do: destroy content, not
forge it, because every read checks the digest.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from pydantic import ValidationError

from folkmoot_core.canonical import digest as digest_of
from folkmoot_core.errors import Invalid, LimitReached, Missing, Unavailable
from folkmoot_core.messages import WorkspaceFile, WorkspaceManifest
from folkmoot_runtime.conductor import rows
from folkmoot_runtime.conductor.store import Store

T = TypeVar("T")
MAX_BLOB: Final = 10 * 1024 * 1024
MAX_WORKSPACE: Final = 64 * 1024 * 1024  # bytes of all files of one workspace that are read at once
MAX_FILES: Final = 10_000
_PREFIX: Final = "sha256:"


class File(NamedTuple):
    """One file of a workspace."""

    content: bytes
    executable: bool


class Artefacts:
    """Blobs in `directory`, listed in the store. `clock` gives epoch seconds."""

    def __init__(self, store: Store, directory: Path, clock: Callable[[], float], executor: Executor | None = None) -> None:
        self._store = store
        self._directory = directory
        self._clock = clock
        self._executor = executor or ThreadPoolExecutor(max_workers=2, thread_name_prefix="blobs")

    async def put(self, content: bytes) -> str:
        """Store content; repeating it changes nothing. Raises `LimitReached` over 10 MiB."""
        if len(content) > MAX_BLOB:
            raise LimitReached(f"artefact has {len(content)} bytes; at most {MAX_BLOB} are stored", reason="ArtifactTooLarge")
        name = digest_of(content)
        await self._in_thread(_write, self._path(name), content)
        await self._store.run(rows.put_artefact, name, len(content), int(self._clock() * 1000))
        return name

    async def get(self, name: str) -> bytes:
        """Content of a digest, checked; raises `Missing`, or `Unavailable` when the file no longer is what its name says."""
        path = self._path(name)
        content = await self._in_thread(_read, path)
        if content is None:
            raise Missing(f"artefact {name} is not in this tenant's store; put it first")
        if digest_of(content) != name:
            raise Unavailable(f"artefact {name}: the stored file has other content; restore the volume", reason="ArtifactCorrupt")
        return content

    async def put_workspace(self, files: dict[str, File]) -> tuple[str, WorkspaceManifest]:
        """Store files and their manifest; the manifest's digest names the workspace."""
        listed = []
        for path, file in sorted(files.items()):
            stored = await self.put(file.content)
            listed.append(WorkspaceFile(path=path, digest=stored, size=len(file.content), executable=file.executable))
        manifest = WorkspaceManifest(files=tuple(listed))
        return await self.put(manifest.canonical()), manifest

    async def manifest(self, name: str) -> WorkspaceManifest:
        """The manifest behind a workspace's digest, with every blob it names present; raises `Invalid` or `Missing`."""
        try:
            manifest = WorkspaceManifest.model_validate_json(await self.get(name))
        except ValidationError:
            raise Invalid(f"artefact {name} is not a workspace manifest", reason="WorkspaceInvalid") from None
        _check(name, manifest)
        wanted = {f.digest for f in manifest.files}
        absent = wanted - await self._store.run(rows.known_artefacts, wanted)
        if absent:
            raise Missing(f"workspace {name}: {len(absent)} of its files are not in the artefact store, for one {min(absent)}")
        return manifest

    async def files(self, name: str | None) -> dict[str, File]:
        """All files of a workspace by path; None is the empty one."""
        if name is None:
            return {}
        manifest = await self.manifest(name)
        if sum(f.size for f in manifest.files) > MAX_WORKSPACE:
            raise LimitReached(f"workspace {name} is larger than {MAX_WORKSPACE} bytes", reason="WorkspaceTooLarge")
        return {f.path: File(await self.get(f.digest), f.executable) for f in manifest.files}

    async def keep(self, session: str, digests: Iterable[str]) -> None:
        """Keep artefacts for as long as the session is kept."""
        await self._store.run(rows.reference, session, tuple(digests))

    async def keep_workspace(self, session: str, name: str) -> None:
        """Keep a workspace's manifest and files."""
        manifest = await self.manifest(name)
        await self.keep(session, (name, *(f.digest for f in manifest.files)))

    async def sweep(self, before: float) -> int:
        """Delete what no session refers to and nobody uploaded since `before` (epoch seconds)."""
        names = await self._store.run(rows.take_unreferenced, int(before * 1000))
        for name in names:
            await self._in_thread(self._path(name).unlink, True)
        return len(names)

    def _path(self, name: str) -> Path:
        hexadecimal = name.removeprefix(_PREFIX)
        if not name.startswith(_PREFIX) or len(hexadecimal) != 64 or set(hexadecimal) - set("0123456789abcdef"):
            raise Invalid(f"{name[:80]!r} is not a digest; expected sha256: and 64 lowercase hex digits")
        return self._directory / hexadecimal[:2] / hexadecimal

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        return await asyncio.wrap_future(self._executor.submit(work, *args))


def _check(name: str, manifest: WorkspaceManifest) -> None:
    """An agent wrote this: paths must be plain relative ones before anybody joins them to a directory."""
    if len(manifest.files) > MAX_FILES:
        raise Invalid(f"workspace {name} lists {len(manifest.files)} files; at most {MAX_FILES}", reason="WorkspaceInvalid")
    paths = [f.path for f in manifest.files]
    if len(set(paths)) != len(paths):
        raise Invalid(f"workspace {name} lists a path twice", reason="WorkspaceInvalid")
    for path in paths:
        if not plain_path(path):
            raise Invalid(f"workspace {name}: path {path[:100]!r} is not a plain relative path", reason="WorkspaceInvalid")


def plain_path(path: str) -> bool:
    """Relative, '/'-separated, no empty, '.' or '..' parts, no control characters, at most 1024 characters."""
    parts = path.split("/")
    printable = all(ord(c) >= 32 and ord(c) != 127 and not 0xD800 <= ord(c) <= 0xDFFF for c in path)
    return 0 < len(path) <= 1024 and printable and "\\" not in path and not {"", ".", ".."} & set(parts)


def _write(path: Path, content: bytes) -> None:
    """Durable under its final name, or not there at all."""
    if _read(path) == content:  # compared, not assumed: putting content again heals a damaged file
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    for directory in (path.parent, path.parent.parent):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
