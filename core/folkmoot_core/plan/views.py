"""Raw Kubernetes objects parsed into frozen views. The one place where manifests from outside become typed values.

`parse_<kind>(raw)` never raises for bad content: it gives `Problems` with a sentence per fault. The API server has
already refused most of them by schema and CEL; `folkmoot dev` and objects older than a rule come through here alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from folkmoot_core import identity, names
from folkmoot_core.errors import Invalid
from folkmoot_core.plan import audit
from folkmoot_core.plan.types import Problem, Problems
from folkmoot_core.resources import AgentSpec, CouncilSpec, GatePolicySpec, SessionSpec, TenantSpec, rules
from folkmoot_core.resources.common import Spec

SpecT = TypeVar("SpecT", bound=Spec)


@dataclass(frozen=True)
class Meta:
    """The metadata that plans look at."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    created: str = ""
    deleted: str = ""  # deletionTimestamp; empty: not being deleted

    @property
    def terminating(self) -> bool:
        """Whether the object is being deleted."""
        return bool(self.deleted)


@dataclass(frozen=True)
class TenantView:
    meta: Meta
    spec: TenantSpec
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The tenant's name."""
        return self.meta.name

    @property
    def namespace(self) -> str:
        """The namespace that belongs to this tenant."""
        return names.tenant_namespace(self.meta.name)

    @property
    def stopped(self) -> bool:
        """Whether nothing of it should run: suspended or being deleted."""
        return self.spec.suspend or self.meta.terminating


@dataclass(frozen=True)
class AgentView:
    meta: Meta
    spec: AgentSpec
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The agent's name."""
        return self.meta.name


@dataclass(frozen=True)
class CouncilView:
    meta: Meta
    spec: CouncilSpec
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The council's name."""
        return self.meta.name


@dataclass(frozen=True)
class GateView:
    meta: Meta
    spec: GatePolicySpec
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The gate policy's name."""
        return self.meta.name


@dataclass(frozen=True)
class SessionView:
    meta: Meta
    spec: SessionSpec
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The session's name."""
        return self.meta.name


def parse_tenant(raw: Mapping[str, Any]) -> TenantView | Problems:
    """A Tenant, or what is wrong with it."""
    parsed = _parse(raw, TenantSpec, "Tenant", names.RESERVED_TENANTS)
    return parsed if isinstance(parsed, Problems) else TenantView(*parsed)


def parse_agent(raw: Mapping[str, Any]) -> AgentView | Problems:
    """An Agent, or what is wrong with it."""
    parsed = _parse(raw, AgentSpec, "Agent", names.RESERVED_AGENTS)
    return parsed if isinstance(parsed, Problems) else AgentView(*parsed)


def parse_council(raw: Mapping[str, Any]) -> CouncilView | Problems:
    """A Council, or what is wrong with it."""
    parsed = _parse(raw, CouncilSpec, "Council", ())
    return parsed if isinstance(parsed, Problems) else CouncilView(*parsed)


def parse_gate(raw: Mapping[str, Any]) -> GateView | Problems:
    """A GatePolicy, or what is wrong with it."""
    parsed = _parse(raw, GatePolicySpec, "GatePolicy", ())
    return parsed if isinstance(parsed, Problems) else GateView(*parsed)


def parse_session(raw: Mapping[str, Any]) -> SessionView | Problems:
    """A Session, or what is wrong with it."""
    parsed = _parse(raw, SessionSpec, "Session", ())
    return parsed if isinstance(parsed, Problems) else SessionView(*parsed)


def parse_meta(raw: Mapping[str, Any]) -> Meta:
    """Metadata of any object; absent parts are empty."""
    meta = raw.get("metadata") or {}
    return Meta(
        name=str(meta.get("name", "")), namespace=str(meta.get("namespace", "")), uid=str(meta.get("uid", "")),
        generation=int(meta.get("generation", 0)), resource_version=str(meta.get("resourceVersion", "")),
        labels=dict(meta.get("labels") or {}), annotations=dict(meta.get("annotations") or {}),
        finalizers=tuple(meta.get("finalizers") or ()), created=str(meta.get("creationTimestamp") or ""),
        deleted=str(meta.get("deletionTimestamp") or ""),
    )  # fmt: skip


def _parse(
    raw: Mapping[str, Any], model: type[SpecT], kind: str, reserved: tuple[str, ...]
) -> tuple[Meta, SpecT, Mapping[str, Any]] | Problems:
    meta = parse_meta(raw)
    problems = list(_name_problems(meta, kind, reserved))
    spec: SpecT | None = None
    try:
        spec = model.model_validate(raw.get("spec") or {})
    except ValidationError as error:
        problems.extend(_problem(item) for item in error.errors(include_url=False, include_input=False)[:8])
    if spec is not None and (cause := getattr(spec, "cause", None)) is not None:
        try:
            identity.check_cause(cause)
        except Invalid as error:
            problems.append(Problem("spec.cause", error.message))
    if spec is not None:
        problems.extend(Problem(where, message) for where, message in rules.broken(spec))
    if isinstance(spec, TenantSpec):
        problems.extend(audit.problems(spec.audit))
    if problems or spec is None:
        return Problems(kind, meta.namespace, meta.name, meta.uid, meta.generation, tuple(problems))
    return meta, spec, dict(raw.get("status") or {})


def _name_problems(meta: Meta, kind: str, reserved: tuple[str, ...]) -> list[Problem]:
    try:
        names.check_name(meta.name, f"{kind} name")
    except Invalid as error:
        return [Problem("metadata.name", error.message)]
    if meta.name in reserved:
        return [Problem("metadata.name", f"{meta.name!r} is reserved for Folkmoot itself; choose another name")]
    return []


def _problem(item: Any) -> Problem:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    return Problem(f"spec{where}", message)
