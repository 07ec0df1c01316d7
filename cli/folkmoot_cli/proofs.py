"""`folkmoot verify x.tlog-proof`: a receipt, checked without the log. Also makes receipts, for `folkmoot ledger proof`.

The proof carries the entry itself as its extra data, which the format does not authenticate: its leaf hash is what is proved.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from folkmoot_cli.sources import read_file
from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import note, proof, scan
from folkmoot_core.ledger.audit import Trust
from folkmoot_core.ledger.checkpoint import Checkpoint
from folkmoot_core.ledger.note import parse_vkey
from folkmoot_core.ledger.policy import Log, Policy
from folkmoot_core.ledger.proof import TlogProof
from folkmoot_core.ledger.scan import Entry
from folkmoot_core.ledger.tree import Nodes, inclusion_proof, leaf_hash


def is_proof(source: str) -> bool:
    """Whether the source is a proof and not a log."""
    path = Path(source)
    if not path.is_file():
        return source.endswith(proof.SUFFIX)
    with path.open("rb") as file:
        return file.read(len(proof.HEADER)) == proof.HEADER.encode()


def make(index: int, entry: bytes, point: Checkpoint, signed: bytes, nodes: Nodes, policy: Policy) -> bytes:  # noqa: PLR0913 - a proof's parts
    """A proof of this entry in this checkpoint, verified before it is given away; raises `Invalid`."""
    made = TlogProof(index, tuple(inclusion_proof(index, point.size, nodes)), signed, entry).encode()
    proof.verify(proof.parse(made), leaf_hash(entry), policy)
    return made


def policy_of(trust: Trust) -> Policy:
    """What the reader trusts, as a policy; raises `Invalid` when that is nothing."""
    if trust.policy is not None:
        return trust.policy
    if trust.vkey is None:
        raise Invalid("a proof is checked against what you trust: give --policy, or the log's --key")
    return Policy((Log(parse_vkey(trust.vkey)),))


def run(args: argparse.Namespace, trust: Trust) -> int:
    """0 when the proof holds, 1 when it does not."""
    rules = policy_of(trust)
    raw = read_file(Path(args.source))
    given = read_file(Path(args.entry)) if args.entry else None
    try:
        parsed = proof.parse(raw)
        bytes_ = given if given is not None else parsed.extra
        if not bytes_:
            raise Invalid("the proof does not carry its entry: give the entry's bytes with --entry")
        point = proof.verify(parsed, leaf_hash(bytes_), rules)
        if trust.origin is not None and point.origin != trust.origin:
            raise Invalid(f"the checkpoint is of log {point.origin[:80]!r}; expected {trust.origin!r}")
        entry = _entry(bytes_, parsed.index, point)
    except Invalid as error:
        _emit(
            args,
            {"ok": False, "source": args.source, "message": error.message},
            f"NOT VERIFIED  {args.source}\n  {error.message}\n",
        )
        return 1
    found = _facts(parsed, point, entry, bytes_)
    _emit(args, found, _page(args.source, found, rules))
    return 0


def _entry(raw: bytes, index: int, point: Checkpoint) -> Entry | None:
    """The entry as ours, where it is one: then it must say of itself what the proof says. Foreign leaves are only proved."""
    try:
        entry, canonical = scan.read_entry(raw)
    except Invalid:
        return None
    if not canonical or entry.seq != index or entry.origin != point.origin:
        raise Invalid(
            f"the entry says that it is entry {entry.seq} of {entry.origin[:80]!r}, not entry {index} of {point.origin!r}"
        )
    return entry


def _facts(parsed: TlogProof, point: Checkpoint, entry: Entry | None, raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ok": True, "origin": point.origin, "index": parsed.index, "size": point.size, "root": point.root.hex(),
        "leaf": leaf_hash(raw).hex(), "lines": [line.name for line in note.split(parsed.checkpoint)[1]],
    }  # fmt: skip
    if entry is not None:
        found |= {
            "type": entry.kind, "session": entry.session, "recorded": entry.ce.recordedtime, "producer": entry.obs.id,
            "data": entry.facts,
        }  # fmt: skip
    return found


def _page(source: str, found: dict[str, Any], rules: Policy) -> str:
    lines = [
        f"VERIFIED  {source}",
        f"  entry {found['index']} of {found['origin']}, in a checkpoint over {found['size']} entries",
    ]
    if "type" in found:
        lines += [
            f"  {found['type']}, recorded {found['recorded']} as handed in by {found['producer']}"
            + (f", session {found['session']}" if found["session"] else "")
        ]
        lines += [f"    {key}: {json.dumps(value)}" for key, value in found["data"].items()]
    lines += [f"  quorum of witnesses: {rules.quorum}" + (" (asked for none)" if rules.quorum == "none" else ", met")]
    return "\n".join(lines) + "\n"


def _emit(args: argparse.Namespace, found: dict[str, Any], page: str) -> None:
    sys.stdout.write(json.dumps(found, indent=2) + "\n" if args.output == "json" else page)
