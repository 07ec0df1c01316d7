"""The neutral values between the wires and the scenario: what was asked (`Seen`), what is answered (`Answer`).

Made by `simulator.wire` and `simulator.decide`. Holds data only: no vendor's field name, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NewType

WireName = Literal["anthropic", "openai-chat", "openai-responses", "gemini"]
WIRE_NAMES: tuple[WireName, ...] = ("anthropic", "openai-chat", "openai-responses", "gemini")

Role = Literal["system", "user", "assistant", "tool"]
Stop = Literal["end", "length", "tool_calls", "refusal"]

RequestSha256 = NewType("RequestSha256", str)
ConversationKey = NewType("ConversationKey", str)


class BadRequest(Exception):
    """The request is not what this vendor accepts; its text goes into the vendor-shaped 400."""


@dataclass(frozen=True)
class ToolCall:
    """A call the model makes. `id` is empty in a scenario and is minted when the answer is rendered."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True)
class Message:
    """One turn, or one part of it. Tool results are messages of their own with role `tool`."""

    role: Role
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    answers: str = ""
    """For role `tool`: the id of the call that this is the result of."""


@dataclass(frozen=True)
class SchemaRequest:
    """Structured output was asked for: by which name, with which JSON schema (empty: any JSON)."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """A request, whatever the vendor."""

    wire: WireName
    model: str
    messages: tuple[Message, ...]
    tools: tuple[str, ...] = ()
    schema: SchemaRequest | None = None
    request_sha256: RequestSha256 = RequestSha256("")
    tools_length: int = 0
    """Characters of the tool declarations and the schema, which vendors bill as input."""

    @property
    def system(self) -> str:
        """All system (and developer) text, in order."""
        return "\n".join(message.text for message in self.messages if message.role == "system")

    @property
    def last_user(self) -> str:
        """The last text a user wrote; tool results are not user text."""
        return next((message.text for message in reversed(self.messages) if message.role == "user"), "")

    @property
    def first_user(self) -> str:
        return next((message.text for message in self.messages if message.role == "user"), "")

    @property
    def any_text(self) -> str:
        """Every text of the conversation: system, users, assistant, tool results."""
        return "\n".join(message.text for message in self.messages)

    @property
    def turn(self) -> int:
        """Assistant turns already in the request. Adjacent assistant messages are one turn, because
        the Responses format spreads a turn over several items."""
        roles = [message.role for message in self.messages]
        return sum(role == "assistant" and (at == 0 or roles[at - 1] != "assistant") for at, role in enumerate(roles))

    @property
    def has_tool_result(self) -> bool:
        return any(message.role == "tool" for message in self.messages)

    @property
    def last_tool_result(self) -> str:
        """The latest batch of tool results, one per line group: parallel calls are answered together."""
        batch: list[str] = []
        for message in reversed(self.messages):
            if message.role == "tool":
                batch.append(message.text)
            elif batch:
                break
        return "\n".join(reversed(batch))


@dataclass(frozen=True)
class Usage:
    """Token counts. `input` includes `cached_input`, `output` includes `reasoning`; wires split them their way."""

    input: int
    output: int
    cached_input: int = 0
    reasoning: int = 0


@dataclass(frozen=True)
class Answer:
    """A complete reply of the model, ready to be put into a vendor's words."""

    model: str
    id: str
    """24 hex digits; wires put their prefix before it."""
    text: str | None
    tool_calls: tuple[ToolCall, ...]
    usage: Usage
    stop: Stop
    refusal: str | None = None
    truncated_arguments: bool = False
    """Tool arguments break off part-way, as when the output limit hits."""
