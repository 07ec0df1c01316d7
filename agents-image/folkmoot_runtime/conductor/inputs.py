"""A session's inputs: what people put into ConfigMaps becomes artefacts, and a tar among them the workspace.

Called when a session is accepted. The tar is untrusted: it is read in memory, never unpacked to disk, and whatever is not a
plain file or directory refuses the whole session with a sentence.
"""

from __future__ import annotations

import base64
import binascii
import io
import tarfile
from typing import Final

from folkmoot_core.document import SessionOrder
from folkmoot_core.errors import Invalid
from folkmoot_core.messages import InputRef
from folkmoot_runtime.conductor.blobs import Artefacts, File, plain_path
from folkmoot_runtime.conductor.rows import Inputs

MAX_FILES: Final = 2000
MAX_BYTES: Final = 10 * 1024 * 1024  # of all files together, and of one text input
MAX_MEMBERS: Final = 2 * MAX_FILES  # files and directories


async def store_inputs(order: SessionOrder, artefacts: Artefacts) -> Inputs:
    """Put an order's inputs into the artefact store; raises `Invalid` naming the input that is wrong."""
    refs: list[InputRef] = []
    workspace: str | None = None
    for name, keys in sorted(order.inputs.items()):
        for key, text in sorted(keys.items()):
            content = _decode(f"input {name}, key {key}", text)
            if not key.endswith(".tar"):
                refs.append(InputRef(name=f"{name}/{key}", digest=await artefacts.put(order.uid, content), media=_media(content)))
            elif workspace is not None:
                raise Invalid(f"input {name}, key {key}: a session has one workspace, and there is a .tar already")
            else:
                workspace, _ = await artefacts.put_workspace(order.uid, unpack(content, f"input {name}, key {key}"))
    return Inputs(refs=tuple(refs), workspace=workspace)


def unpack(data: bytes, what: str) -> dict[str, File]:
    """Files of an uncompressed tar; raises `Invalid` for anything but plain files and directories within the limits."""
    files: dict[str, File] = {}
    total = members = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                members += 1
                if members > MAX_MEMBERS:
                    raise Invalid(f"{what}: more than {MAX_MEMBERS} members")
                path = _path(member, what)
                if member.isdir():
                    continue
                total += member.size
                if total > MAX_BYTES or len(files) >= MAX_FILES:
                    raise Invalid(f"{what}: at most {MAX_FILES} files with {MAX_BYTES} bytes together are accepted")
                if path in files:
                    raise Invalid(f"{what}: {path!r} is there twice")
                files[path] = File(_content(archive, member, what), bool(member.mode & 0o111))
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError, RecursionError) as error:
        raise Invalid(f"{what}: not a readable tar ({type(error).__name__}); expected an uncompressed one") from error
    _check_tree(files, what)
    return files


def _path(member: tarfile.TarInfo, what: str) -> str:
    """The member's plain relative path; refuses its kind and its name before its content is looked at."""
    shown = member.name[:100]
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise Invalid(f"{what}: {shown!r} is a link, device or sparse file; only plain files and directories are accepted")
    path = member.name.removeprefix("./")
    if member.isdir():
        path = path.rstrip("/")
        if path in ("", "."):
            return "."
    if not plain_path(path):
        raise Invalid(f"{what}: {shown!r} is not a plain relative path without '..'")
    return path


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, what: str) -> bytes:
    file = archive.extractfile(member)
    content = file.read(MAX_BYTES + 1) if file is not None else b""
    if len(content) != member.size:
        raise Invalid(f"{what}: {member.name[:100]!r} is cut short")
    return content


def _check_tree(files: dict[str, File], what: str) -> None:
    """No path may be both a file and the directory of another."""
    for path in files:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in files:
                raise Invalid(f"{what}: {'/'.join(parts[:depth])!r} is a file and a directory at once")


def _decode(what: str, text: str) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"{what}: expected base64") from error
    if len(content) > MAX_BYTES:
        raise Invalid(f"{what}: {len(content)} bytes; at most {MAX_BYTES} are accepted")
    return content


def _media(content: bytes) -> str:
    try:
        content.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "text/plain; charset=utf-8"
