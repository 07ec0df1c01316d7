"""The choice of an answer: matching, captured values, counters, determinism. No I/O."""

import json
from typing import Any

import pytest

from simulator.decide import Decision, decide
from simulator.model import Message, RequestSha256, SchemaRequest, Seen, ToolCall
from simulator.observed import Observed
from simulator.scenario import load

CALL = ToolCall("bash", {"command": "ls"}, "c1")
ASKED = (Message("system", "You are a judge."), Message("user", "Review digest abc123 now"))
ANSWERED = (*ASKED, Message("assistant", "", (CALL,)), Message("tool", "3 passed", answers="c1"))


def seen(messages: tuple[Message, ...] = ASKED, **changes: Any) -> Seen:
    given: dict[str, Any] = {"wire": "anthropic", "model": "claude-x", "request_sha256": RequestSha256("00"), **changes}
    return Seen(messages=messages, **given)


def run(when: str, reply: str = "{text: hi}", request: Seen | None = None, more: str = "") -> Decision | None:
    scenario = load(f"name: s\nrules:\n  - id: r\n    when: {when}\n    reply: {reply}\n{more}")
    return decide(scenario, request or seen(), Observed())


@pytest.mark.parametrize(
    "when",
    [
        "{}",
        "{wire: anthropic}",
        "{wire: [gemini, anthropic]}",
        "{model: claude-*}",
        "{system: judge}",
        "{last_user: digest}",
        "{last_user: 're:^Review .* now$'}",
        "{any_text: [judge, digest]}",
        "{turn: 0}",
        "{has_tool_result: false}",
        "{schema: false}",
        "{nth: 1}",
    ],
)
def test_matches(when: str) -> None:
    assert run(when) is not None


@pytest.mark.parametrize(
    "when",
    [
        "{wire: openai-*}",
        "{model: gpt-*}",
        "{system: builder}",
        "{last_user: judge}",
        "{any_text: [judge, absent]}",
        "{turn: [1, 2]}",
        "{has_tool_result: true}",
        "{last_tool_result: ''}",
        "{tools_include: bash}",
        "{schema: true}",
        "{schema: Vote}",
        "{nth: 2}",
        "{wire: anthropic, model: gpt-*}",
    ],
)
def test_does_not_match(when: str) -> None:
    assert run(when) is None


@pytest.mark.parametrize("name", ["Vote", "A vote", "approve", "true", "[Vote, approve]"])
def test_a_schema_is_known_by_name_title_or_property(name: str) -> None:
    schema = SchemaRequest("Vote", {"title": "A vote", "properties": {"approve": {}}})
    assert run(f"{{schema: {name}}}", request=seen(schema=schema)) is not None
    assert run("{schema: [Vote, other]}", request=seen(schema=schema)) is None


def test_a_conversation_with_tool_results() -> None:
    request = seen(ANSWERED, tools=("bash", "read"))
    assert run("{turn: 1, has_tool_result: true, last_tool_result: passed, tools_include: [bash, read]}", request=request)
    assert request.last_user == "Review digest abc123 now"


def test_parallel_results_are_one_batch_and_adjacent_assistant_messages_one_turn() -> None:
    request = seen(
        (
            *ANSWERED,
            Message("assistant", "thinking"),
            Message("assistant", "", (CALL, CALL)),
            Message("tool", "one", answers="c1"),
            Message("tool", "two", answers="c1"),
            Message("user", "go on"),
        )
    )
    assert request.turn == 2
    assert request.last_tool_result == "one\ntwo"


def test_captured_values_reach_json_and_tool_arguments_but_are_not_expanded_again() -> None:
    request = seen((Message("user", "digest ${model} of abc123"),))
    when = "{last_user: 're:digest (?P<odd>\\S+) of (?P<digest>[0-9a-f]+)'}"
    decision = run(when, "{json: {votes: [{digest: '${digest}'}], odd: '${odd}', n: 1}}", request)
    assert decision is not None
    assert decision.answer is not None
    assert json.loads(decision.answer.text or "") == {"votes": [{"digest": "abc123"}], "odd": "${model}", "n": 1}
    calls = run(when, "{tool_calls: [{name: bash, arguments: {command: 'echo $${HOME} ${digest} ${turn}'}}]}", request)
    assert calls is not None
    assert calls.answer is not None
    assert calls.answer.tool_calls[0].arguments == {"command": "echo ${HOME} abc123 0"}


def test_a_group_that_took_no_part_is_empty() -> None:
    decision = run("{last_user: 're:Review(?P<more> twice)?'}", "{text: '[${more}]'}")
    assert decision is not None
    assert decision.answer is not None
    assert decision.answer.text == "[]"


def test_the_first_match_wins_and_nth_counts_per_conversation() -> None:
    scenario = load("""
name: s
rules:
  - {id: once, when: {nth: 2}, reply: {text: second}}
  - {id: else, reply: {text: other}}
""")
    progress = Observed()
    other = seen((Message("user", "another conversation"),))
    rules = [decide(scenario, request, progress) for request in (seen(), other, seen(), seen())]
    assert [decision and decision.rule for decision in rules] == ["else", "else", "once", "else"]


def test_first_faults_are_used_up_per_rule_and_then_it_answers() -> None:
    scenario = load("""
name: s
rules: [{id: r, reply: {text: hi}, faults_first: [{status: 429, retry_after: 0}, {cut: true}]}]
""")
    progress = Observed()
    decisions = [decide(scenario, seen(), progress) for _ in range(3)]
    faults = [decision.fault for decision in decisions if decision]
    assert faults[0] is not None
    assert faults[1] is not None
    assert (faults[0].status, faults[1].cut, faults[2]) == (429, True, None)
    assert [decision.answer is None for decision in decisions if decision] == [True, False, False]


def test_two_processes_answer_identically_and_different_requests_get_different_ids() -> None:
    reply = "{tool_calls: [{name: a}, {name: b}]}"
    here, there = run("{}", reply), run("{}", reply)
    assert here == there
    assert here is not None
    assert here.answer is not None
    other = run("{}", reply, seen(request_sha256=RequestSha256("01")))
    assert other is not None
    assert other.answer is not None
    ids = [call.id for call in (*here.answer.tool_calls, *other.answer.tool_calls)]
    assert len({*ids, here.answer.id, other.answer.id}) == 6


def test_usage_is_computed_from_lengths_unless_the_rule_fixes_it() -> None:
    computed = run("{}", "{text: '12345'}")
    assert computed is not None
    assert computed.answer is not None
    assert (computed.answer.usage.input, computed.answer.usage.output) == (11, 2)
    fixed = run("{}", more="    usage: {input: 9, cached_input: 4, output: 3, reasoning: 1}\n")
    assert fixed is not None
    assert fixed.answer is not None
    usage = fixed.answer.usage
    assert (usage.input, usage.cached_input, usage.output, usage.reasoning) == (9, 4, 3, 1)


def test_another_model_may_be_echoed() -> None:
    decision = run("{}", more="    model_echo: '${model}-mini'\n")
    assert decision is not None
    assert decision.answer is not None
    assert decision.answer.model == "claude-x-mini"
