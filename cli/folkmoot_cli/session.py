"""`folkmoot session run|list|show|watch|evidence`: sessions of a cluster through kubectl, or of one conductor by its URL.

The cluster's objects are the truth of what was asked (list, show, run); the conductor tells what happens (watch, evidence).
With `--server` there are no objects, and the conductor is asked for everything.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from folkmoot_cli import door, orders, shown
from folkmoot_cli.cluster import Kubectl, find
from folkmoot_cli.door import AUDITORS, READERS, Door
from folkmoot_cli.following import Follower
from folkmoot_cli.output import FORMATS, emit
from folkmoot_core import names
from folkmoot_core.document import SessionReport
from folkmoot_core.errors import Invalid, Missing
from folkmoot_core.plan import session as plan
from folkmoot_core.plan import views
from folkmoot_core.plan.types import Problems

KIND = "sessions.folkmoot.dev"


def add_parser(subparsers: Any, summary: str) -> None:
    """`session` and its actions."""
    parser = subparsers.add_parser("session", help=summary, description=summary)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    run = _action(actions, "run", _run, "start a session and follow it")
    what = run.add_mutually_exclusive_group(required=True)
    what.add_argument("-f", "--filename", help="Sessions, and ConfigMaps they take, as YAML ('-': standard input)")
    what.add_argument("--target", help="Council/<name> or Agent/<name>")
    run.add_argument("--task", default="", help="what is asked (with --target)")
    run.add_argument("--name", help="name of the session (default: made up from the target)")
    run.add_argument("--input", action="append", default=[], metavar="NAME=PATH", help="file or directory the session works on")
    run.add_argument("--no-wait", dest="wait", action="store_false", help="do not follow it")
    run.add_argument("--wait", dest="wait", action="store_true", default=True, help="follow it to its end (the default)")

    listing = _action(actions, "list", _list, "list sessions")
    listing.add_argument("-A", "--all-namespaces", action="store_true", help="of every tenant")
    for name, act, text in (("show", _show, "show one session"), ("watch", _watch, "follow a session's events to its end")):
        _action(actions, name, act, text).add_argument("name")
    evidence = _action(actions, "evidence", _evidence, "fetch the tenant's log and artefacts as a tar")
    evidence.add_argument("name", nargs="?", help="a session of the tenant (or say -n or --tenant)")
    evidence.add_argument("--tenant", help="the tenant's name instead of its namespace")
    evidence.add_argument(
        "-o", "--output-file", dest="file", default="evidence.tar", help="where to write it (default: evidence.tar)"
    )


def _action(actions: Any, name: str, act: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    parser.set_defaults(run=act)
    where = parser.add_argument_group("which cluster, which conductor")
    where.add_argument("-n", "--namespace", help="the tenant's namespace (default: that of your kubectl context)")
    where.add_argument("--context", help="kubectl context")
    where.add_argument("--kubeconfig", help="kubectl configuration file")
    where.add_argument("--server", help="URL of a conductor, without a cluster (folkmoot dev prints it)")
    where.add_argument("--ca", help="with --server: file with the CA's certificate")
    where.add_argument("--token-file", help="with --server: file with a token for it")
    if name != "evidence":
        parser.add_argument("-o", "--output", choices=FORMATS, default="table")
    if name in ("run", "watch"):
        parser.add_argument("--timeout", type=float, default=3600.0, help="seconds to follow at most (default 3600)")
    return parser


class _Way:
    """Where the arguments lead: a cluster's namespace, or one conductor."""

    def __init__(self, args: argparse.Namespace, namespace: str | None = None) -> None:
        self.args = args
        self.direct = bool(args.server)
        if self.direct and not (args.ca and args.token_file):
            raise Invalid("--server also needs --ca and --token-file")
        self._kubectl = None if self.direct else find(args.context, args.kubeconfig)
        self._namespace = namespace or args.namespace

    @property
    def kubectl(self) -> Kubectl:
        if self._kubectl is None:
            raise Invalid("with --server there is no cluster to ask")
        return self._kubectl

    @property
    def namespace(self) -> str:
        self._namespace = self.kubectl.namespace(self._namespace)
        return self._namespace

    def door(self, accounts: tuple[str, ...] = READERS) -> AbstractContextManager[Door]:
        if self.direct:
            return door.direct(self.args.server, self.args.ca, self.args.token_file)
        return door.through_kubectl(self.kubectl, self.namespace, accounts)

    def waiting(self, name: str) -> str:
        """What a session that the conductor does not know yet waits for, by its object's conditions."""
        if self.direct:
            raise Missing(f"the conductor at {self.args.server} knows no session {name}; see: folkmoot session list --server …")
        return shown.waits_for(self.kubectl.get(KIND, name, self.namespace))

    def follow(self, name: str) -> int:
        follower = Follower(self.door, self.waiting, form=self.args.output, limit=self.args.timeout)
        story = follower.follow(name)
        if self.args.output == "table":
            _result(story.phase, self.door, name)
        return 0 if story.phase == "Succeeded" else 1


def _run(args: argparse.Namespace) -> int:
    way = _Way(args)
    manifests = _manifests(args)
    started = [_order(way, manifests, m) for m in manifests if m["kind"] == "Session"] if way.direct else _apply(way, manifests)
    if not args.wait:
        for name in started:
            sys.stdout.write(f"session {name} started; follow it with: folkmoot session watch {name}\n")
        return 0
    return max(way.follow(name) for name in started)


