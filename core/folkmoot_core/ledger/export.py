"""A log as a static directory: which files, in what order, and the same as a tar stream.

Needs only a reader of paths, so the conductor (over the Unix socket), the CLI (over a URL) and tests share it. The result
is what `fsck --storage_url=file:///dir/` reads. The checkpoint is read first, because it says how much there is to copy,
and written last, because it promises what came before it.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from folkmoot_core.errors import Invalid, Unavailable
from folkmoot_core.ledger import anchor, bundle, checkpoint, tiles
from folkmoot_core.ledger.anchor import Stamp

Reader = Callable[[str], Awaitable[bytes | None]]
BLOCK = 512
TAR_END = b"\0" * (2 * BLOCK)
_BUNDLES = "tile/entries/"

BESIDE = (tiles.MLDSA_VKEY, tiles.POLICY)
"""Files beside the tree that a log may have."""

README = """The audit log of one Folkmoot tenant, as C2SP tlog-tiles. Nothing here needs our software to be verified.

  checkpoint       origin, size and root hash of the log, signed and perhaps cosigned (C2SP tlog-checkpoint)
  log.vkey         the log's public key (Ed25519); compare it with one you got another way, or all this proves is wholeness
  log.mldsa.vkey   its second key (ML-DSA-44)
  policy           the log's keys and its witnesses (C2SP tlog-policy), as the log itself names them
  tile/            Merkle tree tiles and entry bundles (C2SP tlog-tiles); each entry is one line of canonical JSON
  checkpoints/     signed checkpoints that were timestamped, by size
  anchors/         RFC 3161 responses (.tsr) over these, the queries (.tsq), the authorities' certificates (.pem), named after the
                   beginning of their SHA-256, and those over a closed log's end, which no entry can name (closing.json)
  artifacts/       content by SHA-256; openings.jsonl: salts that open the commitments; erased.jsonl: what was erased
  SHA256SUMS       of every file but itself

Three commands, none of them ours.

1. The whole log: every tile and the root are derived from the entries again.

  go run github.com/transparency-dev/tessera/cmd/fsck@v1.0.4 --storage_url="file://$PWD/" --public_key=log.vkey --ui=false

   It ends with exit code 0 when all fits. What does not, it lists as Invalid every few seconds, and then it may not end by itself.

2. When it was: %s

3. That nothing was lost on the way to you:

  sha256sum -c SHA256SUMS

With ours: all of this, and links, sequence, keys, witnesses, openings and erasures (KEY: the vkey you were given):

  folkmoot verify . --key KEY

An entry by hand: a bundle under tile/entries/ is, for each of up to 256 entries, two bytes of length (big endian) and that
many bytes. The SHA-256 of a zero byte and an entry is its leaf hash: 32 bytes of the tile under tile/0/ with the same
number, and the "prev" of the entry after it.
"""
_NO_TIMES = """this log has no timestamps by a third party; its times are the cluster's own."""
_TIMES = """each line checks one timestamp over an archived checkpoint, as of the time that it names: an
authority's certificate may have expired since, and what it signed before stays good. An authority's .pem begins with its own
certificate and ends with its root: compare them with ones you got from the authority.

%s"""
_ANCHOR = b'"dev.folkmoot.audit.anchor.v1"'
MAX_COMMANDS = 10


def readme(stamps: Iterable[Stamp] = ()) -> str:
    """The page of an export with the files of these timestamps."""
    newest = sorted(stamps, key=lambda stamp: (stamp.size, stamp.authority))[-MAX_COMMANDS:]
    return README % (_TIMES % "\n".join(_command(stamp) for stamp in newest) if newest else _NO_TIMES)


def _command(stamp: Stamp) -> str:
    """Times are whole seconds for OpenSSL; one that begins in the middle of a second is as good as that second."""
    certificates = f"-CAfile {stamp.pem} -untrusted {stamp.pem} -attime {int(stamp.seconds)}"
    return f"  openssl ts -verify -data {stamp.checkpoint} -in {stamp.response} {certificates}"


def stamps_of(anchors: Iterable[Mapping[str, Any]], closing: bytes | None) -> list[Stamp]:
    """The timestamps that entries (their `data`) and the file `anchor.CLOSING` promise. What is none promises nothing: it is
    refused where the log is verified."""
    found: list[Stamp] = []
    for data in anchors:
        with suppress(Invalid):
            found.append(anchor.read(data))
    with suppress(Invalid):
        found += anchor.read_closing(closing)
    return found


async def members(read: Reader) -> AsyncIterator[tuple[str, bytes]]:
    """Every file of the log with its content. Raises `Unavailable` when one that the checkpoint promises is missing. Full bundles at
    the beginning may be, where reading has ended: `retention.pruned` says so in the log, and their leaf hashes are there."""
    signed = await _need(read, tiles.CHECKPOINT)
    size = checkpoint.parse(signed.decode(errors="replace").partition("\n\n")[0] + "\n").size
    anchors: list[Mapping[str, Any]] = []
    pruned = True  # so far: reading may have ended for the oldest bundles, and for none behind one that is there
    for path in tiles.paths_of(size):
        if path == tiles.CHECKPOINT:
            continue
        data = await read(path)
        is_bundle = path.startswith(_BUNDLES)
        if data is not None:
            pruned = pruned and not is_bundle
            if is_bundle and _ANCHOR in data:
                anchors += _anchors(data)
            yield path, data
        elif not (pruned and is_bundle and "." not in path):
            raise Unavailable(f"the log's checkpoint promises {path}, which its reader does not have")
    closing = await read(anchor.CLOSING)
    promised, there = stamps_of(anchors, closing), set[str]()
    for path in (*BESIDE, anchor.CLOSING, *sorted({path for stamp in promised for path in stamp.paths()})):
        if (data := closing if path == anchor.CLOSING else await read(path)) is not None:
            there.add(path)
            yield path, data
    yield tiles.README, readme(stamp for stamp in promised if there.issuperset(stamp.paths())).encode()
    yield tiles.CHECKPOINT, signed


def _anchors(data: bytes) -> list[Mapping[str, Any]]:
    try:
        entries = bundle.decode(data)
    except Invalid:
        return []  # it is refused where it is verified
    found: list[Mapping[str, Any]] = []
    for raw in entries:
        if _ANCHOR in raw:
            try:
                facts = json.loads(raw)["data"]
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            if isinstance(facts, dict):
                found.append(facts)
    return found


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
