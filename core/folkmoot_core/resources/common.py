"""What the kinds share: the strict base model, references, names, durations, quantities.

Field descriptions are the text of `kubectl explain`. Bounds live here and in the kinds' modules alone; crds/ is generated.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from folkmoot_core.errors import Invalid

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", min_length=1, max_length=40)]
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", min_length=1, max_length=253)]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", min_length=1, max_length=253)]
Duration = Annotated[str, StringConstraints(pattern=r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", min_length=2, max_length=20)]
Decimal = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,12}(\.[0-9]{1,9})?$", max_length=24)]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", max_length=24)]
Cause = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class Spec(BaseModel):
    """Base of every manifest model: camelCase outside, snake_case inside, unknown fields refused, immutable."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

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


class Resources(Spec):
    """Requests and limits of a container, as in a pod."""

    requests: dict[str, Quantity] | None = Field(
        default=None, description="Resources reserved, by name (cpu, memory).", max_length=4
    )
    limits: dict[str, Quantity] | None = Field(
        default=None, description="Resources at most, by name (cpu, memory).", max_length=4
    )


_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def seconds(duration: str) -> int:
    """Seconds of a duration such as `90s`, `5m` or `1h30m`; raises `Invalid` for anything else or zero."""
    match = _DURATION.fullmatch(duration)
    total = sum(int(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    if total <= 0:
        raise Invalid(f"duration {duration!r}: expected a positive time such as 90s, 5m or 1h30m")
    return total