def _manifests(args: argparse.Namespace) -> list[orders.Manifest]:
    if args.filename:
        if args.task or args.input or args.name:
            raise Invalid("--task, --input and --name go with --target; a file says these itself")
        return orders.read(args.filename)
    inputs = orders.parse_inputs(args.input)
    name = args.name or orders.fresh_name(args.target)
    made = orders.session(name, args.target, args.task, list(inputs))
    return [*(orders.config_map(orders.config_map_name(name, key), path) for key, path in inputs.items()), made]


def _apply(way: _Way, manifests: list[orders.Manifest]) -> list[str]:
    """ConfigMaps first, so that the session finds them. What was made here for one session goes with it."""
    default = None if all(m["metadata"].get("namespace") for m in manifests) else way.namespace
    for manifest in manifests:
        manifest["metadata"].setdefault("namespace", default)
        if way.args.namespace and manifest["metadata"]["namespace"] != way.args.namespace:
            raise Invalid(f"{manifest['kind']} {manifest['metadata'].get('name')}: its namespace is not {way.args.namespace}")
    way._namespace = next(m["metadata"]["namespace"] for m in manifests if m["kind"] == "Session")
    made_here = not way.args.filename
    config_maps = [m for m in manifests if m["kind"] == "ConfigMap"]
    for manifest in config_maps:
        way.kubectl.apply(manifest)
    started = [way.kubectl.apply(m, create=made_here) for m in manifests if m["kind"] == "Session"]
    if made_here:
        meta = started[0]["metadata"]
        owner = {"apiVersion": names.API_VERSION, "kind": "Session", "name": meta["name"], "uid": meta["uid"]}
        for manifest in config_maps:
            way.kubectl.apply({**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner]}})
    return [s["metadata"]["name"] for s in started]


def _order(way: _Way, manifests: list[orders.Manifest], manifest: orders.Manifest) -> str:
    """Hand a session to a conductor directly. The conductor itself refuses a target that it does not know."""
    raw = {**manifest, "metadata": {"uid": str(uuid.uuid4()), "generation": 1, **manifest["metadata"]}}
    view = views.parse_session(raw)
    if isinstance(view, Problems):
        raise Invalid(f"Session {view.name}: " + "; ".join(map(str, view.items)))
    config_maps = {m["metadata"]["name"]: m for m in manifests if m["kind"] == "ConfigMap"}
    target = [view.spec.target.name]
    order = plan.order(view, config_maps, target, target)
    if isinstance(order, Problems):
        raise Invalid(f"Session {view.name}: " + "; ".join(map(str, order.items)))
    with way.door() as opened:
        opened.order(order)
    return view.name


def _result(phase: str, open_door: Callable[[], AbstractContextManager[Door]], name: str) -> None:
    with open_door() as opened:
        report = opened.session(name)
    sys.stdout.write(shown.report(report))
    if phase != "Succeeded":
        sys.stderr.write(f"session {name} ended {phase}: {report.reason}: {report.message}\n")


def _list(args: argparse.Namespace) -> int:
    way, now = _Way(args), datetime.now(UTC)
    if way.direct:
        with way.door() as opened:
            reports = opened.sessions()
        _emit(args, [r.model_dump(mode="json") for r in reports], [shown.report_row(r, now) for r in reports], shown.COLUMNS)
        return 0
    where = ["-A"] if args.all_namespaces else ["-n", way.namespace]
    found = way.kubectl.json("get", KIND, *where).get("items", [])
    columns = (("NAMESPACE", "namespace"), *shown.COLUMNS) if args.all_namespaces else shown.COLUMNS
    if not found and args.output == "table":
        sys.stderr.write(f"no sessions{'' if args.all_namespaces else ' in ' + way.namespace}\n")
        return 0
    _emit(args, found, [shown.object_row(item, now) for item in found], columns)
    return 0


def _emit(
    args: argparse.Namespace, whole: list[dict[str, Any]], rows: list[dict[str, Any]], columns: tuple[tuple[str, str], ...]
) -> None:
    emit(rows if args.output == "table" else whole, columns, args.output)


def _show(args: argparse.Namespace) -> int:
    way = _Way(args)
    if way.direct:
        with way.door() as opened:
            report: SessionReport = opened.session(args.name)
        whole, text = report.model_dump(mode="json"), shown.report(report)
    else:
        whole = way.kubectl.get(KIND, args.name, way.namespace)
        text = shown.session(whole)
    if args.output == "table":
        sys.stdout.write(text)
    elif args.output == "yaml":
        sys.stdout.write(yaml.safe_dump(whole, sort_keys=False))
    else:
        sys.stdout.write(json.dumps(whole, indent=2) + "\n")  # the object itself, not a list of one
    return 0


def _watch(args: argparse.Namespace) -> int:
    return _Way(args).follow(args.name)


def _evidence(args: argparse.Namespace) -> int:
    way = _Way(args, names.tenant_namespace(args.tenant) if args.tenant else None)
    if args.name and not way.direct:
        way.kubectl.get(KIND, args.name, way.namespace)  # a misspelt session should not end in somebody's whole log
    target = Path(args.file)
    with way.door(AUDITORS) as opened:
        size = opened.evidence(target)
    sys.stdout.write(f"{target}: {size} bytes; check it with: folkmoot verify {target}\n")
    return 0
