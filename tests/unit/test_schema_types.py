"""Types of one word for templates that show no property without one."""

from __future__ import annotations

from typing import Any

import pytest

from snapllm._schema_types import with_types


@pytest.mark.parametrize(
    ("schema", "type_name"),
    [
        ({"type": "string"}, "string"),
        ({"type": ["null", "integer"]}, "integer"),
        ({"type": ["null"]}, "null"),
        ({"anyOf": [{"type": "null"}, {"type": "number"}]}, "number"),
        ({"oneOf": [{"const": None}, {"enum": [None, True]}]}, "boolean"),
        ({"allOf": [{}, {"$ref": "#/$defs/Node"}]}, "object"),
        ({"$ref": "#/$defs/Node"}, "object"),
        ({"$ref": "#/$defs/Loop"}, "string"),
        ({"$ref": "#/nowhere"}, "string"),
        ({"const": 1.5}, "number"),
        ({"enum": ["a", 1]}, "string"),
        ({"properties": {}}, "object"),
        ({"items": {}}, "array"),
        ({"minLength": 1}, "string"),
        ({}, "string"),
    ],
)
def test_a_property_gets_the_type_of_its_values(schema: dict[str, Any], type_name: str) -> None:
    root = {
        "properties": {"x": schema},
        "$defs": {
            "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}},
            "Loop": {"$ref": "#/$defs/Loop"},
        },
    }
    typed = with_types(root)
    assert typed["type"] == "object"
    assert typed["properties"]["x"]["type"] == type_name
    rest = {key: value for key, value in typed["properties"]["x"].items() if key != "type"}
    assert rest.keys() == schema.keys() - {"type"}
    assert typed["$defs"]["Node"]["properties"]["next"] == {
        "$ref": "#/$defs/Node",
        "type": "object",
    }
    assert root["properties"] == {"x": schema}, "the caller's own is as it was"


def test_schemas_with_very_many_ways_through_them_are_not_followed_for_ever() -> None:
    defs: dict[str, Any] = {
        f"E{i}": {"anyOf": [{"$ref": f"#/$defs/E{i + 1}"}] * 10} for i in range(12)
    }
    defs["E12"] = {"type": "null"}
    typed = with_types({"type": "object", "properties": {}, "$defs": defs})
    assert typed["$defs"]["E11"]["type"] == "null"


def test_what_is_within_others_gets_types_too() -> None:
    schema = {
        "items": {"anyOf": [{"const": 1}, {"prefixItems": [{}]}]},
        "additionalProperties": {"enum": [True]},
    }
    assert with_types(schema) == {
        "type": "array",
        "items": {
            "type": "integer",
            "anyOf": [
                {"const": 1, "type": "integer"},
                {"prefixItems": [{"type": "string"}], "type": "array"},
            ],
        },
        "additionalProperties": {"enum": [True], "type": "boolean"},
    }
