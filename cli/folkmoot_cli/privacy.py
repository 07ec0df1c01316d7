"""`folkmoot ledger erase` and `folkmoot ledger hold add|release|list`: erasure and legal holds, asked of the tenant's conductor.

Their parsers hang below `folkmoot ledger` (`ledger.py`).
"""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from pydantic import ValidationError

from folkmoot_cli import door
from folkmoot_cli.cluster import find
from folkmoot_cli.door import AUDITORS, OWNERS, Door
from folkmoot_cli.output import FORMATS, emit
from folkmoot_core import names
from folkmoot_core.errors import Invalid
from folkmoot_core.privacy import Erasure, ErasureRequest, Hold, HoldRequest

HOLD_COLUMNS = (("ID", "id"), ("SCOPE", "scope"), ("ON", "on"), ("BY", "by"), ("PLACED", "placed"), ("IN FORCE", "force"), ("REASON", "reason"))  # fmt: skip


def add_parsers(actions: Any) -> None:
    """`erase` and `hold`."""
    text = "erase the content of a subject or a session for good; entries stay, and nothing opens them any more"
    erase = action(actions, "erase", _erase, text)
    whose = erase.add_mutually_exclusive_group(required=True)
    whose.add_argument("--subject", help="spec.subject of the Sessions whose content goes")
    whose.add_argument("--session", metavar="NAME", help="one session, by name or uid")
    erase.add_argument("--basis", required=True, metavar="TEXT", help="why, on record for ever; name no person in it")
    erase.add_argument("--yes", action="store_true", help="do not ask")
    hold = actions.add_parser("hold", help="legal holds: what they are on is not erased and not pruned")
    kinds = hold.add_subparsers(dest="hold_action", required=True, metavar="ACTION")
    add = action(kinds, "add", _add, "place a legal hold")
    on = add.add_mutually_exclusive_group(required=True)
    on.add_argument("--everything", action="store_true", help="on the whole tenant")
    on.add_argument("--subject", help="on a subject")
    on.add_argument("--session", metavar="NAME", help="on one session, by name or uid")
    add.add_argument("--reason", required=True, metavar="TEXT", help="why, on record for ever; name no person in it")
    action(kinds, "release", _release, "release a legal hold").add_argument("id")
    listing = action(kinds, "list", _list, "list legal holds")
    listing.add_argument("-o", "--output", choices=FORMATS, default="table")


def action(actions: Any, name: str, act: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    """The parser of something that is asked of a conductor."""
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    parser.set_defaults(run=act)
    where = parser.add_argument_group("which cluster, which conductor")
    where.add_argument("-n", "--namespace", help="the tenant's namespace (default: that of your kubectl context)")
    where.add_argument("--tenant", help="the tenant's name instead of its namespace")
    where.add_argument("--context", help="kubectl context")
    where.add_argument("--kubeconfig", help="kubectl configuration file")
    where.add_argument("--server", help="URL of a conductor, without a cluster (folkmoot dev prints it)")
    where.add_argument("--ca", help="with --server: file with the CA's certificate")
    where.add_argument("--token-file", help="with --server: file with a token for it")
    return parser


def opened(args: argparse.Namespace, accounts: tuple[str, ...]) -> AbstractContextManager[Door]:
    """The conductor's door, with a token of one of these accounts."""
    if args.server:
        if not (args.ca and args.token_file):
            raise Invalid("--server also needs --ca and --token-file")
        return door.direct(args.server, args.ca, args.token_file)
    kubectl = find(args.context, args.kubeconfig)
    wanted = names.tenant_namespace(args.tenant) if args.tenant else args.namespace
    return door.through_kubectl(kubectl, kubectl.namespace(wanted), accounts)


def _erase(args: argparse.Namespace) -> int:
    request = _made(ErasureRequest, subject=args.subject, session=args.session, basis=args.basis, id=str(uuid.uuid4()))
    whose = f"subject {args.subject}" if args.subject else f"session {args.session}"
    if not args.yes and not _agreed(f"Erase all content of {whose}? It cannot be brought back. Type yes: "):
        sys.stderr.write("nothing was erased\n")
        return 1
    with opened(args, OWNERS) as there:
        erasure = there.erase(request)
    sys.stdout.write(_told(erasure))
    return 0 if erasure.state == "done" else 1


def _told(erasure: Erasure) -> str:
    if erasure.state != "done":
        return f"erasure {erasure.id} is under way ({erasure.state}); it goes on by itself, also over restarts\n"
    return (
        f"erased: {erasure.count} commitments of {erasure.sessions} sessions cannot be opened any more\n"
        f"  erasure {erasure.id}, subject_ref {erasure.subject_ref}, entries {erasure.intent} and {erasure.outcome}\n"
        f"  not reached from here: {', '.join(erasure.not_reached)}; see docs/privacy.md\n"
    )


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise Invalid("nobody is there to be asked; say --yes")
    return input(question).strip() == "yes"


def _add(args: argparse.Namespace) -> int:
    scope = "tenant" if args.everything else "subject" if args.subject else "session"
    request = _made(HoldRequest, scope=scope, subject=args.subject, session=args.session, reason=args.reason)
    with opened(args, AUDITORS) as there:
        hold = there.hold(request)
    sys.stdout.write(
        f"hold {hold.id} is in force (entry {hold.entry}); release it with: folkmoot ledger hold release {hold.id}\n"
    )
    return 0


def _release(args: argparse.Namespace) -> int:
    with opened(args, AUDITORS) as there:
        hold = there.release(args.id)
    sys.stdout.write(f"hold {hold.id} is released (entry {hold.released})\n")
    return 0


def _list(args: argparse.Namespace) -> int:
    with opened(args, AUDITORS) as there:
        holds = there.holds()
    whole = [hold.model_dump(mode="json") for hold in holds]
    emit([_row(hold) for hold in holds] if args.output == "table" else whole, HOLD_COLUMNS, args.output)
    return 0


def _row(hold: Hold) -> dict[str, Any]:
    force = "yes" if hold.released is None else f"until entry {hold.released}"
    return {**hold.model_dump(), "on": hold.session or hold.subject_ref or "the tenant", "force": force}


def _made(model: Any, **fields: Any) -> Any:
    """A request; raises `Invalid` naming the field before anybody is asked."""
    try:
        return model(**{key: value for key, value in fields.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"{f'--{where}: ' if where else ''}{first['msg']}") from None
