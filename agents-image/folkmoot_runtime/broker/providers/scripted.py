"""Answers from a YAML file instead of a model (type `Scripted`): demos without keys, tests, dry runs of a council.

    rules:                                    # the first that matches answers
      - when: {last_user: "re:(?i)review", model: demo, schema: verdict, turn: 0, has_tool_result: false}
        reply: {json: {approve: true}}        # or text, tool_calls: [{name, arguments}], refusal; ${last_user} and captured
        faults: [429, 500]                    # statuses of the first calls that match, then the reply
        delay: 0.5                            # seconds

Deterministic but for `faults`, which count within one process. Without a script it says so, and fills any schema that is
asked for with the smallest value that fits. It has no family: two of them never count as distinct.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from folkmoot_core.calls import ModelRequest, ModelResult, Part, TextPart, ToolCallPart, ToolResultPart, Usage
from folkmoot_runtime.broker.providers import interface
from folkmoot_runtime.broker.providers.interface import Provider, ProviderError, Target
from folkmoot_runtime.broker.providers.smallest import smallest

CHARACTERS_PER_TOKEN = 4  # the rule of thumb that vendors publish for English; only that it is deterministic matters
MAX_MATCHED = 20_000  # characters of a text that a rule looks at
_PLACEHOLDER = re.compile(r"\$\{([a-z_]+)\}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class When(_Strict):
    """All that is set must hold. Texts are substrings, or regular expressions after `re:`."""

    model: str | None = None
    system: str | None = None
    last_user: str | None = None
    last_tool_result: str | None = None
    output_schema: str | bool | None = Field(default=None, alias="schema")
    turn: int | None = None  # assistant messages so far
    has_tool_result: bool | None = None


class Call(_Strict):
    name: str
    arguments: dict[str, Any] = {}


class Reply(_Strict):
    text: str | None = None
    json_value: Any = Field(default=None, alias="json")
    tool_calls: tuple[Call, ...] = ()
    refusal: str | None = None


class Rule(_Strict):
    when: When = When()
    reply: Reply
    faults: tuple[int, ...] = ()
    delay: float = Field(default=0.0, ge=0, le=3600)


class Script(_Strict):
    rules: tuple[Rule, ...] = Field(max_length=1000)


def build(target: Target) -> Provider:
    """A provider for one target; an empty script answers everything with the default."""
    return Scripted(load(target.script, target.name))


def load(text: str, name: str) -> Script:
    """Parse a script; raises `ProviderError` naming the place."""
    if not text.strip():
        return Script(rules=())
    try:
        return Script.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        place = str(getattr(error, "problem_mark", "")).strip()
        raise ProviderError("status", f"script of provider {name} is not YAML {place}", status=400) from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProviderError("status", f"script of provider {name}: {where}: {first['msg']}", status=400) from None


class Scripted:
    """The provider. `faults` are counted per rule, for the life of the process."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._calls: Counter[int] = Counter()

    async def complete(self, model: str, request: ModelRequest, timeout: float) -> ModelResult:
        facts = _facts(model, request)
        for index, rule in enumerate(self._script.rules):
            captured = _matches(rule.when, facts, request)
            if captured is None:
                continue
            await self._wait(rule.delay, timeout)
            self._calls[index] += 1
            if self._calls[index] <= len(rule.faults):
                status = rule.faults[self._calls[index] - 1]
                raise ProviderError("status", "scripted fault", status=status)
            return _answer(model, request, rule.reply, {**facts, **captured})
        if self._script.rules:
            raise ProviderError("status", "no rule of the script matches the last user text", status=400)
        return _default(model, request, facts)

    async def _wait(self, delay: float, timeout: float) -> None:
        if delay > timeout:
            await asyncio.sleep(timeout)
            raise ProviderError("timeout", f"scripted delay of {delay:g} s is longer than the timeout")
        await asyncio.sleep(delay)


