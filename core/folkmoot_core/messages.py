"""The bus's envelope and the bodies it carries. substrate.md "Bus", runtime.md §3.6.

A message is stored in a stream as flat text fields (`to_fields`/`from_fields`); its signature covers the canonical JSON
of all other fields, so neither router nor server can alter it unseen.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from folkmoot_core.calls import OutputSchema, Usage
from folkmoot_core.canonical import MAX_INTEGER, canonical_json
from folkmoot_core.errors import Invalid

MAX_BODY = 512 * 1024  # bytes of a body's JSON; larger content travels by artefact digest
Priority = Literal["critical", "routine"]
Kind = Literal["task", "ack", "result", "cancel", "heartbeat"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Envelope(_Frozen):
    """One message. `request_id` is its identity: resends carry the same one and a higher `attempt`."""

    v: Literal[1] = 1
    request_id: str = Field(min_length=8, max_length=64)
    ack_for: str = Field(default="", max_length=64)  # the request_id that this message accepts or answers
    conversation: str = Field(default="", max_length=64)  # Session uid
    tenant: str = Field(max_length=64)
    sender: str = Field(max_length=64)
    to: str = Field(max_length=64)
    kind: Kind
    priority: Priority = "routine"
    deadline_ms: int = Field(default=0, ge=0, le=MAX_INTEGER)  # epoch ms by which the ACK is due; 0: the priority's default
    created_ms: int = Field(ge=0, le=MAX_INTEGER)
    attempt: int = Field(default=1, ge=1, le=100)
    body: str = Field(default="{}", max_length=MAX_BODY)  # JSON text
    signature: str = Field(default="", max_length=128)  # base64 Ed25519 over `signed_bytes()`

    def signed_bytes(self) -> bytes:
        """What the sender signs: every field but the signature, `attempt` and `deadline_ms` (the router moves those)."""
        return canonical_json(self.model_dump(exclude={"signature", "attempt", "deadline_ms"}))

    def to_fields(self) -> dict[str, str]:
        """Flat stream fields."""
        return {key: str(value) for key, value in self.model_dump().items()}

    @classmethod
    def from_fields(cls, fields: dict[str, str]) -> Envelope:
        """Parse stream fields; raises `Invalid` with the field's name, never its content."""
        try:
            return cls.model_validate({**fields, "v": int(fields.get("v", "0"))})
        except (ValidationError, ValueError) as error:
            where = error.errors()[0]["loc"] if isinstance(error, ValidationError) else ("v",)
            raise Invalid(f"bus message: field {where} does not fit the envelope") from None


class InputRef(_Frozen):
    """Content a task works on, fetched from the conductor's artefact store by digest."""

    name: str
    digest: str
    media: str = "application/octet-stream"


TaskKind = Literal["answer", "plan", "work", "vote", "review"]


class Task(_Frozen):
    """Body of a `task` message: one bounded piece of work for one agent. The prompt is made by folkmoot_core.prompts."""

    task: str = Field(max_length=128)  # deterministic: "<session uid>/<need id>"
    session: str = Field(max_length=64)
    session_name: str = ""
    kind: TaskKind
    prompt: str
    inputs: tuple[InputRef, ...] = ()
    workspace: str | None = None  # digest of the workspace manifest to start from; None: no sandbox for this task
    output: OutputSchema | None = None  # None: free text
    max_steps: int = Field(default=24, ge=1, le=200)  # model calls
    max_tokens: int = Field(default=200_000, ge=1)  # input + output over the task
    deadline_ms: int  # epoch ms by which the result is due


class TaskResult(_Frozen):
    """Body of a `result` message. `output` is parsed JSON when the task had a schema, else text. The conductor validates it."""

    task: str
    session: str
    status: Literal["done", "failed"]
    output: Any = None
    error: str = ""  # one sentence, no content
    reason: str = ""  # CamelCase
    workspace: str | None = None  # digest of the workspace manifest after the work
    usage: Usage = Usage()
    cost: str | None = None
    currency: str | None = None
    calls: int = 0
    provider: str = ""
    model_observed: str = ""
    family: str = ""


class WorkspaceFile(_Frozen):
    path: str = Field(max_length=1024)  # relative, no '..', '/' separators
    digest: str
    size: int = Field(ge=0)
    executable: bool = False


class WorkspaceManifest(_Frozen):
    """A set of files by digest. Its own digest (of canonical JSON) names an artefact set: what is voted on and gated."""

    files: tuple[WorkspaceFile, ...] = ()

    def canonical(self) -> bytes:
        """RFC 8785 bytes, files sorted by path."""
        return canonical_json({"files": [f.model_dump() for f in sorted(self.files, key=lambda f: f.path)]})
