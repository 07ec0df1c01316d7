"""`folkmoot identity FILES…` and `folkmoot identity diff A B`: seed and commitment from manifests alone, and why two differ.

No cluster is asked: what is printed here must be what `status.identity` and every ledger entry say. architecture.md §5.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folkmoot_cli.dev import world
from folkmoot_cli.output import FORMATS, emit
from folkmoot_core import identity, names
from folkmoot_core.document import Identity
from folkmoot_core.errors import Invalid
from folkmoot_core.plan import identities
from folkmoot_core.plan.types import Installation
from folkmoot_core.plan.views import TenantView

DIFF = "diff"
PLACEHOLDERS = {"@MODELS@": "http://models.invalid"}  # no address is part of an identity
LISTS = ("models", "tools", "memory", "regions", "egress", "budgets", "policies")


@dataclass(frozen=True)
class Named:
    """One identity with the object it belongs to and its parent's commitment."""

    path: str  # tenant, or tenant/agent
    kind: str
    identity: Identity
    parent: str

    def row(self) -> dict[str, str]:
        """One line of the table."""
        return {
            "kind": self.kind, "name": self.path, "scope": self.identity.scope, "seed": self.identity.seed,
            "commitment": self.identity.commitment, "parent": self.parent, "grants": self.identity.grants.digest(),
        }  # fmt: skip


def add_parser(subparsers: Any, summary: str) -> None:
    """`identity`; `diff` is its first word rather than an action, so that files need no word before them."""
    parser = subparsers.add_parser(
        "identity", help=summary, description=summary,
        epilog="A and B are files or directories; PATH#tenant and PATH#tenant/agent name one identity in them.",
    )  # fmt: skip
    parser.add_argument("words", nargs="+", metavar="FILE | diff A B", help="manifests, or two sets of them to compare")
    parser.add_argument("--federation", default="folkmoot", help="the installation's (chart value; default: folkmoot)")
    parser.add_argument("-o", "--output", choices=FORMATS, default="table")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.words[0] == DIFF:
        if len(args.words) != 3:
            raise Invalid(f"identity diff: expected two paths, found {len(args.words) - 1}")
        return _diff(args)
    found = list(read(args.words, args.federation))
    emit(
        [n.row() for n in found],
        (("KIND", "kind"), ("NAME", "name"), ("SEED", "seed"), ("COMMITMENT", "commitment")),
        args.output,
    )
    return 0


def _diff(args: argparse.Namespace) -> int:
    """Exit code 0 when all are the same, 1 when one differs, like diff(1)."""
    left, right = (_chosen(word, args.federation) for word in args.words[1:])
    if len(left) == len(right) == 1:
        pairs = [(next(iter(left.values())), next(iter(right.values())))]
    else:
        pairs = [(left[p], right[p]) for p in left if p in right]
    rows = [
        {"name": p, "difference": f"only in {w}"}
        for p, w in _alone(left, right, args.words[1:])
        if len(pairs) != 1 or len(left) > 1
    ]
    rows += [{"name": _both(a, b), "difference": why} for a, b in pairs for why in differences(a, b)]
    if not rows and args.output == "table":
        emit(
            [{"name": _both(a, b), "seed": a.identity.seed[:16]} for a, b in pairs], (("SAME", "name"), ("SEED", "seed")), "table"
        )
        return 0
    emit(rows, (("NAME", "name"), ("DIFFERENCE", "difference")), args.output)
    return 1 if rows else 0


def read(paths: list[str], federation: str) -> Iterator[Named]:
    """Every identity in these manifests, a tenant before its agents. Raises `Invalid` where grants exceed the tenant's."""
    installation = _installation(federation)
    for path in paths:
        if not Path(path).exists():
            raise Invalid(f"no such file: {path}")
    found = world.read([Path(p) for p in paths], PLACEHOLDERS)
    tenants = {names.tenant_namespace(t.name): t for t in found.tenants}
    for agent in found.agents:
        if agent.meta.namespace not in tenants:
            where = agent.meta.namespace or "no namespace"
            raise Invalid(f"Agent {agent.name} is in {where}, whose Tenant is not in these files; name the Tenant's file too")
    for tenant in found.tenants:
        own = identities.tenant_identity(tenant, installation)
        yield Named(tenant.name, "Tenant", own, identity.ROOT_PARENT)
        yield from _agents(tenant, own, found, installation)


def differences(a: Named, b: Named) -> Iterator[str]:
    """Why two identities differ, most telling first; nothing when seed and commitment are the same."""
    one, two = a.identity, b.identity
    if one.seed != two.seed:
        for field in ("name", "scope", "cause"):
            before, after = getattr(one, field), getattr(two, field)
            if before != after:
                yield f"seed: {field} {_short(before)} → {_short(after)}: another identity"
    if one.commitment == two.commitment:
        return
    yield from _grant_differences(one, two)
    if a.parent != b.parent:
        yield f"commitment: the parent's commitment {a.parent[:16]}… → {b.parent[:16]}…; compare the parents"


def _grant_differences(one: Identity, two: Identity) -> Iterator[str]:
    for field in LISTS:
        before, after = getattr(one.grants, field), getattr(two.grants, field)
        if (before is None) != (after is None):
            yield f"commitment: grants.{field} is {'unset' if before is None else 'set'} → {'unset' if after is None else 'set'}"
        for grant in sorted(set(before or ()) - set(after or ())):
            yield f"commitment: grant {field}={grant} is gone"
        for grant in sorted(set(after or ()) - set(before or ())):
            yield f"commitment: grant {field}={grant} is new"
    for field in ("version", "gate"):
        if getattr(one.grants, field) != getattr(two.grants, field):
            yield f"commitment: grants.{field} {getattr(one.grants, field)} → {getattr(two.grants, field)}"


def _agents(tenant: TenantView, own: Identity, found: world.World, installation: Installation) -> Iterator[Named]:
    for agent in found.agents:
        if agent.meta.namespace == tenant.namespace:
            identities.check_agent(agent, tenant)
            mine = identities.agent_identity(agent, tenant, installation)
            yield Named(f"{tenant.name}/{agent.name}", "Agent", mine, own.commitment)


def _chosen(word: str, federation: str) -> dict[str, Named]:
    path, _, wanted = word.partition("#")
    found = {n.path: n for n in read([path], federation)}
    if not wanted:
        return found
    if wanted not in found:
        raise Invalid(f"{path} holds no {wanted!r}; it holds {', '.join(sorted(found))}")
    return {wanted: found[wanted]}


def _alone(left: dict[str, Named], right: dict[str, Named], words: list[str]) -> Iterator[tuple[str, str]]:
    yield from ((p, words[0]) for p in left if p not in right)
    yield from ((p, words[1]) for p in right if p not in left)


def _both(a: Named, b: Named) -> str:
    return a.path if a.path == b.path else f"{a.path} ↔ {b.path}"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 60 else flat[:59] + "…")


def _installation(federation: str) -> Installation:
    """Only the federation is part of an identity."""
    return Installation(
        system_namespace=names.SYSTEM_NAMESPACE, federation=federation, operator_service_url="", operator_image="",
        runtime_image="", issuer="", jwks="", ca_bundle="", version="",
    )  # fmt: skip
