"""Schemas and tools on their way to a grammar, in every protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import MappingProxyType
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


@pytest.mark.parametrize("ref", ["#/nope", "#/properties/b/items", "https://example.com/x"])
def test_a_reference_that_leads_nowhere_is_named_with_its_field(ref: str) -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": ref}}}
    with pytest.raises(InvalidRequestError, match=f"{ref!r} leads nowhere") as caught:
        enforceable(schema, "tools[1].input_schema")
    assert caught.value.param == "tools[1].input_schema"


def test_null_stands_for_a_keyword_that_is_not_there() -> None:
    schema = {"type": "object", "properties": None, "required": None, "default": None}
    assert enforceable(schema, "f") == {"type": "object", "default": None}
    assert enforceable({"const": None}, "f") == {"const": None}


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


LOOP = {"$ref": "#/$defs/a"}


@pytest.mark.parametrize(
    "form", [lambda s: {"json_schema": s}, in_tool], ids=["json_schema", "tools"]
)
def test_a_schema_is_what_its_json_says(form: Callable[[Any], dict[str, Any]]) -> None:
    """Tuples, mappings and texts of other types hide nothing from the checks."""
    told = json.loads(schema_text({"type": "object", "anyOf": ({"pattern": r"^\d$"},)}, "f"))
    assert told == {"type": "object", "pattern": "^[0-9]$"}
    hidden = {"type": "object", "allOf": (LOOP, {}), "$defs": MappingProxyType({"a": LOOP})}
    with pytest.raises(InvalidRequestError, match="includes itself"):
        python(**form(hidden))
    numbered = {"type": "object", "$defs": {1: {"allOf": [LOOP, {}]}, "a": {"$ref": "#/$defs/1"}}}
    with pytest.raises(InvalidRequestError, match="includes itself"):
        python(**form({**numbered, **LOOP}))


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


within_itself: dict[str, Any] = {"type": "object"}
within_itself["properties"] = {"a": within_itself}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "object", "default": "\ud800"}, "surrogate"),
        ({"type": "object", "properties": {"\ud800": {}}}, "surrogate"),
        ({"type": "object", "default": object()}, "no value for object"),
        (deep(300), "nested too deeply"),
        (deep(3000), "nested too deeply"),
        (within_itself, "nested too deeply"),
        ({"type": "object", "maximum": 10**400}, "number is too large"),
        ({"type": "object", "enum": [{"a": -(10**400)}]}, "number is too large"),
        ({"type": "object", "default": 10**5000}, "too many digits"),
        ({"type": "object", "examples": [{str(i): 1 for i in range(10_001)}]}, "10001 members"),
    ],
    ids=range(10),
)
def test_a_schema_that_is_no_json_is_refused(schema: Any, message: str) -> None:
    for form, param in (
        (lambda s: {"json_schema": s}, "json_schema"),
        (in_tool, "tools[0].function.parameters"),
    ):
        with pytest.raises(InvalidRequestError, match=message) as error:
            python(**form(schema))
        assert error.value.param == param
        assert len(error.value.message) < 200


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"minimum": -(2**63), "maximum": 2**63 - 1}, {}),
        ({"exclusiveMinimum": -1e300, "exclusiveMaximum": 1e300}, {}),
        ({"minimum": 0, "maximum": 2**64}, {"minimum": 0}),
        ({"minimum": 2**63 - 1}, {"minimum": 2**63 - 2}),
        ({"maximum": -1e300}, {"maximum": 2 - 2**63}),
        (
            {"maxLength": 2**32 + 5, "minItems": 2**32},
            {"maxLength": 2**31 - 1, "minItems": 2**31 - 1},
        ),
    ],
)
def test_numbers_fit_into_those_of_llama_cpp(given: dict[str, Any], told: dict[str, Any]) -> None:
    """Which cuts off what is too large: a longest length of 2**32 + 5 was one of 5."""
    assert enforceable(given, "f") == told
