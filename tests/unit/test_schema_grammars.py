"""Grammars of schemas: what they allow is what the schemas say, in what llama.cpp would forget."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from snapllm import _core
from snapllm._schemas import enforceable, schema_text
from snapllm.errors import InvalidRequestError
from tests.grammar_answers import Grammar, meets


def answers(schema: Any, number: int = 200) -> list[Any]:
    grammar = Grammar(_core.schema_grammar(schema_text(schema, "f")))
    return [json.loads(text) for text in grammar.texts(number)]


def held(schema: Any) -> list[Any]:
    found = answers(schema)
    for answer in found:
        assert meets(answer, schema), answer
    return found


TEXT = {"type": "string", "maxLength": 5}
NUMBER = {"type": "integer"}
LONG = {"type": "string", "minLength": 3}
COLOR = {"enum": ["red", "green"]}
NODE: dict[str, Any] = {
    "type": "object",
    "properties": {"name": TEXT, "next": {"$ref": "#/$defs/Node", "description": "the next"}},
    "required": ["name"],
}


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


SCHEMAS: dict[str, Any] = {
    "anyOf of what is required": {
        "type": "object",
        "properties": {"url": TEXT, "path": TEXT},
        "anyOf": [{"required": ["url"]}, {"required": ["path"]}],
    },
    "oneOf beside properties": {
        "type": "object",
        "properties": {"k": TEXT},
        "required": ["k"],
        "oneOf": [an_object(a=NUMBER), an_object(b=NUMBER)],
    },
    "anyOf beside values": {"enum": ["a", "b"], "anyOf": [{"type": "string"}, NUMBER]},
    "anyOf beside bounds": {"maxLength": 2, "anyOf": [{"type": "string"}, {"const": "abc"}]},
    "anyOf and oneOf": {
        "anyOf": [an_object(a=NUMBER), an_object(b=NUMBER)],
        "oneOf": [an_object(c=TEXT), an_object(d=TEXT)],
    },
    "nested anyOf": {
        "type": ["string", "integer"],
        "anyOf": [{"anyOf": [{"type": "string"}, {"type": "null"}]}, {"minimum": 100}],
    },
    "references beside a type": {
        "type": "object",
        "oneOf": [{"$ref": "#/$defs/Node"}, {"$ref": "#/$defs/Leaf"}],
        "$defs": {"Node": NODE, "Leaf": an_object(leaf=NUMBER)},
    },
    "allOf of texts": an_object(x={"allOf": [TEXT]}, y={"allOf": [TEXT, {"minLength": 3}]}),
    "allOf of a reference": {
        **an_object(x={"allOf": [{"$ref": "#/$defs/Color"}, {"description": "x"}]}),
        "$defs": {"Color": COLOR},
    },
    "allOf of anyOf": {"allOf": [{"anyOf": [TEXT, NUMBER]}, {"anyOf": [NUMBER, {"type": "null"}]}]},
    "allOf beside properties": {
        **an_object(a=NUMBER),
        "allOf": [an_object(b=TEXT), {"$ref": "#/$defs/Base"}],
        "$defs": {"Base": an_object(c=TEXT)},
    },
    "allOf of arrays": {
        "allOf": [
            {"type": "array", "items": {"type": "number"}},
            {"items": {"type": ["integer", "string"]}, "minItems": 1, "maxItems": 3},
        ]
    },
    "allOf that meets in a property": {
        "allOf": [an_object(a={"type": ["string", "null"]}), an_object(a=LONG)]
    },
    "allOf of values": {"allOf": [{"enum": [1, True, "a"]}, {"enum": ["a", True, None]}]},
    "required alone": {"type": "object", "required": ["a"]},
    "required of further properties": {
        "type": "object",
        "additionalProperties": NUMBER,
        "required": ["b"],
    },
    "further properties": {
        "type": "object",
        "properties": {"a": NUMBER, "ab-c": TEXT, "-": NUMBER},
        "additionalProperties": {"type": ["string", "null"]},
    },
    "required beside properties": {
        "type": "object",
        "properties": {"a": NUMBER},
        "required": ["a", "b"],
    },
    "beside a reference": {
        **an_object(x={"$ref": "#/$defs/S", "maxLength": 3}),
        "$defs": {"S": {"type": "string"}},
    },
    "beside a reference that leads back": {
        **an_object(x={"$ref": "#/$defs/Node", "required": ["next"]}),
        "$defs": {"Node": NODE},
    },
    "to the root": {"type": "object", "properties": {"a": NUMBER, "child": {"$ref": "#"}}},
    "to the root, of arrays": {"anyOf": [NUMBER, {"type": "array", "items": {"$ref": "#"}}]},
    "escaped": {
        **an_object(
            a={"$ref": "#/definitions/Foo%3Cstring%3E"},
            b={"$ref": "#/definitions/a~1b"},
            c={"$ref": "#/definitions/a~0b"},
        ),
        "definitions": {"Foo<string>": TEXT, "a/b": NUMBER, "a~b": COLOR},
    },
    "an anchor": {
        **an_object(a={"$ref": "#foo"}, b={"$ref": "https://x.org/s#/$defs/F"}),
        "$id": "https://x.org/s",
        "$defs": {"F": {"$anchor": "foo", **TEXT}},
    },
    "names that are alike": {
        **an_object(a={"$ref": "#/$defs/x_y"}, b={"$ref": "#/$defs/x.y"}),
        "$defs": {"x_y": TEXT, "x.y": NUMBER},
    },
    "to what is rewritten": {
        **an_object(a={"allOf": [TEXT, {}]}, b={"$ref": "#/properties/a/allOf/0"}),
    },
    "several that get names": {
        "properties": {
            "a": {
                "properties": {
                    "a": {"anyOf": [{"type": "null", "maximum": 1}, NUMBER], "minLength": 1},
                    "b": {"type": "object", "required": ["c"], "$ref": "#/$defs/Z"},
                },
                "anyOf": [{"minLength": 0}, {"anyOf": [{"required": ["b"]}, {"type": "null"}]}],
            }
        },
        "required": ["a"],
        "$defs": {"Z": an_object(**{name: {"anyOf": [TEXT, NUMBER]} for name in "cdefgh"})},
    },
    "true and false": {
        "type": "object",
        "properties": {"a": True, "b": False, "c": {"anyOf": [False, NUMBER]}},
        "required": ["c"],
    },
    "false for items": an_object(a={"type": ["array", "null"], "items": {"anyOf": [False]}}),
    "values that do not fit": {"type": "string", "enum": ["a", 1, "bb"]},
    "values that are too long": {"enum": ["a", "bbbb"], "maxLength": 2},
    "two bounds of a kind": {"type": "integer", "minimum": 3, "exclusiveMinimum": 7, "maximum": 12},
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_answers_are_what_the_schema_says(schema: Any) -> None:
    assert held(schema)


def test_all_that_is_allowed_may_come() -> None:
    """One branch is not held for the whole."""
    found = held(SCHEMAS["anyOf of what is required"])
    assert {*map(frozenset, found)} == {*map(frozenset, (["url"], ["path"], ["url", "path"]))}
    assert {*map(str, held(SCHEMAS["allOf of values"]))} == {"True", "a"}
    assert {*held(SCHEMAS["values that do not fit"])} == {"a", "bb"}
    assert any("child" in each.get("child", {}) for each in held(SCHEMAS["to the root"]))
    assert any(each["a"] == [] for each in held(SCHEMAS["false for items"]))
    assert any("x" in each for each in held(SCHEMAS["beside a reference that leads back"]))


@pytest.mark.parametrize(
    "bound", [-1, -5, -10, -99, -100, -105, -(10**16), 0, 9, 10, 99, 100, 105, 1000, 90_070, 10**15]
)
@pytest.mark.parametrize("keyword", ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
def test_a_lone_bound_of_integers_is_held(keyword: str, bound: int) -> None:
    held({"type": "integer", keyword: bound})
    held({"type": ["integer", "null"], keyword: bound})


NOTHING: dict[str, Any] = {
    "false": {"type": "object", "properties": {"a": False}, "required": ["a"]},
    "values": {"allOf": [{"type": "string"}, {"enum": [1, 2]}]},
    "closed": {
        "type": "object",
        "properties": {"a": {}},
        "additionalProperties": False,
        "allOf": [{"required": ["b"]}],
    },
    "types": {"allOf": [{"type": "string"}, {"type": "integer"}]},
    "branches": {"type": "string", "anyOf": [{"type": "integer"}, False]},
    "bounds": {"allOf": [LONG, {"maxLength": 2}]},
}


@pytest.mark.parametrize("schema", NOTHING.values(), ids=NOTHING)
def test_a_schema_that_nothing_meets_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidRequestError, match="nothing meets") as error:
        enforceable(schema, "tools[0].input_schema")
    assert error.value.param == "tools[0].input_schema"
    optional = {"type": "object", "properties": {"a": {"anyOf": [schema, {"type": "null"}]}}}
    assert {*map(str, held(optional))} == {"{}", "{'a': None}"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "enum": ["1", "2"]},
        {"const": "abc", "maxLength": 2},
        {"type": "string", "nullable": True, "enum": ["x", None]},
        {
            "type": "object",
            "properties": {"a": {}},
            "required": ["b"],
            "additionalProperties": False,
        },
    ],
)
def test_a_slip_of_an_author_is_no_reason_to_refuse_the_request(schema: Any) -> None:
    assert enforceable(schema, "s") == schema


def test_alternatives_keep_what_they_say_of_themselves_and_nothing_is_said_twice() -> None:
    colors = [{"const": "r", "title": "Red"}, {"const": "g", "title": "Green"}]
    told = enforceable(
        {"type": "string", "title": "Color", "$defs": {"A": {}}, "oneOf": colors}, "s"
    )
    assert told["title"] == "Color" and told["$defs"] == {"A": {}}
    assert told["anyOf"] == [{"type": "string"} | color for color in colors]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": 5}, "b": True}},
        {
            "allOf": [
                {"type": "object", "properties": {"a": {}}},
                {"properties": 5, "additionalProperties": {"type": "string"}},
            ]
        },
    ],
)
def test_what_is_no_schema_is_a_refusal_or_a_hint(schema: Any) -> None:
    with contextlib.suppress(InvalidRequestError):
        enforceable(schema, "s")


def test_large_values_that_come_again_in_ever_more_schemas_are_bounded() -> None:
    levels = {
        f"L{i}": {"allOf": [{"$ref": f"#/$defs/L{i + 1}"}, {"$ref": f"#/$defs/L{i + 1}"}]}
        for i in range(10)
    }
    defs = levels | {"L10": {"const": [*range(30_000)]}}
    with pytest.raises(InvalidRequestError, match="schemas"):
        enforceable({"$defs": defs, "allOf": [{"$ref": "#/$defs/L0"}, {}]}, "s")


def test_a_schema_that_is_in_its_form_stays() -> None:
    """So the model sees a tool's schema as its author wrote it."""
    for schema in (
        NODE | {"$defs": {"Node": NODE}},
        an_object(
            a={"$ref": "#/properties/b"}, b={"enum": ["a", 1]}, c={"type": ["null", "array"]}
        ),
        an_object(a={"oneOf": [NUMBER, {"type": "null"}], "default": None, "title": "A"}),
        {"type": "integer", "minimum": 1},
        {"type": "integer", "maximum": 1000},
        {"type": "number", "minimum": 100},
        {**an_object(a=NUMBER), "additionalProperties": True, "propertyNames": False},
    ):
        assert enforceable(schema, "f") == schema


