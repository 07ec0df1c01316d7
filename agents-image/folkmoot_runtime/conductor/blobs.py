"""The tenant's artefact store: content by SHA-256, sealed in files, durable before its digest is given out.

Called by the doors (agents put and get), the driver (workspaces, results) and the evidence export. Content belongs to a session
and so to a subject, and is sealed under that subject's key of the month; a file is named by the digest of its sealed bytes, and
equal content is kept once for each subject, never shared between two: what is erased for one must not live on for another.
Content is never interpreted here except for workspace manifests. What an attacker who can write these files could do: destroy
content, not forge it, because the seal is checked at every read, and the digest after it. Who can read them reads nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from pydantic import ValidationError

from folkmoot_core import sealing
from folkmoot_core.canonical import digest as digest_of
from folkmoot_core.errors import Conflict, Invalid, LimitReached, Missing, Unavailable
from folkmoot_core.messages import WorkspaceFile, WorkspaceManifest
from folkmoot_core.sealing import Opened
from folkmoot_runtime.conductor import sealed_rows
from folkmoot_runtime.conductor.sealed_rows import Artefact
from folkmoot_runtime.conductor.store import Store
from folkmoot_runtime.conductor.vault import Vault
from folkmoot_runtime.durable import sync_path

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
    """Sealed files in `directory`, listed in the store. `clock` gives epoch seconds."""

    def __init__(
        self, store: Store, vault: Vault, directory: Path, clock: Callable[[], float], executor: Executor | None = None
    ) -> None:
        self._store = store
        self._vault = vault
        self._directory = directory
        self._clock = clock
        self._executor = executor or ThreadPoolExecutor(max_workers=2, thread_name_prefix="blobs")

    async def put(self, session: str, content: bytes) -> str:
        """Store content for a session, which keeps it from then on; repeating it changes nothing. Raises `LimitReached` over
        10 MiB, `Missing` for a session that nobody knows, `Conflict` for one that was erased."""
        if len(content) > MAX_BLOB:
            raise LimitReached(f"artefact has {len(content)} bytes; at most {MAX_BLOB} are stored", reason="ArtifactTooLarge")
        name = digest_of(content)
        ref, known = await self._store.run(sealed_rows.locate, session, name)
        if known is not None:
            if not await self._in_thread(_is_whole, self._path(known.sealed), known.sealed):
                await self._store.run(sealed_rows.drop_artefact, known.sealed)  # putting content again heals a damaged file
            elif await self._store.run(sealed_rows.take_up, session, known, self._now_ms()):
                return name
        await self._list(session, await self._seal(ref, name, content))
        return name

    async def get(self, name: str, ref: str | None = None) -> bytes:
        """Content of a digest, checked; `ref`: as this subject has it. Raises `Missing`, or `Unavailable` when the file no longer
        is what it was."""
        _check_digest(name)
        found = await self._store.run(sealed_rows.find_artefact, name, ref)
        if found is None:
            raise Missing(f"artefact {name} is not in this tenant's store; put it first")
        return (await self.unseal(found)).content

    async def opened_for(self, session: str, name: str) -> tuple[str, Opened]:
        """The subject of a session, and that subject's content with the secret that its commitments' salts are made from."""
        ref, found = await self._store.run(sealed_rows.locate, session, name)
        if found is None:
            raise Missing(f"artefact {name} is not in the store of session {session}; put it first")
        return ref, await self.unseal(found)

    async def unseal(self, artefact: Artefact) -> Opened:
        """What a row points to."""
        name = artefact.digest
        sealed = await self._in_thread(_read, self._path(artefact.sealed))
        if sealed is None:
            raise Missing(f"artefact {name}: its file is gone; restore the volume", reason="ArtifactLost")
        key = await self._vault.key(artefact.ref, artefact.month)
        try:
            opened = await self._in_thread(key.open, name, sealed)
        except Invalid as error:
            raise Unavailable(f"artefact {name}: {error.message}", reason="ArtifactCorrupt") from error
        if digest_of(opened.content) != name:
            raise Unavailable(f"artefact {name}: the seal holds other content; restore the volume", reason="ArtifactCorrupt")
        return opened

    async def put_workspace(self, session: str, files: dict[str, File]) -> tuple[str, WorkspaceManifest]:
        """Store files and their manifest; the manifest's digest names the workspace."""
        listed = []
        for path, file in sorted(files.items()):
            stored = await self.put(session, file.content)
            listed.append(WorkspaceFile(path=path, digest=stored, size=len(file.content), executable=file.executable))
        manifest = WorkspaceManifest(files=tuple(listed))
        return await self.put(session, manifest.canonical()), manifest

    async def manifest(self, name: str, ref: str | None = None) -> WorkspaceManifest:
        """The manifest behind a workspace's digest, with every blob it names present; raises `Invalid` or `Missing`."""
        try:
            manifest = WorkspaceManifest.model_validate_json(await self.get(name, ref))
        except ValidationError:
            raise Invalid(f"artefact {name} is not a workspace manifest", reason="WorkspaceInvalid") from None
        _check(name, manifest)
        wanted = {f.digest for f in manifest.files}
        absent = wanted - await self._store.run(sealed_rows.known_artefacts, wanted, ref)
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
        """Keep artefacts for as long as the session is kept. Raises `Missing` for what its subject does not have."""
        await self._store.run(sealed_rows.reference, session, tuple(digests))

    async def keep_workspace(self, session: str, name: str) -> None:
        """Keep a workspace's manifest and files."""
        ref = await self._store.run(sealed_rows.subject_of, session)
        manifest = await self.manifest(name, ref)
        await self.keep(session, (name, *(f.digest for f in manifest.files)))

    async def sweep(self, before: float) -> int:
        """Delete what no session refers to and nobody stored since `before` (epoch seconds), and keys that seal nothing more."""
        files = await self._store.run(sealed_rows.take_unreferenced, int(before * 1000))
        await self.remove(files)
        idle = await self._store.run(sealed_rows.idle_keys, sealing.month_of(self._clock()))
        await self._vault.destroy(idle)
        await self._store.run(sealed_rows.drop_keys, idle)
        return len(files)

    async def remove(self, files: Iterable[str]) -> None:
        """Delete sealed files by name; durable on return, and harmless to repeat."""
        await self._in_thread(_remove, [self._path(name) for name in files])

    async def remove_strays(self) -> int:
        """Delete files that no row points to: what a crash left behind. Before the doors open, while nothing is stored."""
        known = {self._path(name) for name in await self._store.run(sealed_rows.sealed_files)}
        return await self._in_thread(_remove_strays, self._directory, known)

    async def _seal(self, ref: str, name: str, content: bytes) -> Artefact:
        month, key = await self._vault.current(ref)
        nonce, secret = self._vault.random(sealing.NONCE), self._vault.random(sealing.SECRET)
        sealed = await self._in_thread(partial(key.seal, name, content, nonce=nonce, secret=secret))
        file = await self._in_thread(digest_of, sealed)
        await self._in_thread(_write, self._path(file), sealed)
        return Artefact(ref, name, len(content), file, month)

    async def _list(self, session: str, artefact: Artefact) -> None:
        try:
            listed = await self._store.run(sealed_rows.put_artefact, session, artefact, self._now_ms())
        except (Conflict, Missing):  # erased meanwhile: the file must not outlive its key
            await self.remove([artefact.sealed])
            raise
        if listed.sealed != artefact.sealed:  # somebody stored the same at the same time
            await self.remove([artefact.sealed])

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _path(self, name: str) -> Path:
        hexadecimal = _check_digest(name)
        return self._directory / hexadecimal[:2] / hexadecimal

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        return await asyncio.wrap_future(self._executor.submit(work, *args))


def _check_digest(name: str) -> str:
    hexadecimal = name.removeprefix(_PREFIX)
    if not name.startswith(_PREFIX) or len(hexadecimal) != 64 or set(hexadecimal) - set("0123456789abcdef"):
        raise Invalid(f"{name[:80]!r} is not a digest; expected sha256: and 64 lowercase hex digits")
    return hexadecimal


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    for directory in (path.parent, path.parent.parent):
        sync_path(directory)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _is_whole(path: Path, name: str) -> bool:
    content = _read(path)
    return content is not None and digest_of(content) == name


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
    for directory in {path.parent for path in paths}:
        if directory.is_dir():
            sync_path(directory)


def _remove_strays(directory: Path, known: set[Path]) -> int:
    strays = [path for path in directory.glob("*/*") if path not in known]
    _remove(strays)
    return len(strays)
