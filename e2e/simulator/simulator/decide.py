"""Which answer does a request get? Pure, but for the two counters handed in as `Progress`.

Called by `app` once per call. Makes the same answer, ids included, from the same scenario, request and progress,
in whichever process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from simulator.faults import VIOLATION, Fault
from simulator.matching import match
from simulator.model import Answer, ConversationKey, Seen, Stop, ToolCall, Usage
from simulator.scenario import Rule, Scenario, UsageTemplate
from simulator.template import expand, expand_value

CHARACTERS_PER_TOKEN = 4
"""The rule of thumb all vendors publish for English; only its determinism matters here."""

DEFAULT_TEXT = "Simulated reply."
"""What a fault that needs a reply to spoil spoils, when its rule has none."""


class Progress(Protocol):
    """What a process remembers between calls; both methods count the call they are asked about."""

    def occurrence(self, rule: str, conversation: ConversationKey) -> int:
        """How many times the rule has matched in this conversation, this time included."""

    def next_fault(self, rule: str, faults: Sequence[Fault]) -> Fault | None:
        """The next of the rule's first faults that has not been used yet."""


@dataclass(frozen=True)
class Decision:
    """`answer` is None when the fault replaces it (a status, a hang)."""

    rule: str
    answer: Answer | None
    fault: Fault | None
    delay: float


def conversation_key(seen: Seen) -> ConversationKey:
    """Stays the same while a conversation grows: wire, model, system text and the first user text."""
    parts = json.dumps([seen.wire, seen.model, seen.system, seen.first_user])
    return ConversationKey(hashlib.sha256(parts.encode()).hexdigest())


def decide(scenario: Scenario, seen: Seen, progress: Progress) -> Decision | None:
    """The first rule that matches decides; None when none does."""
    for rule in scenario.rules:
        captured = match(rule.when, seen)
        if captured is None:
            continue
        if rule.when.nth is not None and progress.occurrence(rule.id, conversation_key(seen)) != rule.when.nth:
            continue
        fault = progress.next_fault(rule.id, rule.faults_first) or rule.reply.fault
        if fault is not None and (fault.status is not None or fault.hang is not None):
            return Decision(rule.id, None, fault, rule.delay)
        return Decision(rule.id, _answer(rule, seen, captured, fault), fault, rule.delay)
    return None


def _answer(rule: Rule, seen: Seen, captured: Mapping[str, str], fault: Fault | None) -> Answer:
    values = {
        **captured,
        "last_tool_result": seen.last_tool_result,
        "last_user": seen.last_user,
        "model": seen.model,
        "turn": str(seen.turn),
        "wire": seen.wire,
    }
    identity = hashlib.sha256(f"{rule.id}\n{seen.request_sha256}".encode()).hexdigest()
    calls = tuple(
        ToolCall(call.name, expand_value(call.arguments, values), _call_id(identity, at))
        for at, call in enumerate(rule.reply.tool_calls)
    )
    text = None if rule.reply.text is None else expand(rule.reply.text, values)
    if rule.reply.has_json:
        text = json.dumps(expand_value(rule.reply.json, values), ensure_ascii=False)
    refusal = None if rule.reply.refusal is None else expand(rule.reply.refusal, values)
    if text is None and refusal is None and not calls:
        text = DEFAULT_TEXT
    answer = Answer(
        model=seen.model if rule.model_echo is None else expand(rule.model_echo, values),
        id=identity[:24],
        text=text,
        tool_calls=calls,
        usage=Usage(0, 0),
        stop=_stop(rule, bool(calls), refusal),
        refusal=refusal,
    )
    if fault is not None and fault.schema_violation:
        answer = replace(answer, text=VIOLATION, tool_calls=(), refusal=None, stop="end")
    if fault is not None and fault.truncated_args:
        answer = replace(answer, truncated_arguments=True, stop="length")
    return replace(answer, usage=_usage(rule.usage, seen, answer))


def _stop(rule: Rule, has_calls: bool, refusal: str | None) -> Stop:
    if rule.reply.cut_short:
        return "length"
    if refusal is not None:
        return "refusal"
    return "tool_calls" if has_calls else "end"


def _call_id(identity: str, at: int) -> str:
    """Unique within a conversation, since the request it is made from grows with each turn."""
    return hashlib.sha256(f"{identity}\n{at}".encode()).hexdigest()[:24]


def _usage(fixed: UsageTemplate, seen: Seen, answer: Answer) -> Usage:
    return Usage(
        input=input_tokens(seen) if fixed.input is None else fixed.input,
        output=_output_tokens(answer) if fixed.output is None else fixed.output,
        cached_input=fixed.cached_input,
        reasoning=fixed.reasoning,
    )


def input_tokens(seen: Seen) -> int:
    """At least 1, from the length of all texts, calls and declarations."""
    calls = [call for message in seen.messages for call in message.tool_calls]
    return _tokens(len(seen.any_text) + sum(map(_call_length, calls)) + seen.tools_length)


def _output_tokens(answer: Answer) -> int:
    return _tokens(len(answer.text or "") + len(answer.refusal or "") + sum(map(_call_length, answer.tool_calls)))


def _call_length(call: ToolCall) -> int:
    return len(call.name) + len(json.dumps(call.arguments))


def _tokens(characters: int) -> int:
    return max(1, -(-characters // CHARACTERS_PER_TOKEN))
