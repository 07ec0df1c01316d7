"""What the kinds share: the strict base model, references, names, durations, quantities.

Field descriptions are the text of `kubectl explain`. Bounds live here and in the kinds' modules alone; crds/ is generated.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from folkmoot_core.errors import Invalid
from folkmoot_core.resources.rules import Rule

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", min_length=1, max_length=40)]
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", min_length=1, max_length=253)]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", min_length=1, max_length=253)]


def _positive(duration: str) -> str:
    if not any(digit in "123456789" for digit in duration):
        raise ValueError(POSITIVE_DURATION)
    return duration


POSITIVE_DURATION = "a duration must be longer than zero, such as 90s, 5m or 1h30m"
Duration = Annotated[
    str,
    StringConstraints(pattern=r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", min_length=2, max_length=20),
    AfterValidator(_positive),
    Field(
        json_schema_extra={
            "x-kubernetes-validations": [{"rule": "duration(self) > duration('0s')", "message": POSITIVE_DURATION}]
        }
    ),
]
Decimal = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,12}(\.[0-9]{1,9})?$", max_length=24)]
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"


def _quantity_text(value: object) -> object:
    """`cpu: 2` in YAML is a number; Kubernetes takes both and so do we."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    BeforeValidator(_quantity_text),
    StringConstraints(pattern=QUANTITY_PATTERN, max_length=24),
    WithJsonSchema(
        {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": QUANTITY_PATTERN}
    ),
]
Cause = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class Spec(BaseModel):
    """Base of every manifest model: camelCase outside, snake_case inside, unknown fields refused, immutable."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    rules: ClassVar[tuple[Rule, ...]] = ()
    """What must hold between the fields of this model; `rules.broken` checks it, the CRD carries it."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if validations := [rule.schema() for rule in cls.rules if rule.cel]:
            handler.resolve_ref_schema(schema)["x-kubernetes-validations"] = validations
        return schema

    def manifest(self) -> dict[str, Any]:
        """The form written in YAML: camelCase, without unset fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class AgentRef(Spec):
    """An Agent in the same namespace."""

    name: Name = Field(description="Name of an Agent in this namespace.")


class ConfigMapKeyRef(Spec):
    """One key of a ConfigMap in the same namespace."""

    name: ObjectName = Field(description="Name of a ConfigMap in this namespace.")
    key: Key = Field(description="Key within the ConfigMap.")


class SecretKeyRef(Spec):
    """One key of a Secret in the tenant's own namespace. It has no namespace on purpose."""

    name: ObjectName = Field(description="Name of a Secret in the tenant's namespace.")
    key: Key = Field(description="Key within the Secret.")


class Subject(Spec):
    """A person, group or ServiceAccount as RBAC knows it."""

    kind: Annotated[str, StringConstraints(pattern=r"^(User|Group|ServiceAccount)$")] = Field(
        description="User, Group or ServiceAccount."
    )
    name: Annotated[str, StringConstraints(min_length=1, max_length=253)] = Field(
        description="Name as the API server authenticates it."
    )
    namespace: ObjectName | None = Field(default=None, description="Namespace, for a ServiceAccount only.")

    rules = (
        Rule(
            "(self.kind == 'ServiceAccount') == has(self.namespace)",
            "a subject of kind ServiceAccount needs its namespace; User and Group have none",
            lambda s: (s.kind == "ServiceAccount") == (s.namespace is not None),
        ),
    )


class Resources(Spec):
    """Requests and limits of a container, as in a pod."""

    requests: dict[str, Quantity] | None = Field(
        default=None, description="Resources reserved, by name (cpu, memory).", max_length=4
    )
    limits: dict[str, Quantity] | None = Field(
        default=None, description="Resources at most, by name (cpu, memory).", max_length=4
    )

    rules = (
        Rule(
            "(!has(self.requests) || self.requests.all(r, r in ['cpu', 'memory'])) && "
            "(!has(self.limits) || self.limits.all(r, r in ['cpu', 'memory']))",
            "only cpu and memory can be asked for: the tenant's quota counts no other resource",
            lambda r: {*(r.requests or {}), *(r.limits or {})} <= {"cpu", "memory"},
        ),
    )


_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


NAMED_LIST: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
"""Schema of a list whose items are told apart by `name`, so that two appliers can own different items."""


def seconds(duration: str) -> int:
    """Seconds of a duration such as `90s`, `5m` or `1h30m`; raises `Invalid` for anything else or zero."""
    match = _DURATION.fullmatch(duration)
    total = sum(int(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    if total <= 0:
        raise Invalid(f"duration {duration!r}: expected a positive time such as 90s, 5m or 1h30m")
    return total