def test_a_tool_keeps_what_its_model_is_shown() -> None:
    told = enforceable(SCHEMAS["anyOf of what is required"], "f")
    assert list(told["properties"]) == ["url", "path"]
    assert told["type"] == "object"
    merged = enforceable({"type": "object", "allOf": [an_object(a=NUMBER)], "title": "T"}, "f")
    assert merged == {**an_object(a=NUMBER), "title": "T"}


def test_what_several_close_is_open_to_the_names_of_all() -> None:
    """As zod writes an intersection."""
    closed = {"additionalProperties": False}
    told = enforceable({"allOf": [an_object(a=NUMBER) | closed, an_object(b=TEXT) | closed]}, "f")
    assert told == {**an_object(a=NUMBER, b=TEXT), **closed}


@pytest.mark.parametrize("name", ['"', "\\", "]", "[", "^", "a\n"])
def test_beside_names_that_no_set_of_letters_says_there_are_no_others(name: str) -> None:
    schema = {"type": "object", "properties": {name: NUMBER}, "additionalProperties": True}
    assert {len(each) for each in held(schema)} == {0, 1}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "strin"}, "type is 'strin', and is to be of object, array"),
        ({"type": []}, r"type is \[\], and is to be the name of a type"),
        ({"type": 5}, "type is 5, "),
        ({"enum": []}, r"enum is \[\], and is to be a list"),
        ({"anyOf": []}, r"anyOf is \[\], and is to be a list of schemas"),
        ({"anyOf": ["a"]}, "a schema is an object, true or false, and one is 'a'"),
        ({"properties": {"x": 5}}, "a schema is an object, true or false, and one is 5"),
        ({"properties": [1]}, "properties is "),
        ({"additionalProperties": 5}, "additionalProperties is 5, "),
        ({"items": "a"}, "a schema is an object, true or false, and one is 'a'"),
        ({"type": "string", "pattern": 5}, "pattern is 5, and is to be a text"),
        ({"type": "string", "minLength": -1}, "minLength is -1, and is to be an integer"),
        ({"type": "array", "maxItems": 1.5}, r"maxItems is 1\.5"),
        ({"$ref": "#foo"}, "'#foo' leads nowhere"),
    ],
)
def test_what_is_no_schema_is_refused_in_words_of_schemas(schema: Any, message: str) -> None:
    nested = {"type": "object", "properties": {"a": schema}}
    with pytest.raises(InvalidRequestError, match=message) as error:
        enforceable(nested, "tools[3].function.parameters")
    assert error.value.param == "tools[3].function.parameters"
    assert enforceable({"type": "integer", "minLength": -1, "properties": [1]}, "f")
    assert enforceable({"type": "string", "minLength": 3.0}, "f")["minLength"] == 3
