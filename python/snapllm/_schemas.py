"""JSON schemas, as grammars can be made of them. Every schema of a request goes through here."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from snapllm._json import encode_json, plain_json
from snapllm._numbers import INT32_MAX, INT64_MAX
from snapllm._patterns import MAX_PATTERN, UnsupportedPatternError, anchored
from snapllm._schema_faults import UnusableSchemaError
from snapllm._schema_forms import in_forms
from snapllm._schema_limits import check_limits
from snapllm._schema_words import BINDING, COMBINING, is_number, whole
from snapllm.errors import InvalidRequestError

# What an empty schema allows. llama.cpp takes that one for no schema at all.
_ANY_JSON = {"type": ["object", "array", "string", "number", "boolean", "null"]}

_OF_NAMES = frozenset(
    ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
)
"""Keywords whose schemas have names, which mean nothing."""
_OF_VALUES = frozenset(("const", "enum", "default", "example", "examples"))


_LIMITS = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
    ("minimum", "maximum"),
    ("minimum", "exclusiveMaximum"),
    ("exclusiveMinimum", "maximum"),
    ("exclusiveMinimum", "exclusiveMaximum"),
)
"""Keywords of which the first must not be more than the second."""
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems")
_MAX_COUNTED_ITEMS = 2000
"""As many items llama.cpp's grammars cannot count, and refuse; of more it leaves the bound out."""
_LEAST = ("minimum", "exclusiveMinimum")
_MOST = ("maximum", "exclusiveMaximum")
_NUMBERS = frozenset((*_COUNTS, "minProperties", "maxProperties", *_LEAST, *_MOST))


def schema_text(schema: Mapping[str, Any], field: str) -> str:
    """A schema that an answer must match, as JSON text; an empty one is met by any JSON.

    Raises:
        InvalidRequestError: As of `enforceable`.
    """
    return encode_json(enforceable(schema, field) or _ANY_JSON, field)


def enforceable(schema: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The schema, in words that llama.cpp knows where it has any: it drops the others.

    Raises:
        InvalidRequestError: It is no JSON, a pattern in it is too long or no regular
            expression, a least number is more than the largest one beside it, or no grammar can
            be made of it: it is too large, or leads to itself; `param` is `field`.
    """
    try:
        told = in_forms(_told_schema(plain_json(schema, field), field))
        check_limits(told)
    except RecursionError:
        raise InvalidRequestError(f"{field}: it is nested too deeply", param=field) from None
    except UnusableSchemaError as error:
        raise InvalidRequestError(
            f"{field}: no grammar can be made of the schema: {error}", param=field
        ) from None
    return told


def _told_schema(schema: dict[str, Any], field: str) -> dict[str, Any]:
    has_numbers = not _NUMBERS.isdisjoint(schema)
    if has_numbers:
        _check_order(schema, field)
    # Typed clients write null for a keyword that is not there.
    told = {
        keyword: _told(keyword, value, field)
        for keyword, value in schema.items()
        if value is not None or keyword in _OF_VALUES
    }
    if has_numbers:
        _bound_numbers(told)
    items = schema.get("items")
    if isinstance(items, bool):
        if "prefixItems" in schema:
            del told["items"]  # there are never more than those
        else:
            told |= {"items": {}} if items else {"items": {}, "maxItems": 0}
    parts = told.get("allOf")
    if isinstance(parts, list) and len(parts) == 1 and _is_reference(parts[0], beside=told):
        # So is a reference written that has a description. llama.cpp reads what an allOf refers to
        # in its place: without end where that leads back.
        del told["allOf"]
        told |= {"$ref": parts[0]["$ref"]}
    return told


def _is_reference(part: Any, *, beside: Mapping[str, Any]) -> bool:
    return isinstance(part, dict) and _combines(part, "$ref") and _combines(beside, "allOf")


def _combines(schema: Mapping[str, Any], keyword: str) -> bool:
    """Whether a schema says what this keyword says and nothing else."""
    combining = [each for each in COMBINING if each in schema]
    return combining == [keyword] and BINDING.isdisjoint(schema)


def _check_order(schema: Mapping[str, Any], field: str) -> None:
    for least, most in _LIMITS:
        low, high = schema.get(least), schema.get(most)
        if not is_number(low) or not is_number(high):
            continue
        excluded = [keyword for keyword in (least, most) if keyword.startswith("exclusive")]
        types = schema.get("type")
        if types == "integer" or (isinstance(types, list) and "integer" in types):
            low, high = whole(low, least), whole(high, most)
            excluded = []
        if low > high or (low == high and excluded):
            raise InvalidRequestError(
                f"{field}: nothing has {least} {schema[least]} and {most} {schema[most]}",
                param=field,
            )


def _bound_numbers(schema: dict[str, Any]) -> None:
    """Makes numbers fit into those of llama.cpp, which cuts off what is too large.

    A bound that no number there is beyond is none.
    """
    for keyword in _COUNTS:
        if is_number(schema.get(keyword)):
            count = min(schema[keyword], INT32_MAX)
            schema[keyword] = int(count) if count == int(count) else count
    most = schema.get("maxItems")
    if is_number(most) and most >= _MAX_COUNTED_ITEMS:
        del schema["maxItems"]
    for keyword in (*_LEAST, *_MOST):
        bound = schema.get(keyword)
        if not is_number(bound):
            continue
        outwards = -bound if keyword in _LEAST else bound
        if outwards >= INT64_MAX:
            del schema[keyword]
        elif outwards <= -INT64_MAX:
            # It goes one further where the bound itself is excluded.
            schema[keyword] = INT64_MAX - 1 if keyword in _LEAST else 1 - INT64_MAX


def _told(keyword: str, value: Any, field: str) -> Any:
    if keyword in _OF_VALUES:
        return value
    if keyword == "pattern" and isinstance(value, str):
        return _pattern(value, field)
    if keyword in _OF_NAMES and isinstance(value, dict):
        return {name: _told("", each, field) for name, each in value.items()}
    if isinstance(value, dict):
        return _told_schema(value, field)
    return [_told("", each, field) for each in value] if isinstance(value, list) else value


def _pattern(pattern: str, field: str) -> str:
    if len(pattern) > MAX_PATTERN:
        raise InvalidRequestError(
            f"{field}: a pattern has {len(pattern)} characters, at most {MAX_PATTERN} are allowed",
            param=field,
        )
    try:
        with contextlib.suppress(UnsupportedPatternError):
            return anchored(pattern)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"{field}: pattern {pattern!r} is no regular expression: {error}", param=field
        ) from None
    return pattern
