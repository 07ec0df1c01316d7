"""The vendors' wire formats, one module each, and how a path finds its module.

A module translates both ways and does nothing else: `parse` a request into `Seen`, `render` an `Answer`, and put an
`error` into the vendor's own body. Streams would be a second renderer beside `render`, from the same `Answer`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

from simulator.model import Answer, Seen, WireName
from simulator.wire import anthropic, gemini, openai_chat, openai_responses


class Wire(Protocol):
    """What each module of this package offers."""

    NAME: WireName
    REQUEST_ID_HEADER: str

    def parse(self, body: Mapping[str, Any], model_in_path: str) -> Seen:
        """Raises BadRequest for what the vendor would refuse, and for what is not simulated."""

    def render(self, answer: Answer) -> dict[str, Any]: ...

    def error(self, status: int, message: str, retry_after: float | None, request_id: str) -> dict[str, Any]: ...


class Route(NamedTuple):
    wire: Wire
    model: str
    """From the path (Gemini); empty where the body names it."""
    streaming: bool


_MODULES: tuple[tuple[re.Pattern[str], Wire], ...] = (
    # The prefix is the base URL under which DeepSeek serves this format.
    (re.compile(r"(?:/anthropic)?/v1/messages"), anthropic),
    (re.compile(r"(?:/v1)?/chat/completions"), openai_chat),
    (re.compile(r"(?:/v1)?/responses"), openai_responses),
    (re.compile(r"/v1(?:beta)?/models/(?P<model>[^/:]+):(?P<verb>generateContent|streamGenerateContent)"), gemini),
)


def route(path: str) -> Route | None:
    """Which wire a path (without its query) belongs to."""
    for pattern, module in _MODULES:
        found = pattern.fullmatch(path)
        if found is not None:
            groups = found.groupdict()
            return Route(module, unquote(groups.get("model") or ""), groups.get("verb") == "streamGenerateContent")
    return None
