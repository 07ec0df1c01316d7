"""The scenario file: what it may say, checked in one go, as frozen values.

`load` is called at start and by PUT /_sim/scenario. Refuses what it does not know, with every problem at once and
each naming its rule and field. Pure; matching is in `matching`, the choice of an answer in `decide`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import yaml

from simulator import template
from simulator.faults import KINDS, STATUSES, Fault
from simulator.fields import Fields, kind_of
from simulator.model import WIRE_NAMES

MAX_SECONDS = 3600.0
"""Bound of delay, hang and retry_after: longer is a typing mistake."""

TEXT_FIELDS = ("system", "last_user", "any_text", "last_tool_result")
_WHEN = ("wire", "model", *TEXT_FIELDS, "tools_include", "has_tool_result", "schema", "turn", "nth")
_REPLY = ("text", "json", "tool_calls", "refusal", "stop", "fault")
_EXCLUSIVE = (
    ("text", "json"),
    ("json", "tool_calls"),
    ("refusal", "text"),
    ("refusal", "json"),
    ("refusal", "tool_calls"),
)
_FAULT = (*KINDS, "retry_after", "message")
_RULE = ("id", "when", "reply", "usage", "delay", "model_echo", "faults_first")
_REGEX = "re:"


class ScenarioError(Exception):
    """The scenario is not usable; `problems` has one sentence per mistake."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class TextTest:
    """A test on a text: a substring, or a regular expression whose named groups are captured."""

    substring: str = ""
    regex: re.Pattern[str] | None = None

    def search(self, text: str) -> Mapping[str, str] | None:
        """What was captured (a group that took no part is empty), or None when the text does not match."""
        if self.regex is None:
            return {} if self.substring in text else None
        found = self.regex.search(text)
        return None if found is None else found.groupdict(default="")


@dataclass(frozen=True)
class When:
    """All that is set must hold. Empty and None mean: not asked."""

    wires: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    texts: tuple[tuple[str, TextTest], ...] = ()
    tools_include: tuple[str, ...] = ()
    has_tool_result: bool | None = None
    schema: tuple[str, ...] | bool | None = None
    turns: tuple[int, ...] = ()
    nth: int | None = None

    @property
    def captures(self) -> tuple[str, ...]:
        return tuple(name for _, test in self.texts if test.regex is not None for name in test.regex.groupindex)


@dataclass(frozen=True)
class CallTemplate:
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class ReplyTemplate:
    """What to answer, with placeholders. JSON is kept as text only after expansion, so it stays a value here."""

    text: str | None = None
    json: Any = None
    has_json: bool = False
    tool_calls: tuple[CallTemplate, ...] = ()
    refusal: str | None = None
    cut_short: bool = False
    """`stop: length`: the finish reason says that the output limit was hit."""
    fault: Fault | None = None


@dataclass(frozen=True)
class UsageTemplate:
    """What a rule fixes of the usage; None is computed from the length of the texts."""

    input: int | None = None
    output: int | None = None
    cached_input: int = 0
    reasoning: int = 0


@dataclass(frozen=True)
class Rule:
    id: str
    when: When
    reply: ReplyTemplate
    usage: UsageTemplate = UsageTemplate()
    delay: float = 0.0
    model_echo: str | None = None
    faults_first: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Scenario:
    name: str
    rules: tuple[Rule, ...] = field(default=())


