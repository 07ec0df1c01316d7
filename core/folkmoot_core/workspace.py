"""Sandbox leases, tool calls and the journal of an agent's steps: wiring.md §6.

A command that was running when its sandbox or agent died is recorded `interrupted` and never run again.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from folkmoot_core.messages import WorkspaceManifest


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LeaseRequest(_Frozen):
    session: str = Field(max_length=64)


class Lease(_Frozen):
    """Granted by the conductor, presented to the sandbox. A higher fence takes over; a lower one is refused for ever."""

    session: str = Field(max_length=64)
    endpoint: str = Field(max_length=253)  # base URL of the sandbox
    nonce: str = Field(min_length=16, max_length=128)
    fence: int = Field(ge=1)


class ToolCall(_Frozen):
    """Body of the sandbox's `POST /v1/tools`. `tools` allowed for this agent are in the sandbox's own environment."""

    id: str = Field(max_length=200)  # task/step/tool-call id: the same id is never run twice under one lease
    name: str = Field(max_length=32)
    arguments: dict[str, Any]
    timeout_seconds: int = Field(ge=1, le=3600)


class ToolAnswer(_Frozen):
    """What the model is told, and the workspace after the call."""

    text: str  # bounded (100 KiB), control characters but LF and TAB removed
    error: bool = False
    exit_code: int | None = None
    timed_out: bool = False
    workspace: WorkspaceManifest  # the whole workspace by digest; changed blobs are fetched by GET /v1/blobs/{digest}


class StepRecord(_Frozen):
    """One tool call in the conductor's journal. Written `started` before the call and `done` after it."""

    step: int = Field(ge=0, le=10_000)
    call_id: str = Field(max_length=200)
    tool: str = Field(max_length=32)
    state: Literal["started", "done", "interrupted"]
    text: str = Field(default="", max_length=200_000)
    error: bool = False
    workspace: str | None = None  # digest of the manifest after the call, already in the artefact store
