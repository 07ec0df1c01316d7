"""How an agent works on one task: a generator without I/O, driven by folkmoot_runtime.agent.worker.

It yields what to do next (one model call, or tool calls) and is sent what came of it; it returns the TaskResult. The same
answers lead to the same requests, byte for byte, so that after a kill the broker finds its stored answers again: no time, no
randomness, no set order in a prompt. Everything a model or a tool says is data.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final

from folkmoot_core import prompts
from folkmoot_core.calls import (
    MAX_REQUEST,
    CallAnswer,
    Message,
    ModelRequest,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
    Usage,
)
from folkmoot_core.canonical import sha256_hex
from folkmoot_core.document import AgentEntry
from folkmoot_core.messages import InputRef, Task, TaskResult
from folkmoot_core.tools import builtin_tools, check_arguments

MAX_CALLS_PER_ANSWER: Final = 32  # tool calls of one model answer that are run; the rest is refused
MAX_CALLS: Final = 48  # more in one answer ends the task: 200 answers of 48 still have places in the journal
MAX_TOOL_TEXT: Final = 48_000  # characters of a tool's text that the model is shown
MAX_CONVERSATION: Final = MAX_REQUEST - 64 * 1024  # bytes of a request; the rest is for the envelope around it
MAX_OUTPUT: Final = 256 * 1024  # bytes of a result's output; the envelope's body has room for twice that
MAX_CALL_ID: Final = 200  # StepRecord.call_id
INTERRUPTED: Final = (
    "[interrupted: the sandbox or the agent died while this call ran. Whether it had any effect is unknown, and it is not run "
    "again. The workspace is as it was before the call. Look before you repeat it.]"
)
REPAIR: Final = (
    "Your answer is not valid JSON of the schema that was asked for ({why}). Answer again with that one JSON object and nothing "
    "else: no prose, no code fence."
)


@dataclass(frozen=True)
class CallModel:
    """Make this call; answered with the broker's `CallAnswer`."""

    step: int
    request: ModelRequest


@dataclass(frozen=True)
class ToolRun:
    """One tool call. `ordinal` counts the task's calls and names its place in the journal; `problem` not empty: do not run
    it, this is what the model is told instead."""

    ordinal: int
    id: str
    call: ToolCallPart
    problem: str = ""


@dataclass(frozen=True)
class RunTools:
    """Run these in order; answered with a `ToolText` for each."""

    runs: tuple[ToolRun, ...]


@dataclass(frozen=True)
class ToolText:
    """What came of one tool call."""

    text: str
    error: bool = False


class GiveUp(Exception):
    """The task ends here: a limit of its own, or what its driver throws in (a deadline, a peer that refuses)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


Work = Generator[CallModel | RunTools, Any, TaskResult]


@dataclass(frozen=True)
class _Meter:
    """What the task has used."""

    calls: int = 0
    tools: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: Decimal | None = None
    last: CallAnswer | None = None

    def add(self, answer: CallAnswer) -> _Meter:
        cost = self.cost if answer.cost is None else (self.cost or Decimal(0)) + Decimal(answer.cost)
        return _Meter(self.calls + 1, self.tools, self.usage + answer.result.usage, cost, answer)

    @property
    def tokens(self) -> int:
        return self.usage.input_tokens + self.usage.output_tokens


def work(task: Task, agent: AgentEntry, inputs: Sequence[tuple[InputRef, str]]) -> Work:
    """Work on `task`. `inputs` are those of its inputs that are text. Throw `GiveUp` in to end it with what it has used."""
    tools = builtin_tools(agent.spec.tools.builtin.allowed()) if task.workspace is not None else ()
    allowed = frozenset(tool.name for tool in tools)
    messages: list[Message] = [_user(_prompt(task, inputs))]
    meter, repaired = _Meter(), False
    try:
        while True:
            request = _request(task, agent, messages, meter, tools)
            answer: CallAnswer = yield CallModel(meter.calls, request)
            meter = meter.add(answer)
            messages.append(Message(role="assistant", parts=answer.result.parts))
            calls = [part for part in answer.result.parts if isinstance(part, ToolCallPart)]
            _check_stop(answer, calls)
            if calls:
                runs = tuple(_run(task, meter.tools + n, n, call, allowed) for n, call in enumerate(calls))
                texts: Sequence[ToolText] = yield RunTools(runs)
                messages.append(Message(role="tool", parts=tuple(_result(c, t) for c, t in zip(calls, texts, strict=True))))
                meter = replace(meter, tools=meter.tools + len(calls))
                continue
            output, why = _output(task, answer)
            if not why:
                return _result_of(task, meter, status="done", output=output)
            if repaired:
                raise GiveUp("InvalidOutput", f"the answer is not what was asked for, twice: {why}")
            repaired = True
            messages.append(_user(REPAIR.format(why=why)))
    except GiveUp as stop:
        return _result_of(task, meter, status="failed", reason=stop.reason, error=stop.message)


def is_text(media: str) -> bool:
    """Whether an input of this media type is shown in the prompt."""
    kind = media.split(";", 1)[0].strip().lower()
    return kind.startswith("text/") or kind in ("application/json", "application/yaml", "application/xml", "application/toml")


def clean(text: str, limit: int = MAX_TOOL_TEXT) -> str:
    """Text as a model may see it: no control characters but LF and TAB, no lone surrogates, its middle cut when too long."""
    kept = "".join(c for c in text if c in "\n\t" or (c >= " " and c != "\x7f" and not "\x80" <= c <= "\x9f"))
    kept = kept.encode("utf-8", "replace").decode()
    if len(kept) <= limit:
        return kept
    half = limit // 2
    return f"{kept[:half]}\n[{len(kept) - 2 * half} characters cut]\n{kept[-half:]}"


def _prompt(task: Task, inputs: Sequence[tuple[InputRef, str]]) -> str:
    shown = {ref.digest for ref, _ in inputs}
    parts = [task.prompt]
    parts += [prompts.fenced(f"input {clean(ref.name, 200)}".replace("\n", " "), clean(text)) for ref, text in inputs]
    parts += [
        f"Input {ref.name!r} ({ref.media}) is not text and is not shown here." for ref in task.inputs if ref.digest not in shown
    ]
    return "\n\n".join(parts)


def _request(task: Task, agent: AgentEntry, messages: list[Message], meter: _Meter, tools: tuple[ToolSpec, ...]) -> ModelRequest:
    """The next call, within the task's limits."""
    if meter.calls >= task.max_steps:
        raise GiveUp("LimitReached", f"the task used its {task.max_steps} model calls without an answer")
    if meter.tokens >= task.max_tokens:
        raise GiveUp("LimitReached", f"the task used {meter.tokens} of {task.max_tokens} tokens without an answer")
    request = ModelRequest(
        system=agent.system_prompt, messages=tuple(messages), tools=tools, output=task.output,
        max_output_tokens=min(agent.spec.model.max_output_tokens, task.max_tokens - meter.tokens),
    )  # fmt: skip
    if len(request.model_dump_json()) > MAX_CONVERSATION:
        raise GiveUp("ContextTooLarge", f"the conversation is larger than {MAX_CONVERSATION} bytes")
    return request