def _facts(model: str, request: ModelRequest) -> dict[str, str]:
    users = [_text(message.parts) for message in request.messages if message.role == "user"]
    asked = max((at for at, message in enumerate(request.messages) if message.role == "assistant"), default=0)
    # The results of the latest step together: calls made in parallel are answered together.
    results = [p.text for message in request.messages[asked:] for p in message.parts if isinstance(p, ToolResultPart)]
    return {
        "model": model, "system": request.system[:MAX_MATCHED], "last_user": (users[-1] if users else "")[-MAX_MATCHED:],
        "last_tool_result": "\n".join(results)[-MAX_MATCHED:],
    }  # fmt: skip


def _text(parts: tuple[Part, ...]) -> str:
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


def _matches(when: When, facts: dict[str, str], request: ModelRequest) -> dict[str, str] | None:
    """What the expressions captured, or None when something does not hold."""
    turn = sum(message.role == "assistant" for message in request.messages)
    schema = request.output.name if request.output is not None else None
    has_result = any(isinstance(part, ToolResultPart) for message in request.messages for part in message.parts)
    wanted_schema = when.output_schema
    holds = (
        when.turn in (None, turn)
        and when.has_tool_result in (None, has_result)
        and (wanted_schema is None or wanted_schema == schema or wanted_schema is (schema is not None))
    )
    if not holds:
        return None
    captured: dict[str, str] = {}
    for name, fact in facts.items():
        pattern = getattr(when, name)
        if pattern is None:
            continue
        found = _find(pattern, fact)
        if found is None:
            return None
        captured |= found
    return captured


def _find(pattern: str, text: str) -> dict[str, str] | None:
    if not pattern.startswith("re:"):
        return {} if pattern in text else None
    try:
        match = re.search(pattern.removeprefix("re:"), text)
    except re.error:
        raise ProviderError("status", "a rule's regular expression does not compile", status=400) from None
    return match.groupdict(default="") if match else None


def _answer(model: str, request: ModelRequest, reply: Reply, values: dict[str, str]) -> ModelResult:
    parts: list[Part] = []
    if reply.text is not None:
        parts.append(TextPart(text=_expand(reply.text, values)))
    if "json_value" in reply.model_fields_set:
        parts.append(TextPart(text=interface.compact(_expand(reply.json_value, values))))
    seed = hashlib.sha256(request.model_dump_json().encode()).hexdigest()[:12]  # unique within the conversation
    for index, call in enumerate(reply.tool_calls):
        arguments = _expand(call.arguments, values)
        parts.append(ToolCallPart(id=f"call_{seed}_{index}", name=call.name, arguments=arguments))
    if reply.refusal is not None:
        parts.append(TextPart(text=_expand(reply.refusal, values)))
    stop: Any = "refusal" if reply.refusal is not None else "tool_use" if reply.tool_calls else "end"
    return _result(model, request, parts, stop)


def _default(model: str, request: ModelRequest, facts: dict[str, str]) -> ModelResult:
    if request.output is not None:
        return _result(model, request, [TextPart(text=interface.compact(smallest(request.output.json_schema)))], "end")
    text = f"Scripted answer; this provider has no script. It was asked: {facts['last_user'][-200:]}"
    return _result(model, request, [TextPart(text=text)], "end")


def _result(model: str, request: ModelRequest, parts: list[Part], stop: Any) -> ModelResult:
    used = sum(len(part.model_dump_json()) for part in parts)
    usage = Usage(input_tokens=_tokens(len(request.model_dump_json())), output_tokens=_tokens(used))
    return ModelResult(parts=tuple(parts), stop=stop, usage=usage, model_observed=model)


def _tokens(characters: int) -> int:
    return max(1, -(-characters // CHARACTERS_PER_TOKEN))


def _expand(value: Any, values: dict[str, str]) -> Any:
    """Fill `${name}` in texts, at any depth; a name that nothing captured stays as it is."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), value)
    if isinstance(value, dict):
        return {key: _expand(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, values) for item in value]
    return value
