"""The keywords of JSON schemas that grammars are made of, and what two schemas say together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeGuard

from snapllm._numbers import INT64_MAX

Schema: TypeAlias = dict[str, Any]

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
COMBINING = ("$ref", "allOf", "oneOf", "anyOf")
LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_BOUNDS = frozenset((*LEAST, *MOST))
BINDING = frozenset(
    "type enum const properties required additionalProperties items prefixItems pattern format"
    " minimum exclusiveMinimum minLength minItems"
    " maximum exclusiveMaximum maxLength maxItems".split()
)
"""What a grammar is made of, but for other schemas."""

_MAX_DIGITS = 16
"""Of the integers that llama.cpp's grammars write where there is no bound."""


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def whole(bound: float, keyword: str) -> int:
    """The first integer that a bound allows."""
    if keyword == "exclusiveMinimum":
        return math.floor(bound) + 1
    if keyword == "exclusiveMaximum":
        return math.ceil(bound) - 1
    return math.ceil(bound) if keyword.startswith("min") else math.floor(bound)


def whole_bounds(schema: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The least and the largest integer that the schema allows; None = there is no bound."""
    lows = [whole(schema[key], key) for key in LEAST[:2] if is_number(schema.get(key))]
    highs = [whole(schema[key], key) for key in MOST[:2] if is_number(schema.get(key))]
    # In the schemas of draft 4, these say of the bound beside them that it is excluded.
    if schema.get("exclusiveMinimum") is True and is_number(schema.get("minimum")):
        lows = [whole(schema["minimum"], "exclusiveMinimum")]
    if schema.get("exclusiveMaximum") is True and is_number(schema.get("maximum")):
        highs = [whole(schema["maximum"], "exclusiveMaximum")]
    return max(lows, default=None), min(highs, default=None)


def types_of(schema: Mapping[str, Any]) -> list[str] | None:
    """The types that the schema names; None where it names none, as where they are no texts."""
    types = schema.get("type")
    listed = types if isinstance(types, list) else [types]
    named = [each for each in listed if isinstance(each, str)]
    return named if named and len(named) == len(listed) else None


def may_be(schema: Mapping[str, Any], kind: str) -> bool:
    types = types_of(schema)
    return types is None or kind in types


def values_of(schema: Mapping[str, Any]) -> list[Any] | None:
    """The only values that the schema allows; None where it names none."""
    values = schema.get("enum")
    listed = values if isinstance(values, list) and values else None
    if "const" not in schema:
        return listed
    own = _identity(schema["const"])
    is_listed = listed is None or any(_identity(value) == own for value in listed)
    return [schema["const"]] if is_listed else []


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is what a schema says of it, beside listing it; its inner ones are not
    looked at, nor is its pattern."""
    types = types_of(schema)
    if value is None and schema.get("nullable") is True:
        return True  # OpenAPI's word for one more type
    if types is not None and not any(_is_of(value, kind) for kind in types):
        return False
    if isinstance(value, str):
        return _is_within(len(value), schema, "minLength", "maxLength")
    if isinstance(value, list):
        return _is_within(len(value), schema, "minItems", "maxItems")
    if isinstance(value, dict):
        required = schema.get("required")
        names = required if isinstance(required, list) else []
        return all(name in value for name in names if isinstance(name, str))
    if is_number(value):
        low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        return (
            _is_within(value, schema, "minimum", "maximum")
            and not (is_number(low) and value <= low)
            and not (is_number(high) and value >= high)
        )
    return True


def _is_of(value: Any, kind: str) -> bool:
    if kind in ("number", "integer"):
        return is_number(value) and (kind == "number" or value == math.floor(value))
    classes = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    return isinstance(value, classes.get(kind, ()))


def _is_within(number: float, schema: Mapping[str, Any], least: str, most: str) -> bool:
    low, high = schema.get(least), schema.get(most)
    return not (is_number(low) and number < low) and not (is_number(high) and number > high)


def held_integer(schema: Schema) -> Schema:
    """The schema, with bounds of integers as llama.cpp holds them.

    Of three digits and more it forgets zeros within a least one that is alone, and begins numbers
    below a largest one with zeros; and it looks at one bound of each kind.
    """
    types = types_of(schema)
    if types is None or "integer" not in types or "number" in types:
        return schema
    low, high = whole_bounds(schema)
    is_held = (high is not None or low is None or low < 100) and (
        low is not None or high is None or high >= 0
    )
    if is_held and all(
        not (isinstance(schema.get(exclusive), bool) or {bound, exclusive} <= schema.keys())
        for bound, exclusive in (LEAST[:2], MOST[:2])
    ):
        return schema
    told = {key: each for key, each in schema.items() if key not in LEAST[:2] + MOST[:2]}
    if not is_held:
        most = 10**_MAX_DIGITS - 1
        # What is beyond the last of these is no bound to llama.cpp.
        if low is None and high is not None:
            low = -most if high >= -most else 1 - INT64_MAX
        elif high is None and low is not None:
            high = most if low <= most else INT64_MAX - 1
    if low is not None:
        told["minimum"] = low
    if high is not None:
        told["maximum"] = high
    return told


def possible(schema: Schema) -> Schema | None:
    """The schema without what nothing meets: values that do not fit, types without a value between
    their bounds. None where nothing is left."""
    values = values_of(schema)
    if values is not None:
        left = [value for value in values if fits(value, schema)]
        if not left:
            return None
        return schema if len(left) == len(values) else {**schema, "enum": left}
    if _BOUNDS.isdisjoint(schema):
        return schema
    types = types_of(schema)
    low, high = whole_bounds(schema)
    empty = {
        "string": _is_empty(schema, "minLength", "maxLength"),
        "array": _is_empty(schema, "minItems", "maxItems"),
        "integer": low is not None and high is not None and low > high,
        "number": _is_empty(schema, "minimum", "maximum"),
    }
    if not any(empty.values()):
        return schema
    if types is None:
        return None if empty["string"] else schema
    return with_types(schema, [kind for kind in types if not empty.get(kind)])


def with_types(schema: Schema, types: list[str]) -> Schema | None:
    """The schema, of these types only; None where there are none."""
    return {**schema, "type": types[0] if len(types) == 1 else types} if types else None


def _is_empty(schema: Mapping[str, Any], least: str, most: str) -> bool:
    low, high = schema.get(least), schema.get(most)
    return is_number(low) and is_number(high) and low > high


def merged(first: Schema, second: Schema, meet: Callable[[Any, Any], Any]) -> Schema | None:
    """What two schemas say together, neither of which refers to others or combines them.

    Where both close their objects, the names of both are allowed, as client libraries mean it.
    Where both have a pattern, a format or a word that is no more than a hint, the first counts.

    Args:
        meet: The schema of what must meet both of two inner schemas.

    Returns:
        None where nothing meets both.
    """
    told = {**second, **first}
    types, others = types_of(first), types_of(second)
    if types is not None and others is not None:
        both = _common_types(types, others)
        if not both:
            return None
        told["type"] = both[0] if len(both) == 1 else both
    for keywords, choose in ((LEAST, max), (MOST, min)):
        for keyword in keywords:
            if is_number(first.get(keyword)) and is_number(second.get(keyword)):
                told[keyword] = choose(first[keyword], second[keyword])
    values, other_values = values_of(first), values_of(second)
    if values is not None and other_values is not None:
        texts = {_identity(value) for value in other_values}
        told["enum"] = [value for value in values if _identity(value) in texts]
        told.pop("const", None)
        if not told["enum"]:
            return None
    told |= _merged_objects(first, second, meet) | _merged_arrays(first, second, meet)
    if "prefixItems" in told and isinstance(told.get("items"), dict):
        del told["items"]  # it is in those by now, and llama.cpp would read it alone
    return possible(told)


def _identity(value: Any) -> Any:
    """Equal for what JSON holds for equal; true is no 1 there, and 1.0 is."""
    if isinstance(value, list):
        return ("list", *map(_identity, value))
    if isinstance(value, dict):
        return ("dict", frozenset((name, _identity(each)) for name, each in value.items()))
    return (isinstance(value, bool), value)


def _common_types(types: list[str], others: list[str]) -> list[str]:
    common = [kind for kind in types if kind in others]
    for some, rest in ((types, others), (others, types)):
        if "integer" in some and "number" in rest and "integer" not in common:
            common.append("integer")
    return [kind for kind in common if kind != "integer" or "number" not in common]


def _merged_objects(
    first: Schema, second: Schema, meet: Callable[[Any, Any], Any]
) -> dict[str, Any]:
    told: dict[str, Any] = {}
    names = [each["required"] for each in (first, second) if isinstance(each.get("required"), list)]
    if len(names) == 2:
        told["required"] = list(
            dict.fromkeys(name for each in names for name in each if isinstance(name, str))
        )
    others = [each.get("additionalProperties") for each in (first, second)]
    named = [
        each["properties"] if isinstance(each.get("properties"), dict) else {}
        for each in (first, second)
    ]
    properties = dict(named[0])
    for name, each in named[1].items():
        properties[name] = meet(properties[name], each) if name in properties else each
    for own, their, other in ((*named, others[1]), (*named[::-1], others[0])):
        # What one names, and the other does not, is among the further ones of that.
        if isinstance(other, dict) and other:
            properties = {
                name: meet(each, other) if name in own and name not in their else each
                for name, each in properties.items()
            }
    if properties:
        told["properties"] = properties
    if False in others:
        told["additionalProperties"] = False
    elif all(isinstance(each, dict) for each in others):
        told["additionalProperties"] = meet(*others)
    elif any(isinstance(each, dict) for each in others):
        told["additionalProperties"] = next(each for each in others if isinstance(each, dict))
    return told


def _merged_arrays(
    first: Schema, second: Schema, meet: Callable[[Any, Any], Any]
) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for keyword in ("prefixItems", "items"):
        own, other = first.get(keyword), second.get(keyword)
        if isinstance(own, list) and isinstance(other, list):
            longer = own if len(own) > len(other) else other
            both = [meet(*pair) for pair in zip(own, other, strict=False)]
            told[keyword] = both + longer[len(both) :]
        elif own is not None and other is not None:
            if isinstance(own, list) or isinstance(other, list):
                each, rest = (own, other) if isinstance(own, list) else (other, own)
                told[keyword] = [meet(item, rest) for item in each]
            else:
                told[keyword] = meet(own, other)
    for one, other in ((first, second), (second, first)):
        items, rest = one.get("prefixItems"), other.get("items")
        if isinstance(items, list) and isinstance(rest, dict) and "items" not in one:
            # Only one of these two keywords is read.
            known = told.get("prefixItems", items)
            told["prefixItems"] = [meet(item, rest) for item in known]
    return told
