"""Schemas that no grammar may be made of, in every protocol; and large ones that one may."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from snapllm._schemas import enforceable
from snapllm.errors import InvalidRequestError
from snapllm.params import ChatRequest
from tests.unit.test_schemas import FORMS


def chained(length: int, link: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """A schema whose references go through all of its definitions."""
    defs = {f"a{i}": link({"$ref": f"#/$defs/a{i + 1}"}) for i in range(length)}
    defs[f"a{length}"] = {"type": "integer"}
    return {"type": "object", "properties": {"x": {"$ref": "#/$defs/a0"}}, "$defs": defs}


LINKS: list[Callable[[dict[str, Any]], dict[str, Any]]] = [
    lambda ref: ref,
    lambda ref: {"anyOf": [ref, {"type": "null"}]},
    lambda ref: {"type": "object", "properties": {"x": ref}},
    lambda ref: {"type": "array", "items": ref},
    lambda ref: {"allOf": [ref]},
]


@pytest.mark.parametrize(("parse", "form", "param"), FORMS)
def test_references_do_not_lead_too_deep(
    parse: Callable[..., ChatRequest], form: Callable[[Any], dict[str, Any]], param: str
) -> None:
    with pytest.raises(InvalidRequestError, match="lead too deep") as error:
        parse(**form(chained(8000, lambda ref: ref)))
    assert error.value.param == param


@pytest.mark.parametrize("link", LINKS)
def test_references_of_every_kind_are_followed(
    link: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    assert enforceable(chained(100, link), "f")
    with pytest.raises(InvalidRequestError, match="lead too deep"):
        enforceable(chained(1000, link), "f")


def test_the_order_in_which_references_are_found_hides_no_depth() -> None:
    schema = chained(1000, lambda ref: ref)
    last_first = [{"$ref": f"#/$defs/a{i}"} for i in reversed(range(1000))]
    schema["properties"] = {"w": {"anyOf": last_first}, **schema["properties"]}
    with pytest.raises(InvalidRequestError, match="lead too deep"):
        enforceable(schema, "f")


def test_a_schema_may_lead_back_to_itself() -> None:
    node = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            "parent": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            "top": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        },
    }
    schema = {"$ref": "#/$defs/node", "$defs": {"node": node}}
    assert enforceable(schema, "f") == schema


def syntax(num_types: int) -> dict[str, Any]:
    """Schemas of a syntax tree: expressions of many kinds, each of which holds an expression."""
    kinds = {
        f"N{i}": {
            "type": "object",
            "properties": {
                "type": {"const": f"N{i}"},
                "left": {"$ref": "#/$defs/E"},
                "at": {"type": "object", "properties": {"line": {"type": "integer"}}},
            },
            "required": ["type"],
        }
        for i in range(num_types)
    }
    either = {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in kinds]}
    return {"$ref": "#/$defs/E", "$defs": {**kinds, "E": either}}


def test_many_types_may_lead_back_to_each_other() -> None:
    schema = syntax(300)
    assert enforceable(schema, "f") == schema
    ring = chained(100, LINKS[2])
    ring["$defs"]["a100"] = {"anyOf": [{"$ref": f"#/$defs/a{i}"} for i in range(100)]}
    assert enforceable(ring, "f") == ring


@pytest.mark.parametrize("keyword", ["properties", "items"])
def test_references_that_lead_back_hide_no_depth(keyword: str) -> None:
    """The order in which they are read decides how deep it is."""
    ring = chained(400, LINKS[2])
    ring["$defs"]["a400"] = {"$ref": "#/$defs/a0"}
    with pytest.raises(InvalidRequestError, match=r"lead too deep \(80\d schemas"):
        enforceable(ring, "f")
    # From its last pair backwards, each is cut from the next one.
    pairs = {
        f"a{i}": {
            "anyOf": [
                {"type": "array", "items": {"$ref": f"#/$defs/a{i - 1}"}} if i % 2 else {},
                {"type": "array", "items": {"$ref": f"#/$defs/a{i + 1}"}},
            ]
        }
        for i in range(1000)
    }
    pairs["a1000"] = {"type": "null"}
    backwards = {"anyOf": [{"$ref": f"#/$defs/a{i}"} for i in range(999, 0, -2)]}
    deep = {"$ref": "#/$defs/a0"}
    other = {"properties": {"x": deep}} if keyword == "properties" else {"items": deep}
    first, last = ("array", "object") if keyword == "items" else ("object", "array")
    schema: dict[str, Any] = {
        "type": [first, last],
        "properties": {"x": backwards},
        "items": backwards,
        **other,
        "$defs": pairs,
    }
    with pytest.raises(InvalidRequestError, match="lead too deep"):
        enforceable(schema, "f")
    assert enforceable({**schema, "type": [last, first]}, "f")


def test_what_is_not_read_leads_nowhere() -> None:
    deep = chained(1000, LINKS[2])
    for schema in (
        {"type": "string", "properties": deep["properties"]},
        {"enum": [1], "items": deep["properties"]["x"]},
        {"items": {}, "prefixItems": [deep["properties"]["x"]]},
    ):
        assert enforceable({**schema, "$defs": deep["$defs"]}, "f")


def test_a_reference_with_a_description_is_one() -> None:
    """Pydantic 1 wraps it in an allOf."""
    node = {
        "type": "object",
        "properties": {"next": {"allOf": [{"$ref": "#/definitions/node"}], "title": "Next"}},
    }
    schema = {"$ref": "#/definitions/node", "definitions": {"node": node}}
    told = enforceable(schema, "f")["definitions"]["node"]["properties"]["next"]
    assert told == {"$ref": "#/definitions/node", "title": "Next"}


def test_an_all_of_does_not_include_itself() -> None:
    own = {"$ref": "#/$defs/a"}
    schema = {"allOf": [own, {"type": "object"}], "$defs": {"a": {"allOf": [own, own]}}}
    with pytest.raises(InvalidRequestError, match="includes itself"):
        enforceable(schema, "f")
    for beside in ({"type": "object"}, {"required": ["y"]}):
        schema["$defs"] = {"a": {"properties": {"x": {"allOf": [own, beside]}}}}
        assert enforceable(schema, "f"), "within its properties it may"


OWN = {"$ref": "#/$defs/a"}
OBJECT = {"type": "object"}


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [OWN, {"title": "x"}], "$defs": {"a": OWN}},
        {"allOf": [OWN, {}], "$defs": {"a": {"$ref": "#/$defs/b"}, "b": OWN}},
        {"allOf": [{"anyOf": [OWN, {}]}, {}], "$defs": {"a": OWN}},
        {
            "allOf": [OWN, {}],
            "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"anyOf": [OWN]}, {}]}},
        },
        {"properties": {"x": OWN}, "$defs": {"a": OWN}},
        {"properties": {"x": {"$ref": "#/x/0"}}, "x": [{"allOf": [{"$ref": "#/x/0"}, {}]}]},
        {
            "properties": {"x": {"$ref": "#/$defs/a/not"}},
            "$defs": {"a": {"not": {"allOf": [{"$ref": "#/$defs/a/not"}, {}]}}},
        },
        {"properties": {"x": OWN}, "$defs": {"a": {"anyOf": [{"type": "null"}, OWN]}}},
    ],
)
def test_no_reference_leads_to_itself_alone(schema: dict[str, Any]) -> None:
    """llama.cpp follows it until its stack ends."""
    with pytest.raises(InvalidRequestError, match="includes itself"):
        enforceable({"type": "object", **schema}, "f")


@pytest.mark.parametrize("index", ["0x", "+0", " 0", "00000000000", "٠"])
def test_a_reference_names_a_place_in_a_list_by_its_number(index: str) -> None:
    """What llama.cpp reads as a number, and nobody else, would hide where it leads."""
    for schema in ({"allOf": [{"$ref": f"#/allOf/{index}"}, {}]}, {"items": {"$ref": "#/x/-1"}}):
        with pytest.raises(InvalidRequestError, match="for a place in a list"):
            enforceable({**schema, "x": [{}]}, "f")
    assert enforceable({"allOf": [{"$ref": "#/x/0"}, {}], "x": [{}]}, "f")


def test_a_list_of_types_is_short_and_flat() -> None:
    with pytest.raises(InvalidRequestError, match="a list of them"):
        enforceable({"items": {"type": [["object"]]}}, "f")
    with pytest.raises(InvalidRequestError, match="more than 7 types"):
        enforceable({"items": {"type": ["string"] * 8}}, "f")


def test_names_are_bounded_with_those_around_them() -> None:
    """Rules are named after all of them, through references of an allOf too."""
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(11):
        deep = {"type": "object", "properties": {"x" * 100: deep}}
    included = {
        f"a{i}": {"properties": {"x" * 400: {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}, OBJECT]}}}
        for i in range(3)
    } | {"a3": {}}
    for schema in (deep, {"$ref": "#/$defs/a0", "$defs": included}):
        with pytest.raises(InvalidRequestError, match="a property's name has more than 1000"):
            enforceable(schema, "f")
    name = "_" * 1000
    with pytest.raises(InvalidRequestError, match=r"\$ref has more than 1000 letters"):
        enforceable({"items": {"$ref": f"#/$defs/{name}"}, "$defs": {name: {}}}, "f")


def test_the_parts_of_an_all_of_make_one_object() -> None:
    """Whose properties may all be missing."""
    parts = [
        {"properties": {f"{i}p{j}": {"type": "integer"} for j in range(100)}} for i in range(6)
    ]
    with pytest.raises(InvalidRequestError, match="more than 500 properties"):
        enforceable({"type": "object", "allOf": parts}, "f")
    assert enforceable({"type": "object", "allOf": parts[1:]}, "f")
    assert enforceable({"type": "object", "anyOf": parts}, "f")


def test_what_is_merged_is_bounded() -> None:
    """Each alternative of one choice is put together with each of the others."""
    pairs = [{"anyOf": [{"minLength": i}, {"maxLength": 100 + i}]} for i in range(30)]
    ring = {
        f"a{i}": {"properties": {"x": {"allOf": [OWN, {"required": [f"r{i}"]}]}}} for i in range(9)
    }
    large = {"properties": {f"p{i}": {} for i in range(5000)}}
    for schema in (
        {"allOf": pairs},
        {**large, "anyOf": [{"required": [f"p{i}"]} for i in range(1000)]},
    ):
        lines = lines_run(lambda schema=schema: refused(schema))  # type: ignore[misc]
        assert lines < 4_000_000
    assert enforceable({**OWN, "$defs": {**ring, "a": ring["a0"]}}, "f")
    # What is made of the same ones is made once.
    doubled = {"$ref": "#/$defs/b0", "$defs": doubled_defs({"required": ["x"]})}
    assert len(str(enforceable(doubled, "f"))) < 200_000


def test_what_is_merged_nests_no_deeper_than_its_references() -> None:
    """Each is another schema than the one that its reference leads to."""

    def link(ref: dict[str, Any]) -> dict[str, Any]:
        return {"type": "object", "properties": {"x": {**ref, "required": ["q"]}}}

    assert enforceable(chained(150, link) | {"$defs": ended(chained(150, link))}, "f")
    with pytest.raises(InvalidRequestError, match="lead too deep"):
        enforceable(chained(600, link) | {"$defs": ended(chained(600, link))}, "f")


def ended(schema: dict[str, Any]) -> dict[str, Any]:
    defs: dict[str, Any] = schema["$defs"]
    return defs | {f"a{len(defs) - 1}": {"type": "object"}}


def doubled_defs(beside: dict[str, Any]) -> dict[str, Any]:
    return {
        f"b{i}": {"properties": {n: {"$ref": f"#/$defs/b{i + 1}", **beside} for n in ("x", "y")}}
        for i in range(40)
    } | {"b40": {}}


def refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=r"more than 50000 schemas|nested too deeply"):
        enforceable(schema, "f")


def test_alternatives_are_counted_by_the_ways_to_them() -> None:
    """What types a property has is asked of each, in a tree of two ways at every step."""
    doubled: dict[str, Any] = {
        f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)
    } | {"a40": {}}
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/a0"}}, "$defs": doubled}
    with pytest.raises(InvalidRequestError, match="more than 50000 schemas"):
        enforceable(schema, "f")


def test_what_is_read_again_and_again_is_counted() -> None:
    doubled: dict[str, Any] = {"type": "object", "properties": {"x": {"type": "integer"}}}
    for _ in range(30):
        doubled = {"type": ["object", "object"], "properties": {"x": doubled}}
    with pytest.raises(InvalidRequestError, match="more than 50000 schemas"):
        enforceable(doubled, "f")


def test_objects_are_bounded() -> None:
    many = {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(501)}}
    with pytest.raises(InvalidRequestError, match="more than 500 properties"):
        enforceable(many, "f")
    assert enforceable({**many, "required": list(many["properties"])}, "f")
    with pytest.raises(InvalidRequestError, match="name"):
        enforceable({"type": "object", "properties": {"x" * 2000: {}}}, "f")


def lines_run(work: Callable[[], object]) -> int:
    """Lines of Python that it takes: what it costs, on any machine."""
    num_lines = 0

    def count(_frame: FrameType, event: str, _argument: object) -> Callable[..., Any]:
        nonlocal num_lines
        num_lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return num_lines


def test_the_checks_take_little_time() -> None:
    """Everything may refer to everything, and is looked at once."""
    size = 300
    refs = [{"$ref": f"#/$defs/a{i}"} for i in range(size)]
    defs = {f"a{i}": {"anyOf": refs} for i in range(size)}

    def refused() -> None:
        with pytest.raises(InvalidRequestError, match="more than 50000 schemas"):
            enforceable({"$ref": "#/$defs/a0", "$defs": defs}, "f")

    assert lines_run(refused) < 100 * size**2


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 5, "maxLength": 2},
        {"type": "array", "items": {}, "minItems": 5, "maxItems": 2},
        {"type": "object", "minProperties": 5, "maxProperties": 2},
        {"type": "integer", "minimum": 5, "maximum": 2},
        {"type": "number", "minimum": 0.5, "maximum": 0.25},
        {"type": "number", "exclusiveMinimum": 1, "maximum": 1},
        {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
        {"type": ["integer", "null"], "minimum": 1.2, "maximum": 1.8},
    ],
)
@pytest.mark.parametrize(("parse", "form", "param"), FORMS)
def test_a_least_number_above_the_largest_is_refused(
    parse: Callable[..., ChatRequest],
    form: Callable[[Any], dict[str, Any]],
    param: str,
    schema: dict[str, Any],
) -> None:
    nested = {"type": "object", "properties": {"a": {"anyOf": [schema]}}}
    with pytest.raises(InvalidRequestError, match="nothing has") as error:
        parse(**form(nested))
    assert error.value.param == param


def test_numbers_that_something_has_are_taken() -> None:
    for schema in (
        {"type": "string", "minLength": 2, "maxLength": 2},
        {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 2},
        {"type": "number", "minimum": 1, "maximum": 1.0},
        {"type": "integer", "minimum": True, "maximum": 0},
        {"properties": {"minimum": {"default": 5}, "maximum": {"default": 2}}},
        {"enum": [{"minimum": 5, "maximum": 2}]},
    ):
        assert enforceable(dict(schema), "f") == schema
