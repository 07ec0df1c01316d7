"""A log as a static directory: which files, in what order, and the same as a tar stream.

Needs only a reader of paths, so the conductor (over the Unix socket), the CLI (over a URL) and tests share it. The result
is what `fsck --storage_url=file:///dir/` reads. The checkpoint is read first, because it says how much there is to copy,
and written last, because it promises what came before it.
"""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable

from folkmoot_core.errors import Unavailable
from folkmoot_core.ledger import checkpoint, tiles

Reader = Callable[[str], Awaitable[bytes | None]]
BLOCK = 512
_BUNDLES = "tile/entries/"
TAR_END = b"\0" * (2 * BLOCK)

README = """The audit log of one Folkmoot tenant, as C2SP tlog-tiles. Nothing here needs our software to be verified.

  checkpoint     origin, size and root hash of the log, signed (C2SP tlog-checkpoint)
  log.vkey       the log's public key (Ed25519); compare it with one you got another way, or all this proves is wholeness
  log.mldsa.vkey its second key (ML-DSA-44), for readers who want a signature that outlives quantum computers
  policy         whose signatures and cosignatures a checkpoint must carry (C2SP tlog-policy)
  tile/          Merkle tree tiles and entry bundles (C2SP tlog-tiles); each entry is one line of canonical JSON
  artifacts/     where the export carries content: files by SHA-256, and openings.jsonl for the salted commitments

The whole log, with a tool that is not ours:

  go run github.com/transparency-dev/tessera/cmd/fsck@v1.0.4 --storage_url=file://$PWD/ --public_key=log.vkey --ui=false

The same, and hash links, sequence, identity and openings, with ours (KEY: the vkey you were given):

  folkmoot verify . --key KEY

An entry by hand: a bundle under tile/entries/ is, for each of up to 256 entries, two bytes of length (big endian) and that
many bytes. The SHA-256 of a zero byte and an entry is its leaf hash: 32 bytes of the tile under tile/0/ with the same
number, and the "prev" of the entry after it.
"""


async def members(read: Reader) -> AsyncIterator[tuple[str, bytes]]:
    """Every file of the log with its content. Raises `Unavailable` when one that the checkpoint promises
    is missing; bundles at the beginning may be, where reading has ended (`retention.pruned` says so in the log)."""
    signed = await _need(read, tiles.CHECKPOINT)
    size = checkpoint.parse(signed.decode(errors="replace").partition("\n\n")[0] + "\n").size
    yield tiles.README, README.encode()
    for path in (tiles.MLDSA_VKEY, tiles.POLICY):
        if (data := await read(path)) is not None:
            yield path, data
    pruned = True  # so far: reading may have ended for the oldest bundles, and for none behind one that is there
    for path in tiles.paths_of(size):
        if pruned and path.startswith(_BUNDLES):
            data = await read(path)
            if data is None and "." not in path:
                continue
            pruned = False
        yield path, signed if path == tiles.CHECKPOINT else await _need(read, path)


async def tar(files: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[bytes]:
    """The files as a tar stream without its end, so that more may follow; close it with `TAR_END`."""
    async for path, data in files:
        yield tar_member(path, data)


def tar_member(path: str, data: bytes) -> bytes:
    """One file of a tar stream; the same bytes for the same content, whenever it is made."""
    info = tarfile.TarInfo(path)
    info.size = len(data)
    info.mode = 0o644
    return info.tobuf(tarfile.PAX_FORMAT) + data + b"\0" * (-len(data) % BLOCK)


async def _need(read: Reader, path: str) -> bytes:
    data = await read(path)
    if data is None:
        raise Unavailable(f"the log's checkpoint promises {path}, which its reader does not have")
    return data
