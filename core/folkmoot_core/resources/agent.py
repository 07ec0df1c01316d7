"""`Agent` (agents.folkmoot.dev): one participant with a purpose, a model and tools."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from folkmoot_core.resources.common import Cause, ConfigMapKeyRef, Duration, Name, ObjectName, Quantity, Resources, Spec
from folkmoot_core.resources.rules import Rule, immutable, plain_cause

Permission = Literal["Allow", "Deny"]


class AgentModel(Spec):
    provider: Name = Field(description="Name of a provider in the Tenant's allow-list.")
    name: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:/-]+$")] = Field(
        description="Model to call."
    )
    max_output_tokens: int = Field(default=4096, ge=16, le=200_000, description="Output tokens per call at most.")


class PromptSource(Spec):
    config_map_key_ref: ConfigMapKeyRef = Field(description="Key of a ConfigMap in this namespace.")


class BuiltinTools(Spec):
    """The sandbox's tools. What is not allowed is refused by the sandbox, not merely hidden from the model."""

    bash: Permission = Field(default="Deny", description="Run a shell command in the workspace.")
    read: Permission = Field(default="Deny", description="Read a file.")
    write: Permission = Field(default="Deny", description="Create or replace a file.")
    edit: Permission = Field(default="Deny", description="Replace text in a file.")
    glob: Permission = Field(default="Deny", description="List files by pattern.")
    grep: Permission = Field(default="Deny", description="Search files by regular expression.")

    def allowed(self) -> tuple[str, ...]:
        """Names of the allowed tools, sorted."""
        return tuple(sorted(name for name, value in self.model_dump().items() if value == "Allow"))


class Tools(Spec):
    builtin: BuiltinTools = Field(default=BuiltinTools(), description="Tools that run in the agent's sandbox.")


class Sandbox(Spec):
    timeout: Duration = Field(
        default="2m", description="Longest time one command may take; then it is killed with all its children."
    )
    workspace: Quantity = Field(default="1Gi", description="Size of the workspace at most.")
    resources: Resources | None = Field(default=None, description="Requests and limits of the sandbox container.")


class AgentSpec(Spec):
    """One participant."""

    cause: Cause = Field(
        description="Purpose in the first person, 1 to 4096 characters. Immutable: another cause is another identity."
    )
    model: AgentModel = Field(description="The model that speaks for this agent.")
    system_prompt: Annotated[str, StringConstraints(max_length=100_000)] | None = Field(
        default=None, description="System prompt. Excludes systemPromptFrom."
    )
    system_prompt_from: PromptSource | None = Field(
        default=None, description="System prompt from a ConfigMap. Excludes systemPrompt."
    )
    tools: Tools = Field(default=Tools(), description="What the agent may do beside talking.")
    sandbox: Sandbox = Field(default=Sandbox(), description="Where tools run.")
    replicas: int = Field(default=1, ge=0, le=10, description="Pods of this agent; sessions are spread over them.")
    resources: Resources | None = Field(default=None, description="Requests and limits of the agent container.")
    node_selector: dict[str, Annotated[str, StringConstraints(max_length=63)]] | None = Field(
        default=None, max_length=16, description="Node labels that the pods need."
    )
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the pods.")
    suspend: bool = Field(default=False, description="Pause: the agent is scaled to zero and gets no tasks.")

    rules = (
        immutable("cause", "another cause is another identity; create an Agent with another name"),
        plain_cause(),
        Rule(
            "!(has(self.systemPrompt) && has(self.systemPromptFrom))",
            "systemPrompt and systemPromptFrom exclude each other: remove one of them",
            lambda a: a.system_prompt is None or a.system_prompt_from is None,
            ".systemPromptFrom",
        ),
        Rule(
            "!has(self.priorityClassName) || !self.priorityClassName.startsWith('system-')",
            "priorityClassName must not begin with system-: those classes push other tenants' pods, and the cluster's own, aside",
            lambda a: not (a.priority_class_name or "").startswith("system-"),
            ".priorityClassName",
        ),
    )
