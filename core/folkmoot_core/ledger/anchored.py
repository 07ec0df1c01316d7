"""The timestamps that a log's entries promise, checked: `checkpoints/<size>` and `anchors/<size>.<authority>.tsr`. For `folkmoot verify`.

Obligations, numbered at the steps: 1. the archived checkpoint is there, signed by a key that the log had, about this log and this
size, and its root is that of the tree's first `size` entries; 2. the token is there and is what the entry says; 3. it verifies over
exactly the archived bytes, against certificates that are pinned, or, which proves less, lie beside the log (RFC 3161 §2.4.2, by
`timestamp.verify`). An entry below `size` then existed at the token's time; one behind the anchor's entry was made later.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256

from folkmoot_core.errors import FolkmootError, Invalid
from folkmoot_core.ledger import checkpoint, note, timestamp
from folkmoot_core.ledger.audit import Read, Verified
from folkmoot_core.ledger.findings import Anchor
from folkmoot_core.ledger.note import ED25519
from folkmoot_core.ledger.scan import Entry, text

NEWEST = 1000  # timestamps that are checked; a year of one a minute has half a million, and each costs milliseconds
Pinned = Mapping[str, str]
"""PEM certificates by authority, its own first and the root last; '' for every authority that is not named."""


def check_anchors(found: Verified, read: Read, pinned: Pinned, newest: int = NEWEST) -> None:
    """Check the newest timestamps that entries promise, and put them into the report."""
    if not found.anchors:
        return
    report = found.report
    check = report.check("timestamps", "archived checkpoints are of this log, and third parties signed when they existed")
    for position, entry in found.anchors[-newest:]:
        try:
            report.anchors.append(_anchor(found, read, entry, pinned))
        except FolkmootError as error:
            check.find(f"entry {position}: {error.message}")
    if len(found.anchors) > newest:
        report.notes.append(f"of {len(found.anchors)} timestamps the newest {newest} were checked")
    if report.anchors:
        last = max(report.anchors, key=lambda one: one.size)
        report.notes.append(f"the first {last.size} entries existed at {last.time}, as {last.authority} signed")
        if not last.pinned:
            report.notes.append("The authorities' certificates lie beside the log: compare them, or pin yours with --tsa-ca.")


def _anchor(found: Verified, read: Read, entry: Entry, pinned: Pinned) -> Anchor:
    size, authority = entry.facts.get("size"), text(entry.facts.get("authority"))
    if not isinstance(size, int) or not 0 < size <= len(found.rows) or not timestamp.NAME.fullmatch(authority):
        raise Invalid("says neither a size of this log nor an authority's name")
    signed = _need(read, f"checkpoints/{size}")
    _check_archived(found, signed, size)
    response = _need(read, f"anchors/{size}.{authority}.tsr")
    stated = text(entry.facts.get("token")).removeprefix("sha256:")
    if stated and stated != sha256(response).hexdigest():  # 2
        raise Invalid(f"anchors/{size}.{authority}.tsr is not the token whose SHA-256 the entry has")
    pem = pinned.get(authority) or pinned.get("")
    certificates = pem or _need(read, f"anchors/{authority}.pem").decode("ascii", "replace")
    query = read(f"anchors/{size}.{authority}.tsq")
    nonce = timestamp.read_nonce(query) if query is not None else None
    token = timestamp.verify(response, signed, timestamp.read_authority(authority, certificates), nonce)  # 3
    return Anchor(size, authority, _stamp(token.gen_time), bool(pem))


def _check_archived(found: Verified, signed: bytes, size: int) -> None:
    """1. Keys of the log are those that its opening and its rotations named, or the one that signs today."""
    keys = found.keys
    known = [key for named in (keys.line if keys else []) for key in named if key.algorithm == ED25519]
    known += [keys.signer] if keys and keys.signer and keys.signer not in known else []
    point = checkpoint.parse(note.open_note(signed, known).text)
    ours = found.report.checkpoint
    if ours is None or (point.origin, point.size) != (ours.origin, size):
        raise Invalid(f"checkpoints/{size} is of {point.size} entries of {point.origin[:80]!r}")
    if found.rows.root(size) != point.root:
        raise Invalid(f"checkpoints/{size} has another root than the first {size} entries: the log was forked or rewritten")


def _need(read: Read, path: str) -> bytes:
    data = read(path)
    if data is None:
        raise Invalid(f"{path} is missing")
    return data


def _stamp(when: datetime) -> str:
    return when.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
