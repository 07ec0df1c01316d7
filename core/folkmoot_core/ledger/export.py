"""A log as a static directory: which files, in what order, and the same as a tar stream.

Needs only a reader of paths, so the conductor (over the Unix socket), the CLI (over a URL) and tests share it. The result
is what `fsck --storage_url=file:///dir/` reads. The checkpoint is read first, because it says how much there is to copy,
and written last, because it promises what came before it.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

from folkmoot_core.errors import Invalid, Unavailable
from folkmoot_core.ledger import bundle, checkpoint, tiles

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
  anchors/         RFC 3161 responses (.tsr) over these, the queries (.tsq), and the authorities' certificates (.pem)
  artifacts/       content by SHA-256; openings.jsonl: salts that open the commitments; erased.jsonl: what was erased
  SHA256SUMS       of every file but itself

Three commands, none of them ours.

1. The whole log: every tile and the root are derived from the entries again.

  go run github.com/transparency-dev/tessera/cmd/fsck@v1.0.4 --storage_url=file://$PWD/ --public_key=log.vkey --ui=false

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
_TIMES = """each line checks one timestamp over an archived checkpoint. An authority's .pem begins with its own
certificate and ends with its root: compare them with ones you got from the authority.

%s"""
_AUTHORITY = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_ANCHOR = b'"dev.folkmoot.audit.anchor.v1"'
MAX_COMMANDS = 10


def readme(anchored: Collection[str] = ()) -> str:
    """The page of an export with these anchor files."""
    responses = sorted(
        (path for path in anchored if path.endswith(".tsr")), key=lambda path: int(path.split("/")[1].split(".")[0])
    )
    commands = []
    for path in responses[-MAX_COMMANDS:]:
        size, authority, _ = path.removeprefix("anchors/").split(".")
        pem = f"anchors/{authority}.pem"
        commands.append(f"  openssl ts -verify -data checkpoints/{size} -in {path} -CAfile {pem} -untrusted {pem}\n")
    return README % (_TIMES % "".join(commands).rstrip("\n") if commands else _NO_TIMES)


def anchor_files(anchors: Iterable[Mapping[str, Any]]) -> set[str]:
    """The files that entries about timestamps (their `data`) promise. Names are made from checked parts alone."""
    found: set[str] = set()
    for data in anchors:
        size, authority = data.get("size"), data.get("authority")
        if isinstance(size, int) and size >= 0 and isinstance(authority, str) and _AUTHORITY.fullmatch(authority):
            stem = f"anchors/{size}.{authority}"
            found |= {f"checkpoints/{size}", f"{stem}.tsr", f"{stem}.tsq", f"anchors/{authority}.pem"}
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
    anchored = sorted(anchor_files(anchors))
    for path in (*BESIDE, *anchored):
        if (data := await read(path)) is not None:
            yield path, data
    yield tiles.README, readme(anchored).encode()
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
