"""The timestamps that a log's entries promise, checked against the files beside it (`anchor`). For `folkmoot verify`.

Obligations, numbered at the steps: 1. the archived checkpoint is there, signed by a key that the log had, about this log and this
size, and its root is that of the tree's first `size` entries; 2. the token is there, is what the entry says, and says what the entry
says; 3. it verifies over exactly the archived bytes (RFC 3161 §2.4.2, by `timestamp.verify`); 4. against certificates that are
pinned, or are a retired certificate's under the root that is pinned, or, which proves less, lie beside the log: the entry has their
digest, so that they are those of then. An entry below `size` then existed at the token's time; one behind the anchor's entry was
made later.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from folkmoot_core.errors import FolkmootError, Invalid
from folkmoot_core.ledger import anchor, checkpoint, note, timestamp
from folkmoot_core.ledger.anchor import Stamp
from folkmoot_core.ledger.audit import Read, Verified
from folkmoot_core.ledger.findings import Anchor
from folkmoot_core.ledger.note import ED25519
from folkmoot_core.ledger.timestamp import Authority

NEWEST = 1000  # timestamps that are checked; a year of one a minute has half a million, and each costs milliseconds
Pinned = Mapping[str, str]
"""PEM certificates by authority, its own first and the root last; '' for every authority that is not named."""


def check_anchors(found: Verified, read: Read, pinned: Pinned, newest: int = NEWEST) -> None:
    """Check the newest timestamps that entries promise, and those over a closed log's end, and put them into the report."""
    closing = read(anchor.CLOSING)
    if not found.anchors and closing is None:
        return
    report = found.report
    check = report.check("timestamps", "archived checkpoints are of this log, and third parties signed when they existed")
    for position, entry in found.anchors[-newest:]:
        try:
            report.anchors.append(_anchor(found, read, anchor.read(entry.facts), pinned))
        except FolkmootError as error:
            check.find(f"entry {position}: {error.message}")
    try:
        for stamp in anchor.read_closing(closing):
            report.anchors.append(_anchor(found, read, stamp, pinned))
    except FolkmootError as error:
        check.find(f"{anchor.CLOSING}: {error.message}")
    if len(found.anchors) > newest:
        report.notes.append(f"of {len(found.anchors)} timestamps the newest {newest} were checked")
    if report.anchors:
        last = max(report.anchors, key=lambda one: one.size)
        report.notes.append(f"the first {last.size} entries existed at {last.time}, as {last.authority} signed")
        if not last.pinned:
            report.notes.append("The authorities' certificates lie beside the log: compare them, or pin yours with --tsa-ca.")


def _anchor(found: Verified, read: Read, stamp: Stamp, pinned: Pinned) -> Anchor:
    if stamp.size > len(found.rows):
        raise Invalid(f"speaks of {stamp.size} entries; the log has {len(found.rows)}")
    signed = _need(read, stamp.checkpoint)
    _check_archived(found, signed, stamp)
    response = _need(read, stamp.response)
    if anchor.digest_of(response) != stamp.token:  # 2
        raise Invalid(f"{stamp.response} is not the token whose SHA-256 the entry has")
    authority, known = _authority(read, stamp, pinned)
    query = read(stamp.query)
    nonce = timestamp.read_nonce(query) if query is not None else None
    token = timestamp.verify(response, signed, authority, nonce)  # 3
    if rfc3339_of(token.gen_time) != stamp.time or token.policy != stamp.policy:  # 2
        raise Invalid(f"{stamp.response} says {rfc3339_of(token.gen_time)} under {token.policy[:80]}; the entry says otherwise")
    return Anchor(stamp.size, stamp.authority, stamp.time, known)


def _authority(read: Read, stamp: Stamp, pinned: Pinned) -> tuple[Authority, bool]:
    """4. Whose token it is, and whether that is known from elsewhere than the log."""
    given = pinned.get(stamp.authority) or pinned.get("")
    trusted = timestamp.read_authority(stamp.authority, given) if given else None
    beside = read(stamp.pem)
    if beside is None:
        if trusted is None:
            raise Invalid(f"{stamp.pem} is missing")
        return trusted, True
    if anchor.digest_of(beside) != stamp.certificates:
        raise Invalid(f"{stamp.pem} is not the file whose SHA-256 the entry has")
    kept = timestamp.read_authority(stamp.authority, beside.decode("ascii", "replace"))
    if trusted is None:
        return kept, False
    return (kept if kept.root == trusted.root else trusted), True


def _check_archived(found: Verified, signed: bytes, stamp: Stamp) -> None:
    """1. Keys of the log are those that its opening and its rotations named, or the one that signs today."""
    keys, size = found.keys, stamp.size
    known = [key for named in (keys.line if keys else []) for key in named if key.algorithm == ED25519]
    known += [keys.signer] if keys and keys.signer and keys.signer not in known else []
    point = checkpoint.parse(note.open_note(signed, known).text)
    ours = found.report.checkpoint
    if ours is None or (point.origin, point.size) != (ours.origin, size):
        raise Invalid(f"{stamp.checkpoint} is of {point.size} entries of {point.origin[:80]!r}")
    if found.rows.root(size) != point.root or point.root.hex() != stamp.root:
        raise Invalid(f"{stamp.checkpoint} has another root than the first {size} entries: the log was forked or rewritten")


def _need(read: Read, path: str) -> bytes:
    data = read(path)
    if data is None:
        raise Invalid(f"{path} is missing")
    return data


def rfc3339_of(when: datetime) -> str:
    """genTime as entries and reports have it: RFC 3339 in UTC."""
    return when.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
