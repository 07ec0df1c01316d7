"""`folkmoot ledger proof`: receipts to hand out, one `.tlog-proof` each, verified before it is written."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from folkmoot_cli import ledger, proofs, state
from folkmoot_cli.logfiles import Found, LogFiles
from folkmoot_cli.sources import Read
from folkmoot_cli.verify import Progress, trust_of
from folkmoot_core.errors import Invalid, Missing
from folkmoot_core.ledger import policy, tiles
from folkmoot_core.ledger.audit import Trust
from folkmoot_core.ledger.note import parse_vkey
from folkmoot_core.ledger.policy import Log, Policy
from folkmoot_core.ledger.proof import SUFFIX

RESULTS = ("gate.verdict", "session.end")


def run(args: argparse.Namespace) -> int:
    """0 when all that were asked for are written."""
    if (args.index is None) == (not args.session):
        raise Invalid("say which entry, by its index, or which session with --session")
    trust = trust_of(args)
    with ledger.opened(args) as read:
        log = LogFiles(read, trust)
        rules = _policy(read, trust)
        found = [log.one(args.index)] if args.index is not None else _of_session(log, args.session)
        if args.write and len(found) > 1:
            raise Invalid(f"session {args.session} has {len(found)} such entries: leave --write away, each gets its own file")
        written = [_write(log, one, rules, Path(args.write or f"entry-{one.index}{SUFFIX}")) for one in found]
    if args.output == "json":
        sys.stdout.write(json.dumps(written, indent=2) + "\n")
    else:
        for one in written:
            sys.stdout.write(f"{one['file']}: entry {one['index']} ({one['type']}), {one['bytes']} bytes; check it with:\n")
            sys.stdout.write(f"  folkmoot verify {one['file']} --key '{rules.logs[0].key.vkey()}'\n")
    return 0


def _policy(read: Read, trust: Trust) -> Policy:
    """What the proof is held against before it is written: what the caller trusts, else what the log says of itself."""
    if trust.policy is not None or trust.vkey is not None:
        return proofs.policy_of(trust)
    own = read(tiles.POLICY)
    if own is not None:
        return policy.parse(own.decode(errors="replace"))
    return Policy((Log(parse_vkey((read(tiles.VKEY) or b"").decode(errors="replace"))),))


def _of_session(log: LogFiles, name: str) -> list[Found]:
    """Verdicts and end of the session with this uid, or of the last one that was started under this name."""
    ends: dict[str, list[int]] = {}
    uid = name
    progress = Progress("searching")
    for one in log.entries(0, log.point.size):
        progress(one.index + 1, log.point.size)
        if one.entry is None:
            continue
        if one.entry.kind == "session.start" and one.entry.facts.get("name") == name:
            uid = one.entry.session
        elif one.entry.kind in RESULTS and one.entry.session:
            ends.setdefault(one.entry.session, []).append(one.index)
    if uid not in ends:
        raise Missing(f"the log has no gate verdict and no end of a session {name}; has it ended, and is this its name or uid?")
    return [log.one(index) for index in ends[uid]]


def _write(log: LogFiles, found: Found, rules: Policy, target: Path) -> dict[str, Any]:
    made = proofs.make(found.index, found.raw, log.point, log.signed, log.node, rules)
    state.replace(target, made)
    kind = found.entry.kind if found.entry is not None else ""
    return {"file": str(target), "index": found.index, "type": kind, "size": log.point.size, "bytes": len(made)}
