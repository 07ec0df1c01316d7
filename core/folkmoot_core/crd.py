"""The CustomResourceDefinitions, made from folkmoot_core.resources: structural schemas, CEL rules, printer columns.

Pure: `definitions()` returns plain data. crds/generate writes it to files (and into the chart folkmoot-crds); a test
compares them with what is committed. Nobody edits the files by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from folkmoot_core import names
from folkmoot_core.errors import Invalid
from folkmoot_core.resources import AgentSpec, CouncilSpec, GatePolicySpec, SessionSpec, TenantSpec
from folkmoot_core.resources.common import Spec
from folkmoot_core.resources.status import AgentStatus, CouncilStatus, GatePolicyStatus, SessionStatus, TenantStatus

Schema = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One kind: its names, scope, models and the columns of `kubectl get` (name, type, path, wide only)."""

    kind: str
    plural: str
    short: str
    spec: type[Spec]
    status: type[Spec]
    description: str
    columns: tuple[tuple[str, str, str, bool], ...]
    scope: str = "Namespaced"
    reserved: tuple[str, ...] = ()


def _ready() -> tuple[tuple[str, str, str, bool], ...]:
    return (("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', False),)


def _reason(*, wide: bool) -> tuple[tuple[str, str, str, bool], ...]:
    return (("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', wide),)


_AGE = (("Age", "date", ".metadata.creationTimestamp", False),)

KINDS: tuple[Kind, ...] = (
    Kind(
        "Tenant", "tenants", "fmt", TenantSpec, TenantStatus,
        "A customer or team: a namespace of its own with owners, model providers, limits and an audit log of its own.",
        (("Namespace", "string", ".status.namespace", False), ("Agents", "integer", ".status.agents", False),
         ("Anchored", "date", ".status.audit.anchored", False), *_ready(), *_reason(wide=True), *_AGE),
        scope="Cluster", reserved=names.RESERVED_TENANTS,
    ),
    Kind(
        "Agent", "agents", "fma", AgentSpec, AgentStatus,
        "One participant with a purpose, a model and tools. Whoever may write Agents may run code in the tenant's sandboxes.",
        (("Provider", "string", ".spec.model.provider", False), ("Model", "string", ".spec.model.name", False),
         *_ready(), *_reason(wide=False), *_AGE),
        reserved=names.RESERVED_AGENTS,
    ),
    Kind(
        "Council", "councils", "fmc", CouncilSpec, CouncilStatus, "Agents that decide together, and how.",
        (("Members", "integer", ".status.members", False), ("Quorum", "integer", ".spec.quorum.minimum", False),
         *_ready(), *_reason(wide=True), *_AGE),
    ),
    Kind(
        "GatePolicy", "gatepolicies", "fmg", GatePolicySpec, GatePolicyStatus, "What a submission must pass before it counts.",
        (("Mode", "string", ".spec.mode", False), ("Families", "integer", ".spec.families", True),
         *_ready(), *_reason(wide=True), *_AGE),
    ),
    Kind(
        "Session", "sessions", "fms", SessionSpec, SessionStatus, "One unit of work given to an Agent or a Council.",
        (("Target", "string", ".spec.target.name", False), ("Phase", "string", ".status.phase", False),
         ("Gate", "string", ".status.gate.verdict", False), ("Cost", "string", ".status.usage.cost", False),
         ("Duration", "string", ".status.duration", False), *_reason(wide=True), *_AGE),
    ),
)  # fmt: skip


def definitions() -> dict[str, Schema]:
    """File name → CustomResourceDefinition, in the order of the kinds."""
    return {f"{names.GROUP}_{kind.plural}.yaml": definition(kind) for kind in KINDS}


def definition(kind: Kind) -> Schema:
    """One CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{names.GROUP}",
            "labels": {names.LABEL_NAME: "folkmoot-crds", names.LABEL_PART_OF: names.MANAGER},
        },
        "spec": {
            "group": names.GROUP,
            "names": {
                "kind": kind.kind, "listKind": f"{kind.kind}List", "plural": kind.plural, "singular": kind.kind.lower(),
                "shortNames": [kind.short], "categories": [names.CATEGORY],
            },
            "scope": kind.scope,
            "versions": [
                {
                    "name": names.VERSION, "served": True, "storage": True, "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": _root(kind)},
                }
            ],
        },
    }  # fmt: skip


def _column(name: str, type_: str, path: str, wide: bool) -> Schema:
    column: Schema = {"name": name, "type": type_, "jsonPath": path}
    return {**column, "priority": 1} if wide else column


def _root(kind: Kind) -> Schema:
    return {
        "type": "object",
        "description": kind.description,
        "required": ["spec"],
        "x-kubernetes-validations": _name_rules(kind),
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(kind.spec),
            "status": structural(kind.status),
        },
    }


def _name_rules(kind: Kind) -> list[Schema]:
    rules = [
        {
            "rule": f"self.metadata.name.size() <= {names.MAX_NAME} && !self.metadata.name.contains('.')",
            "message": f"the name of {_article(kind.kind)} is a DNS label of at most {names.MAX_NAME} characters "
            "(a-z, 0-9 and '-'), because its children add suffixes",
        }
    ]
    if kind.reserved:
        listed = ", ".join(f"'{name}'" for name in kind.reserved)
        message = f"the name is reserved for Folkmoot itself ({', '.join(kind.reserved)}); choose another"
        rules.append({"rule": f"!(self.metadata.name in [{listed}])", "message": message})
    return rules


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "AEIOU" else f"a {kind}"


def structural(model: type[Spec]) -> Schema:
    """A structural OpenAPI v3 schema: no references, no null unions, no titles, defaults on every level."""
    raw = model.model_json_schema(by_alias=True)
    return _node(raw, raw.get("$defs", {}))


_DROPPED = ("title", "$defs", "$ref", "additionalProperties", "properties", "items", "default", "anyOf")


def _node(raw: Schema, definitions: Schema) -> Schema:
    node = _resolved(raw, definitions)
    result = {key: value for key, value in node.items() if key not in _DROPPED}
    if "anyOf" in node:  # only int-or-string is left: `_resolved` has removed null
        result["anyOf"] = node["anyOf"]
    if "properties" in node:
        result["properties"] = {key: _node(value, definitions) for key, value in node["properties"].items()}
    if "items" in node:
        result["items"] = _node(node["items"], definitions)
        result.setdefault("x-kubernetes-list-type", "atomic")
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _node(node["additionalProperties"], definitions)
    if node.get("type") == "integer":
        result["format"] = "int64"
    if node.get("default") is not None:
        result["default"] = _without_null(node["default"])
    return result


def _without_null(value: Any) -> Any:
    return {k: _without_null(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def _resolved(raw: Schema, definitions: Schema) -> Schema:
    """Follow `$ref`, remove `null` from unions; what stands beside (description, default) wins over what is referred to."""
    node = dict(raw)
    if "$ref" in node:
        target = definitions[node.pop("$ref").rsplit("/", 1)[-1]]
        return _resolved({**target, **node}, definitions)
    if "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
        options = [option for option in node["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise Invalid(f"{raw.get('title')}: a structural schema has no unions; use one type")
        del node["anyOf"]
        return _resolved({**options[0], **node}, definitions)
    return node
