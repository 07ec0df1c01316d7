"""A log copied out: as a tar stream for the conductor's evidence, as a directory for tools. The pure part is in the core.

The result verifies with `fsck --storage_url=file:///dir/`. Reading goes through paths alone, so it works over the Unix
socket (`LedgerClient.read`) and on the log itself (`Log.read`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from folkmoot_core.ledger import export
from folkmoot_core.ledger.export import TAR_END, Reader, tar_member

__all__ = ["TAR_END", "Reader", "export_tar", "tar_member", "write_directory"]


async def export_tar(read: Reader) -> AsyncIterator[bytes]:
    """The log as tar members, checkpoint last among them. Follow with more `tar_member`s, then `TAR_END`."""
    async for chunk in export.tar(export.members(read)):
        yield chunk


async def write_directory(read: Reader, directory: Path) -> None:
    """The log as a static directory; existing files of the same names are replaced."""
    async for path, data in export.members(read):
        await asyncio.to_thread(_write, directory / path, data)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
