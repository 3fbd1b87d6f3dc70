"""Schemas and tools on their way to a grammar, in every protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from snapllm._requests import chat_request
from snapllm._schemas import enforceable, schema_text
from snapllm.errors import InvalidRequestError
from snapllm.params import ChatRequest
from snapllm.protocol import anthropic, openai, responses

BROKEN = {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}
MESSAGES = [{"role": "user", "content": "Hi"}]


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": MESSAGES, **fields}
    return openai.parse_chat(json.dumps(body).encode()).request


def response(**fields: Any) -> ChatRequest:
    return responses.parse(json.dumps({"model": "m", "input": "Hi", **fields}).encode()).request


def messages(**fields: Any) -> ChatRequest:
    body = {"model": "m", "max_tokens": 9, "messages": MESSAGES, **fields}
    return anthropic.parse_messages(json.dumps(body).encode()).request


def python(**fields: Any) -> ChatRequest:
    return chat_request("m", "Hi", fields)


def in_tool(schema: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}


FORMS: list[tuple[Callable[..., ChatRequest], Callable[[Any], dict[str, Any]], str]] = [
    (
        chat,
        lambda s: {"response_format": {"type": "json_schema", "json_schema": {"schema": s}}},
        "response_format.json_schema.schema",
    ),
    (chat, in_tool, "tools[0].function.parameters"),
    (
        response,
        lambda s: {"text": {"format": {"type": "json_schema", "name": "n", "schema": s}}},
        "text.format.schema",
    ),
    (
        response,
        lambda s: {"tools": [{"type": "function", "name": "f", "parameters": s}]},
        "tools[0].parameters",
    ),
    (
        messages,
        lambda s: {"output_config": {"format": {"type": "json_schema", "schema": s}}},
        "output_config.format.schema",
    ),
    (
        messages,
        lambda s: {"output_format": {"type": "json_schema", "schema": s}},
        "output_format.schema",
    ),
    (messages, lambda s: {"tools": [{"name": "f", "input_schema": s}]}, "tools[0].input_schema"),
    (python, lambda s: {"json_schema": s}, "json_schema"),
    (python, in_tool, "tools[0].function.parameters"),
]


@pytest.mark.parametrize(("parse", "form", "param"), FORMS)
def test_every_schema_is_rewritten_and_its_patterns_checked(
    parse: Callable[..., ChatRequest], form: Callable[[Any], dict[str, Any]], param: str
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": r"^\d$"}}}
    request = parse(**form(schema))
    sent = json.loads(request.json_schema) if request.json_schema else None
    told = sent or request.tools[0].function.parameters
    assert told["properties"]["a"]["pattern"] == "^[0-9]$"
    with pytest.raises(InvalidRequestError, match="pattern '\\('") as error:
        parse(**form(BROKEN))
    assert error.value.param == param


@pytest.mark.parametrize(
    ("parse", "form", "param"), [form for form in FORMS if form[2].startswith("tools")]
)
def test_a_tool_takes_an_object(
    parse: Callable[..., ChatRequest], form: Callable[[Any], dict[str, Any]], param: str
) -> None:
    with pytest.raises(InvalidRequestError, match="object") as error:
        parse(**form({"type": "string"}))
    assert error.value.param == f"{param}.type"


NAMED = {"type": "function", "name": "f"}


@pytest.mark.parametrize(
    ("parse", "tool", "choice"),
    [
        (chat, in_tool({})["tools"][0], {"type": "function", "function": {"name": "f"}}),
        (response, NAMED, NAMED),
        (messages, {"name": "f", "input_schema": {}}, {"type": "tool", "name": "f"}),
        (python, in_tool({})["tools"][0], "f"),
    ],
)
def test_a_named_tool_is_to_be_called_once(
    parse: Callable[..., ChatRequest], tool: dict[str, Any], choice: Any
) -> None:
    assert parse(tools=[tool], tool_choice=choice).tool_choice == "one"


def test_only_patterns_of_schemas_are_rewritten() -> None:
    schema = {
        "properties": {"pattern": {"type": "string", "pattern": r"^\d$"}, "enum": {"pattern": "("}},
        "default": {"pattern": "("},
        "enum": [{"pattern": "("}],
    }
    with pytest.raises(InvalidRequestError):
        enforceable(schema, "f")
    del schema["properties"]["enum"]  # type: ignore[attr-defined]
    told = enforceable(schema, "f")
    assert told["properties"]["pattern"]["pattern"] == "^[0-9]$"
    assert told["default"] == {"pattern": "("}


def test_a_pattern_that_no_grammar_says_stays_a_hint() -> None:
    schema = {"type": "string", "pattern": "^(?!a)b$"}
    assert enforceable(schema, "f") == schema


def test_a_pattern_has_a_longest_length() -> None:
    """Each character takes microseconds on the event loop."""
    long = {"type": "object", "properties": {"a": {"type": "string", "pattern": "a" * 4096}}}
    assert "a" * 4096 in schema_text(long, "x")
    long["properties"]["a"]["pattern"] += "(?!b)"
    with pytest.raises(InvalidRequestError, match="4101 characters, at most 4096") as error:
        schema_text(long, "tools[0].input_schema")
    assert error.value.param == "tools[0].input_schema"


def test_nested_patterns_are_found() -> None:
    own = {"type": "string", "pattern": r"^\d$"}
    schema = {"anyOf": [own, {"type": "array", "items": own}], "$defs": {"x": {"allOf": [own]}}}
    assert r"\\d" not in json.dumps(enforceable(schema, "f"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"prefixItems": [{}], "items": False}, {"prefixItems": [{}]}),
        ({"prefixItems": [{}], "items": True}, {"prefixItems": [{}]}),
        ({"type": "array", "items": False}, {"type": "array", "items": {}, "maxItems": 0}),
        ({"type": "array", "items": True}, {"type": "array", "items": {}}),
    ],
)
def test_items_may_be_a_yes_or_a_no(given: dict[str, Any], told: dict[str, Any]) -> None:
    assert enforceable(given, "f") == told