def load(text: str) -> Scenario:
    """Reads YAML (or JSON, its subset). Raises ScenarioError with every problem found."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScenarioError([f"scenario: not YAML: {error}"]) from error
    problems: list[str] = []
    top = Fields("scenario", document, ("name", "rules"), problems)
    name = top.text("name")
    if not name:
        top.problem("name", "expected a name")
    rules = [_rule(number, value, problems) for number, value in enumerate(top.items("rules"), start=1)]
    if not rules:
        top.problem("rules", "expected at least one rule")
    for rule_id, count in Counter(rule.id for rule in rules).items():
        if count > 1:
            problems.append(f"rule '{rule_id}'.id: used by {count} rules, must be unique")
    if problems:
        raise ScenarioError(problems)
    return Scenario(name or "", tuple(rules))


def _rule(number: int, value: Any, problems: list[str]) -> Rule:
    rule_id = value.get("id") if isinstance(value, dict) else None
    where = f"rule '{rule_id}'" if isinstance(rule_id, str) and rule_id else f"rule #{number}"
    fields = Fields(where, value, _RULE, problems)
    if not fields.text("id") and "id" not in fields:
        fields.problem("id", "expected an id")
    when = _when(Fields(f"{where}.when", fields.values.get("when", {}), _WHEN, problems))
    if "reply" in fields:
        reply = _reply(Fields(f"{where}.reply", fields.values["reply"], _REPLY, problems))
    else:
        fields.problem("reply", "expected one of text, json, tool_calls, refusal, fault")
        reply = ReplyTemplate()
    faults_first = tuple(
        _fault(Fields(f"{where}.faults_first[{at}]", fault, _FAULT, problems))
        for at, fault in enumerate(fields.items("faults_first"))
    )
    if faults_first and when.nth is not None:
        # Which of both counts a faulted attempt would be anyone's guess.
        fields.problem("faults_first", "cannot be combined with when.nth; use rules with nth and reply.fault instead")
    rule = Rule(
        id=str(rule_id or f"#{number}"),
        when=when,
        reply=reply,
        usage=_usage(fields, problems),
        delay=fields.number("delay", MAX_SECONDS) or 0.0,
        model_echo=fields.text("model_echo"),
        faults_first=faults_first,
    )
    _check_placeholders(rule, fields)
    return rule


def _when(fields: Fields) -> When:
    wires = fields.strings("wire")
    for wire in wires:
        if not any(fnmatchcase(name, wire) for name in WIRE_NAMES):
            fields.problem("wire", f"'{wire}' matches none of {', '.join(WIRE_NAMES)}")
    schema: tuple[str, ...] | bool | None = None
    if isinstance(fields.values.get("schema"), bool):
        schema = fields.flag("schema")
    elif "schema" in fields:
        schema = fields.strings("schema")
    when = When(
        wires=wires,
        models=fields.strings("model"),
        texts=tuple((name, test) for name in TEXT_FIELDS for test in _text_tests(fields, name)),
        tools_include=fields.strings("tools_include"),
        has_tool_result=fields.flag("has_tool_result"),
        schema=schema,
        turns=fields.integers("turn", least=0),
        nth=fields.integer("nth", least=1),
    )
    for name, count in Counter(when.captures).items():
        if name in template.BUILTINS:
            fields.problem("captures", f"group '{name}' has the name of a built-in value; rename it")
        if count > 1:
            fields.problem("captures", f"group '{name}' is captured by {count} expressions; use one name once")
    return when


def _text_tests(fields: Fields, name: str) -> list[TextTest]:
    tests = []
    for value in fields.strings(name):
        if not value.startswith(_REGEX):
            if "(?P<" in value:
                fields.problem(name, "looks like a regular expression; begin it with 're:'")
            tests.append(TextTest(substring=value))
            continue
        try:
            tests.append(TextTest(regex=re.compile(value.removeprefix(_REGEX))))
        except re.error as error:
            fields.problem(name, f"is no regular expression: {error}")
    return tests


def _reply(fields: Fields) -> ReplyTemplate:
    if not any(name in fields for name in ("text", "json", "tool_calls", "refusal", "fault")):
        fields.problem("text", "expected one of text, json, tool_calls, refusal, fault")
    for one, other in _EXCLUSIVE:
        if one in fields and other in fields:
            fields.problem(one, f"cannot be combined with {other}")
    stop = fields.text("stop")
    if stop not in (None, "length"):
        fields.problem("stop", f"expected 'length' (or leave it out), found '{stop}'")
    fault = None
    if "fault" in fields:
        fault = _fault(Fields(f"{fields.where}.fault", fields.values["fault"], _FAULT, fields.problems))
    json_value = fields.values.get("json")
    if "json" in fields:
        try:
            json.dumps(json_value)
        except (TypeError, ValueError) as error:  # YAML has dates and sets, JSON has not
            fields.problem("json", f"is not JSON: {error}; quote it")
    return ReplyTemplate(
        text=fields.text("text"),
        json=json_value,
        has_json="json" in fields,
        tool_calls=tuple(_tool_call(fields, at, value) for at, value in enumerate(fields.items("tool_calls"))),
        refusal=fields.text("refusal"),
        cut_short=stop == "length",
        fault=fault,
    )


def _tool_call(reply: Fields, at: int, value: Any) -> CallTemplate:
    fields = Fields(f"{reply.where}.tool_calls[{at}]", value, ("name", "arguments"), reply.problems)
    name = fields.text("name")
    if not name:
        fields.problem("name", "expected the tool's name")
    arguments = fields.values.get("arguments", {})
    if not isinstance(arguments, dict):
        fields.problem("arguments", f"expected a mapping, found {kind_of(arguments)}")
        arguments = {}
    try:
        json.dumps(arguments)
    except (TypeError, ValueError) as error:
        fields.problem("arguments", f"is not JSON: {error}; quote it")
    return CallTemplate(name or "", arguments)


def _fault(fields: Fields) -> Fault:
    chosen = [kind for kind in KINDS if kind in fields]
    if len(chosen) != 1:
        fields.problem("status", f"expected exactly one of {', '.join(KINDS)}, found {', '.join(chosen) or 'none'}")
    for name in ("retry_after", "message"):
        if name in fields and "status" not in fields:
            fields.problem(name, "only goes with status")
    status = fields.integer("status", least=400)
    if status is not None and status not in STATUSES:
        fields.problem("status", f"expected one of {', '.join(map(str, STATUSES))}, found {status}")
    for name in ("cut", "garbage", "schema_violation", "truncated_args"):
        if fields.flag(name) is False:
            fields.problem(name, "expected true (or leave it out)")
    return Fault(
        status=status,
        retry_after=fields.number("retry_after", MAX_SECONDS),
        message=fields.text("message"),
        hang=fields.number("hang", MAX_SECONDS),
        cut=bool(fields.flag("cut")),
        garbage=bool(fields.flag("garbage")),
        schema_violation=bool(fields.flag("schema_violation")),
        truncated_args=bool(fields.flag("truncated_args")),
    )


def _usage(rule: Fields, problems: list[str]) -> UsageTemplate:
    if "usage" not in rule:
        return UsageTemplate()
    allowed = ("input", "output", "cached_input", "reasoning")
    fields = Fields(f"{rule.where}.usage", rule.values["usage"], allowed, problems)
    counts = {name: fields.integer(name, least=0) for name in allowed}
    for part, whole in (("cached_input", "input"), ("reasoning", "output")):
        if (counts[part] or 0) > (counts[whole] or 0):
            fields.problem(part, f"is part of {whole} and cannot be more than it; set {whole} too")
    return UsageTemplate(counts["input"], counts["output"], counts["cached_input"] or 0, counts["reasoning"] or 0)


def _check_placeholders(rule: Rule, fields: Fields) -> None:
    """A placeholder nobody captures would fail in the middle of a run; it is refused here instead."""
    known = {*template.BUILTINS, *rule.when.captures}
    replies = [rule.reply.text, rule.reply.json, rule.reply.refusal, rule.model_echo]
    for name in template.names([*replies, *(dict(call.arguments) for call in rule.reply.tool_calls)]):
        if name not in known:
            hint = f"nothing captures it (known: {', '.join(sorted(known))}); write '$${{{name}}}' to mean it literally"
            fields.problem("reply", f"${{{name}}}: {hint}")
