"""`folkmoot ledger …`: the parsers of all its actions, and where each reads the log from.

`--source` names a directory, a tar or a URL and needs no cluster. Without it the tenant's ledger is reached as the conductor is
(docs/decisions/0003-cli-goes-through-kubectl.md): by kubectl's port-forward, TLS against the installation's CA, with a token for the
ledger alone. Those reads are on record in the log that is read.
"""

from __future__ import annotations

import argparse
import importlib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from folkmoot_cli import ledger_control, privacy, urls, verify
from folkmoot_cli.cluster import Kubectl, find
from folkmoot_cli.sources import Read, open_source
from folkmoot_core import names
from folkmoot_core.errors import Invalid, Unavailable

READERS = (names.SA_AUDITOR, names.SA_OWNER, names.SA_VIEWER)
Action = Callable[[argparse.Namespace], int]


def add_parser(subparsers: Any, summary: str) -> None:
    """`ledger` and its actions."""
    parser = subparsers.add_parser("ledger", help=summary, description=summary)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _reading(actions)
    _proof(actions)
    _export(actions)
    _coverage(actions)
    ledger_control.add_parsers(actions)
    privacy.add_parsers(actions)


def _reading(actions: Any) -> None:
    tail = _action(actions, "tail", "ledger_read:tail", "show the last entries, and with --follow those that come")
    tail.add_argument("-c", "--count", type=_positive, default=10, help="how many (default 10)")
    _following(tail)
    show = _action(actions, "show", "ledger_read:show", "show one entry, proved to be in the signed tree")
    show.add_argument("index", type=_position)
    search = _action(actions, "search", "ledger_read:search", "find entries by type, session, actor, time and words in their ids")
    search.add_argument("text", nargs="?", default="", help="found in an entry's ids, session, actor or producer")
    search.add_argument(
        "--type", action="append", default=[], metavar="KIND", help="such as gate.verdict, or gate for all of gate.*"
    )
    search.add_argument("--session", default="", metavar="UID", help="the session's uid")
    search.add_argument("--actor", default="", help="on whose behalf: an agent's or account's name")
    search.add_argument("--since", default="", metavar="TIME", help="recorded at or after: 2026-11-27 or 2026-11-27T10:00:00Z")
    search.add_argument("--until", default="", metavar="TIME", help="recorded before")
    search.add_argument("--first", type=_position, default=0, metavar="INDEX", help="from this entry on")
    search.add_argument("--limit", type=_positive, default=1000, help="stop after so many (default 1000)")


def _proof(actions: Any) -> None:
    proof = _action(
        actions, "proof", "ledger_proof:run", "write a .tlog-proof: one entry's receipt, which anybody can check without the log"
    )
    proof.add_argument("index", type=_position, nargs="?")
    proof.add_argument("--session", metavar="NAME", help="of a session, by name or uid: its gate verdicts and its end")
    proof.add_argument("-w", "--write", metavar="FILE", help="where to write it (default: entry-<index>.tlog-proof)")


def _export(actions: Any) -> None:
    export = _action(
        actions,
        "export",
        "ledger_export:run",
        "write everything an auditor needs as one directory, or the entries as OCSF events",
    )
    export.add_argument(
        "target", nargs="?", default="", help="directory to make; with --format ocsf a file ('-': standard output)"
    )
    export.add_argument("--format", choices=("directory", "ocsf"), default="directory")
    export.add_argument(
        "--otlp", metavar="URL", help="with --format ocsf: send the events to this OTLP/HTTP endpoint (…/v1/logs)"
    )
    export.add_argument(
        "--otlp-header", action="append", default=[], metavar="NAME=FILE", help="header of these requests, its value in a file"
    )
    export.add_argument("--first", type=_position, default=0, metavar="INDEX", help="with --format ocsf: from this entry on")
    _following(export)


def _coverage(actions: Any) -> None:
    coverage = _action(
        actions, "coverage", "ledger_coverage:run", "hold the log against the law map: clause, evidence found, gap"
    )
    coverage.add_argument("--retention-days", type=_positive, help="how long the tenant's log is kept, by its manifest")
    coverage.add_argument(
        "--silence", type=_positive, default=15, metavar="MINUTES", help="silence longer than this is a gap (default 15)"
    )
    coverage.add_argument(
        "--annex-iii-1a", action="store_true", help="the system is remote biometric identification: 12(3) applies"
    )
    coverage.add_argument("--map", action="store_true", help="print the law map itself, without a log")
    coverage.add_argument("--clause", action="append", default=[], help="only this one, such as '12(1)'")


def _following(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the log grows")
    parser.add_argument("--timeout", type=float, default=0.0, help="stop following after so many seconds (default: never)")


def _action(actions: Any, name: str, where: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    parser.set_defaults(run=_late(where))
    parser.add_argument("-o", "--output", choices=verify.FORMATS, default="table")
    place = parser.add_argument_group("which log")
    place.add_argument("--source", help="directory, tar or https:// prefix of a log, without a cluster")
    place.add_argument("-n", "--namespace", help="the tenant's namespace (default: that of your kubectl context)")
    place.add_argument("--tenant", help="the tenant's name instead of its namespace")
    place.add_argument("--context", help="kubectl context")
    place.add_argument("--kubeconfig", help="kubectl configuration file")
    verify.add_trust(parser)
    return parser


def _late(where: str) -> Action:
    """An action's module is imported when it is asked for."""
    module, name = where.split(":")

    def act(args: argparse.Namespace) -> int:
        found: Action = getattr(importlib.import_module(f"folkmoot_cli.{module}"), name)
        return found(args)

    return act


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[Read]:
    """A reader of the log's files, wherever it is."""
    if args.source:
        with open_source(args.source, args.token_file, args.ca_file) as read:
            yield read
        return
    kubectl, namespace = place_of(args)
    with _through_kubectl(kubectl, namespace) as read:
        yield read


def place_of(args: argparse.Namespace) -> tuple[Kubectl, str]:
    """The cluster and the tenant's namespace."""
    kubectl = find(args.context, args.kubeconfig)
    return kubectl, kubectl.namespace(names.tenant_namespace(args.tenant) if args.tenant else args.namespace)


@contextmanager
def _through_kubectl(kubectl: Kubectl, namespace: str) -> Iterator[Read]:
    bundle = kubectl.get("configmap", names.TRUST_CONFIGMAP, namespace).get("data", {}).get("ca.crt", "")
    if not bundle:
        raise Unavailable(f"ConfigMap {names.TRUST_CONFIGMAP} in {namespace} holds no ca.crt yet; is the Tenant Ready?")
    token = kubectl.token(namespace, READERS, names.AUDIENCE_LEDGER)
    try:
        context = ssl.create_default_context(cadata=bundle)
    except ssl.SSLError as error:
        raise Invalid("the CA bundle is not PEM certificates") from error
    server_name = {"sni_hostname": f"{names.CORE}.{namespace}.svc"}
    with kubectl.forward(namespace, f"{names.CORE}-0", names.PORT_LEDGER) as port, httpx2.Client(
        base_url=f"https://127.0.0.1:{port}/", headers={"Authorization": f"Bearer {token}"}, verify=context,
        timeout=urls.TIMEOUT, trust_env=False,
    ) as client:  # fmt: skip
        yield lambda path: urls.get(client, path, server_name)


def _positive(text: str) -> int:
    return _number(text, 1)


def _position(text: str) -> int:
    return _number(text, 0)


def _number(text: str, least: int) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18 or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, found {text[:30]!r}")
    return int(text)
