"""`Session` (sessions.folkmoot.dev): one unit of work given to an Agent or a Council."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from folkmoot_core.resources.common import NAMED_LIST, Duration, Name, ObjectName, Spec
from folkmoot_core.resources.rules import immutable, unique


class Target(Spec):
    kind: Literal["Agent", "Council"] = Field(description="Agent or Council.")
    name: Name = Field(description="Its name in this namespace.")


class ConfigMapRef(Spec):
    name: ObjectName = Field(description="Name of a ConfigMap in this namespace.")


class Input(Spec):
    """Content the session works on. A ConfigMap with one `binaryData` key ending in `.tar` becomes the workspace."""

    name: Name = Field(description="Name of this input in prompts.")
    config_map_ref: ConfigMapRef = Field(description="ConfigMap that holds the content (text keys, or a tar in binaryData).")


class SessionBudget(Spec):
    tokens: int = Field(
        default=1_000_000, ge=1, le=1_000_000_000, description="Input and output tokens of the whole session at most."
    )
    wall_clock: Duration = Field(default="30m", description="Longest time from acceptance to the end.")


class Continues(Spec):
    name: Name = Field(description="A finished Session; this one opens with its closing note.")


_ORDERED = ("target", "task", "inputs", "continues", "subject")
SubjectName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$", min_length=1, max_length=64)
]


class SessionSpec(Spec):
    """One unit of work."""

    target: Target = Field(description="Who works on it.")
    task: Annotated[str, StringConstraints(min_length=1, max_length=65_536)] = Field(description="What is asked.")
    inputs: tuple[Input, ...] = Field(
        default=(), max_length=16, description="What it is asked about.", json_schema_extra=NAMED_LIST
    )
    budget: SessionBudget = Field(default=SessionBudget(), description="Limits of this session.")
    continues: Continues | None = Field(default=None, description="Opens with that session's closing note.")
    subject: SubjectName | None = Field(
        default=None,
        description="Whose content this is: a pseudonymous reference of your own, such as a case number, never a name or an address. "
        "Content of all Sessions with the same subject is sealed under the same keys and erased together. Default: that of the "
        "session it continues, otherwise the session itself.",
    )
    priority: Literal["Routine", "Critical"] = Field(
        default="Routine", description="Critical: handoffs must be acknowledged within the critical deadline."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=31_536_000,
        description="Delete the object this long after it finished. Its record stays in the ledger.",
    )

    rules = (
        *(immutable(field, "work that was ordered is not changed; delete this Session and create another") for field in _ORDERED),
        unique("inputs", lambda i: i.name, "inputs has the same name twice; name each input once"),
    )
