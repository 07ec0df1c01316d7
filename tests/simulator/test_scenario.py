"""What a scenario may say, and that each mistake is named by its rule and field."""

import pytest

from simulator.scenario import ScenarioError, load


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ScenarioError) as caught:
        load(text)
    return caught.value.problems


def one_rule(body: str) -> str:
    return f"name: s\nrules:\n  - {{id: r, {body}}}\n"


def test_a_full_scenario_is_read() -> None:
    scenario = load("""
name: demo
rules:
  - id: first
    when:
      {wire: [anthropic, openai-*], model: claude-*, system: judge, last_user: 're:(?P<digest>[0-9a-f]{8})',
       tools_include: bash, has_tool_result: false, schema: Vote, turn: [0, 1], nth: 2}
    reply: {json: {digest: '${digest}'}}
    usage: {input: 1200, output: 300, cached_input: 1000, reasoning: 20}
    delay: 0.2
    model_echo: other
  - id: second
    reply: {tool_calls: [{name: bash, arguments: {command: ls}}], text: look}
    faults_first: [{status: 429, retry_after: 0}, {status: 529}]
""")
    first, second = scenario.rules
    assert (scenario.name, first.id, first.when.turns, first.when.captures) == ("demo", "first", (0, 1), ("digest",))
    assert (first.usage.input, first.usage.cached_input, first.delay, first.model_echo) == (1200, 1000, 0.2, "other")
    assert [fault.status for fault in second.faults_first] == [429, 529]
    assert second.faults_first[0].retry_after == 0
    assert second.faults_first[1].retry_after is None


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("reply: {text: 1}", "rule 'r'.reply.text: expected a string, found a number"),
        ("reply: {}", "rule 'r'.reply.text: expected one of text, json, tool_calls, refusal, fault"),
        ("when: {}", "rule 'r'.reply: expected one of"),
        ("reply: {text: a, json: {}}", "rule 'r'.reply.text: cannot be combined with json"),
        ("reply: {refusal: a, text: a}", "rule 'r'.reply.refusal: cannot be combined with text"),
        ("reply: {text: a, stop: end}", "rule 'r'.reply.stop: expected 'length'"),
        ("reply: {json: 2026-01-01}", "rule 'r'.reply.json: is not JSON"),
        ("reply: {text: '${who}'}", "rule 'r'.reply: ${who}: nothing captures it"),
        ("reply: {tool_calls: [{arguments: {}}]}", "rule 'r'.reply.tool_calls[0].name: expected the tool's name"),
        ("reply: {tool_calls: [{name: a, arguments: b}]}", "rule 'r'.reply.tool_calls[0].arguments: expected a mapping"),
        ("reply: {fault: {}}", "rule 'r'.reply.fault.status: expected exactly one of"),
        ("reply: {fault: {status: 418}}", "rule 'r'.reply.fault.status: expected one of 400,"),
        ("reply: {fault: {cut: true, hang: 1}}", "rule 'r'.reply.fault.status: expected exactly one of"),
        ("reply: {fault: {cut: false}}", "rule 'r'.reply.fault.cut: expected true"),
        ("reply: {fault: {cut: true, retry_after: 1}}", "rule 'r'.reply.fault.retry_after: only goes with status"),
        ("reply: {fault: {hang: -1}}", "rule 'r'.reply.fault.hang: expected a number from 0 to 3600"),
        ("reply: {text: a}, faults_first: [{}]", "rule 'r'.faults_first[0].status: expected exactly one of"),
        ("reply: {text: a}, when: {wire: claude}", "rule 'r'.when.wire: 'claude' matches none of anthropic,"),
        ("reply: {text: a}, when: {systm: x}", "rule 'r'.when.systm: unknown field; known are wire,"),
        ("reply: {text: a}, when: {turn: -1}", "rule 'r'.when.turn: expected an integer of at least 0"),
        ("reply: {text: a}, when: {nth: [1]}", "rule 'r'.when.nth: expected one integer"),
        ("reply: {text: a}, when: {has_tool_result: 1}", "rule 'r'.when.has_tool_result: expected true or false"),
        ("reply: {text: a}, when: {system: 're:('}", "rule 'r'.when.system: is no regular expression"),
        ("reply: {text: a}, when: {system: '(?P<a>x)'}", "rule 'r'.when.system: looks like a regular expression"),
        ("reply: {text: a}, when: {system: 're:(?P<model>x)'}", "rule 'r'.when.captures: group 'model' has the name"),
        (
            "reply: {text: a}, when: {system: 're:(?P<a>x)', last_user: 're:(?P<a>y)'}",
            "rule 'r'.when.captures: group 'a' is captured by 2 expressions",
        ),
        (
            "reply: {text: a}, when: {nth: 1}, faults_first: [{status: 429}]",
            "rule 'r'.faults_first: cannot be combined with when.nth",
        ),
        ("reply: {text: a}, usage: {input: 5, cached_input: 6}", "rule 'r'.usage.cached_input: is part of input"),
        ("reply: {text: a}, usage: {tokens: 5}", "rule 'r'.usage.tokens: unknown field"),
        ("reply: {text: a}, delay: soon", "rule 'r'.delay: expected a number"),
        ("reply: [a]", "rule 'r'.reply: expected a mapping, found a list"),
    ],
)
def test_a_mistake_is_named_by_rule_and_field(body: str, problem: str) -> None:
    found = problems(one_rule(body))
    assert [line for line in found if line.startswith(problem)], found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "scenario: not YAML"),
        ("[]", "scenario: expected a mapping, found a list"),
        ("name: s", "scenario.rules: expected at least one rule"),
        ("rules: [{id: a, reply: {text: x}}]", "scenario.name: expected a name"),
        ("name: s\nrules: [{reply: {text: x}}]", "rule #1.id: expected an id"),
        ("name: s\nrules: [7]", "rule #1: expected a mapping, found a number"),
        ("name: s\nrules: [{id: a, reply: {text: x}}, {id: a, reply: {text: y}}]", "rule 'a'.id: used by 2 rules"),
    ],
)
def test_a_mistake_outside_rules_is_named(text: str, problem: str) -> None:
    found = problems(text)
    assert [line for line in found if line.startswith(problem)], found


def test_all_mistakes_are_reported_at_once() -> None:
    assert len(problems(one_rule("reply: {text: 1}, delay: x, when: {turn: a}"))) == 3
