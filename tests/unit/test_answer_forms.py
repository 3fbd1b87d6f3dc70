"""The forms that OpenAI's clients ask for, by the names of llama-server and vLLM, too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from snapllm.errors import InvalidRequestError
from snapllm.params import ChatRequest, CompletionRequest
from snapllm.protocol import openai, openai_completions

TOOL = {"type": "function", "function": {"name": "f"}}
OBJECT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}


def parse(**fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return openai.parse_chat(json.dumps(body).encode()).request


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"json_schema": OBJECT}, "json_schema"),
        ({"guided_json": OBJECT}, "guided_json"),
        ({"guided_json": json.dumps(OBJECT)}, "guided_json"),
        ({"structured_outputs": {"json": OBJECT}}, "structured_outputs.json"),
        ({"response_format": {"type": "json_object", "schema": OBJECT}}, "response_format.schema"),
        ({"response_format": {"type": "json_schema", "schema": OBJECT}}, "response_format.schema"),
        ({"response_format": {"type": "json_object", "value": OBJECT}}, "response_format.value"),
    ],
)
def test_schemas_are_read_by_all_their_names(fields: dict[str, Any], where: str) -> None:
    request = parse(**fields)
    assert json.loads(request.json_schema) == OBJECT
    assert request.json_schema_field == where


def test_any_object_and_texts_to_choose_from_are_forms_too() -> None:
    assert json.loads(parse(structured_outputs={"json_object": True}).json_schema) == {
        "type": "object"
    }
    assert parse(grammar='root ::= "a"').sampling.grammar == 'root ::= "a"'
    assert parse(structured_outputs={}).sampling.grammar == ""


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["yes", "no"], '("no" | "yes")'),
        (['"no"', '"no"'], '("\\U00000022no\\U00000022")'),
        (["bar", "bad", "ba", "b"], '("b" ("a" ("d" | "r")?)?)'),
        (["A 10", "A 2", "B"], '("A " ("10" | "2") | "B")'),
    ],
)
def test_texts_to_choose_from_are_a_grammar(texts: list[str], expected: str) -> None:
    for fields in ({"guided_choice": texts}, {"structured_outputs": {"choice": texts}}):
        assert parse(**fields).sampling.grammar == f"root ::= {expected}"


def test_texts_that_begin_with_each_other_are_not_nested_without_end() -> None:
    grammar = parse(guided_choice=["a" * i for i in range(1, 300)]).sampling.grammar
    assert grammar.count("(") < 60


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_regex": "(a"}, "guided_regex"),
        ({"guided_regex": "a" * 4097}, "guided_regex"),
        ({"guided_regex": ["a"]}, "guided_regex"),
        ({"guided_grammar": "start: x"}, "guided_grammar"),
        ({"structured_outputs": {"regex": "(?=a)b"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs.regex"),
        ({"structured_outputs": {"grammar": "?start: x"}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": [""]}, "guided_choice[0]"),
        ({"guided_choice": ["x" * 4000] * 17}, "guided_choice"),
        ({"guided_choice": ["x", "a\0b"]}, "guided_choice[1]"),
        ({"guided_choice": ["x"], "tools": [TOOL]}, "guided_choice"),
        ({"structured_outputs": {"choice": ["x"]}, "tools": [TOOL]}, "structured_outputs.choice"),
        ({"grammar": 'root ::= "a"', "tools": [TOOL]}, "grammar"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": {"$ref": "#/no"}}, "guided_json"),
        ({"grammar": 'root ::= "\0"'}, "grammar"),
        ({"grammar": 'root ::= "a"', "json_schema": OBJECT}, "grammar"),
        ({"guided_json": OBJECT, "response_format": {"type": "json_object"}}, "guided_json"),
    ],
)
def test_what_cannot_be_held_to_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        parse(**fields)
    assert error.value.param == param


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": OBJECT}}},
            "response_format.json_schema.schema",
        ),
        ({"json_schema": OBJECT}, "json_schema"),
        ({"guided_json": OBJECT}, "guided_json"),
        ({"structured_outputs": {"json": OBJECT}}, "structured_outputs.json"),
    ],
)
def test_schemas_are_forms_of_completions(fields: dict[str, Any], where: str) -> None:
    request = completion(**fields)
    assert json.loads(request.json_schema)["type"] == "object"
    assert request.json_schema_field == where


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_choice": [""]}, "guided_choice[0]"),
        ({"guided_choice": ["a"], "guided_regex": "a"}, "guided_regex"),
        ({"guided_json": OBJECT, "grammar": 'root ::= "a"'}, "grammar"),
    ],
)
def test_plain_completions_refuse_what_chats_do(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        completed(**fields)
    assert error.value.param == param


def completion(**fields: Any) -> CompletionRequest:
    body = json.dumps({"model": "m", "prompt": "x"} | fields).encode()
    return openai_completions.parse(body).requests[0]


def completed(**fields: Any) -> str:
    """The grammar of a completion."""
    return completion(**fields).sampling.grammar


@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        ({"response_format": {"type": "text"}, "structured_outputs": {}}, ""),
        ({"grammar": 'root ::= "a"'}, 'root ::= "a"'),
        ({"guided_grammar": 'root ::= "a"'}, 'root ::= "a"'),
        ({"structured_outputs": {"grammar": 'root ::= "a"'}}, 'root ::= "a"'),
        ({"ebnf": 'root ::= "a"'}, 'root ::= "a"'),
        ({"regex": "a"}, "root ::= [a]"),
        ({"guided_choice": ["a", "b"]}, 'root ::= ("a" | "b")'),
        ({"structured_outputs": {"choice": ["a"]}}, 'root ::= ("a")'),
        ({"guided_regex": r"^yes|no\.$"}, r"root ::= [y][e][s] | [n][o][.]"),
        ({"structured_outputs": {"regex": "(?:a|b)+"}}, "root ::= ([a]|[b])+"),
    ],
)
def test_grammars_texts_and_patterns_are_forms_of_chats_and_of_completions(
    fields: dict[str, Any], grammar: str
) -> None:
    assert completed(**fields) == parse(**fields).sampling.grammar == grammar


def test_what_a_grammar_holds_is_said_without_thinking() -> None:
    assert parse(reasoning_effort="high", guided_json=OBJECT).thinking
    assert not parse(reasoning_effort="high", guided_choice=["a"]).thinking
    assert parse(guided_choice=["a"], tools=[TOOL], tool_choice="none").sampling.grammar


def test_all_tokens_are_the_likeliest_with_a_top_k_of_minus_one() -> None:
    assert parse(top_k=-1).sampling.top_k == 0
    with pytest.raises(InvalidRequestError):
        parse(top_k=-2)


def test_no_alternatives_may_be_asked_for_without_log_probabilities() -> None:
    assert parse(top_logprobs=0, logprobs=False).sampling.num_logprobs < 0
    with pytest.raises(InvalidRequestError):
        parse(top_logprobs=1, logprobs=False)
