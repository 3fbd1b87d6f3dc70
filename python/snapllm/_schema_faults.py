"""What makes a schema none, in the words of whoever wrote it: llama.cpp would say it in its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from snapllm._schema_words import TYPES, may_be, types_of

_TYPES = frozenset(TYPES)
_COUNTS = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}


class UnusableSchemaError(Exception):
    """No grammar can be made of a schema: it is none, nothing meets it, it reaches too far, or it
    leads to itself."""


def no_schema(value: Any) -> UnusableSchemaError:
    return UnusableSchemaError(f"a schema is an object, true or false, and one is {value!r:.40}")


def check_words(schema: Mapping[str, Any]) -> None:
    """Checks the keywords of one schema that a grammar is made of, and that inner ones are schemas.

    REQUIRES: true and false are written as schemas in it, and it is no reference.

    Raises:
        UnusableSchemaError: One has a value that it cannot have; the message names it.
    """
    for each in _inner(schema):
        if not isinstance(each, Mapping):
            raise no_schema(each)
    if "anyOf" in schema or "oneOf" in schema:
        return
    types = schema.get("type")
    listed = types if isinstance(types, list) else [types]
    if "type" in schema and types_of(schema) is None:
        raise _fault("type", types, "the name of a type, or a list of them that is not empty")
    if "type" in schema and not _TYPES.issuperset(listed):
        raise _fault("type", types, f"of {', '.join(TYPES)}")
    if "const" in schema:
        return
    if "enum" in schema:
        if not isinstance(schema["enum"], list) or not schema["enum"]:
            raise _fault("enum", schema["enum"], "a list that is not empty")
        return
    if may_be(schema, "object"):
        for keyword, others in (("properties", ()), ("additionalProperties", (True, False))):
            value = schema.get(keyword, {})
            if not isinstance(value, Mapping) and value not in others:
                raise _fault(keyword, value, "an object" + (", true or false" if others else ""))
    if may_be(schema, "string"):
        for keyword in ("pattern", "format"):
            if not isinstance(schema.get(keyword, ""), str):
                raise _fault(keyword, schema[keyword], "a text")
    for kind, keywords in _COUNTS.items():
        for keyword in keywords if may_be(schema, kind) else ():
            count = schema.get(keyword, 0)
            if not isinstance(count, int) or isinstance(count, bool) or count < 0:
                raise _fault(keyword, count, "an integer, and not less than zero")


def _inner(schema: Mapping[str, Any]) -> Iterator[Any]:
    for keyword in ("oneOf", "anyOf"):
        if keyword in schema:
            listed = schema[keyword]
            if not isinstance(listed, list) or not listed:
                raise _fault(keyword, listed, "a list of schemas that is not empty")
            yield from listed
            return
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and may_be(schema, "object"):
        yield from properties.values()
    if may_be(schema, "array"):
        for keyword in ("items", "prefixItems"):
            items = schema.get(keyword, {})
            yield from items if isinstance(items, list) else (items,)


def _fault(keyword: str, value: Any, expected: str) -> UnusableSchemaError:
    return UnusableSchemaError(f"{keyword} is {value!r:.40}, and is to be {expected}")