def _check_stop(answer: CallAnswer, calls: Sequence[ToolCallPart]) -> None:
    """Some answers end the task badly. A cut one is not taken for a whole one."""
    match answer.result.stop:
        case "refusal":
            raise GiveUp("Refused", "the model refused the task")
        case "max_tokens":
            raise GiveUp("OutputTruncated", "the answer was cut at maxOutputTokens; raise the agent's limit or ask for less")
    if len(calls) > MAX_CALLS:
        raise GiveUp("TooManyToolCalls", f"the model asked for {len(calls)} tool calls at once; at most {MAX_CALLS}")
    if not calls and not _text(answer).strip():
        raise GiveUp("EmptyAnswer", "the model answered without text and without a tool call")


def _run(task: Task, ordinal: int, place: int, call: ToolCallPart, allowed: frozenset[str]) -> ToolRun:
    identity = f"{task.task}/{ordinal}/{call.id}"
    if len(identity) > MAX_CALL_ID:
        identity = f"{task.task}/{ordinal}/{sha256_hex(call.id.encode('utf-8', 'replace'))[:32]}"
    problem = ""
    if place >= MAX_CALLS_PER_ANSWER:
        problem = f"Not run: at most {MAX_CALLS_PER_ANSWER} tool calls in one answer."
    elif call.name not in allowed:
        problem = f"Not run: there is no tool {call.name[:64]!r} for you here. You have: {', '.join(sorted(allowed)) or 'none'}."
    else:
        problem = check_arguments(call.name, call.arguments)
    return ToolRun(ordinal, identity, call, problem)


def _result(call: ToolCallPart, answer: ToolText) -> ToolResultPart:
    return ToolResultPart(id=call.id, name=call.name, text=clean(answer.text), error=answer.error)


def _output(task: Task, answer: CallAnswer) -> tuple[Any, str]:
    """The output, and why it is not one. With a schema: one JSON object that has what the schema requires at its top."""
    text = _text(answer)
    if len(text.encode("utf-8", "replace")) > MAX_OUTPUT:
        return None, f"longer than {MAX_OUTPUT} bytes"
    if task.output is None:
        return text, ""
    try:
        value = json.loads(_unfenced(text), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None, "it does not parse"
    if not isinstance(value, dict):
        return None, "it is not an object"
    return value, _misses(value, task.output.json_schema)


def _misses(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if missing := [key for key in schema.get("required", []) if key not in value]:
        return f"property {missing[0]!r} is missing"
    return ""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _unfenced(text: str) -> str:
    """Without a code fence around all of it: the one wrapping that models add although asked not to."""
    lines = text.strip().splitlines()
    if len(lines) >= 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        return "\n".join(lines[1:-1])
    return text


def _text(answer: CallAnswer) -> str:
    return "".join(part.text for part in answer.result.parts if isinstance(part, TextPart))


def _user(text: str) -> Message:
    return Message(role="user", parts=(TextPart(text=text),))


def _result_of(task: Task, meter: _Meter, **fields: Any) -> TaskResult:
    last = meter.last
    return TaskResult(
        task=task.task, session=task.session, usage=meter.usage, calls=meter.calls,
        cost=None if meter.cost is None else format(meter.cost, "f"), currency=last.currency if last else None,
        provider=last.provider if last else "", model_observed=last.result.model_observed if last else "",
        family=last.family if last else "", **fields,
    )  # fmt: skip
