"""A plain type for every schema within a tool's: some chat templates can show no property without
one, as where it stands in `anyOf`, `const` or a `$ref`, or where there are several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MAX_LOOKS = 100
"""At schemas, until one says what a value is: there may be any number of ways through them."""
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")


def with_types(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON schema with a `type` that is one word wherever there may be one.

    What it adds allows no JSON that was not allowed: llama.cpp's grammars look at `$ref`, `anyOf`,
    `const` and `enum` before a `type`; of several types the first stays that is not null; what may
    be anything becomes a text.

    Args:
        schema: What llama.cpp can read, of a bounded depth.
    """
    return _typed(schema, schema)


def _typed(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    typed = dict(schema)
    for name in _BY_NAME:
        if isinstance(parts := typed.get(name), dict):
            typed[name] = {key: _part(part, root) for key, part in parts.items()}
    for name in _LISTED:
        if isinstance(parts := typed.get(name), list):
            typed[name] = [_part(part, root) for part in parts]
    for name in _SINGLE:
        if name in typed:
            typed[name] = _part(typed[name], root)
    if not isinstance(typed.get("type"), str):
        typed["type"] = _type_of(schema, root) or "string"
    return typed


def _part(part: Any, root: Mapping[str, Any]) -> Any:
    return _typed(part, root) if isinstance(part, dict) else part


def _type_of(schema: Any, root: Mapping[str, Any]) -> str:
    """The type of its values, of several one that is not null; empty = it says none, or late."""
    found, waiting = "", [schema]
    for _ in range(_MAX_LOOKS):
        if not waiting:
            break
        said, others = _said(waiting.pop(), root)
        if said and said != "null":
            return said
        found = found or said
        waiting += reversed(others[:_MAX_LOOKS])
    return found


def _said(schema: Any, root: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The type that a schema names, or else those that may name it in its place."""
    if not isinstance(schema, dict):
        return "", []
    named = schema.get("type")
    if isinstance(named, str):
        return named, []
    if isinstance(named, list):
        return _first([each for each in named if isinstance(each, str)]), []
    if "const" in schema:
        return _type_of_value(schema["const"]), []
    if isinstance(values := schema.get("enum"), list):
        return _first([_type_of_value(value) for value in values]), []
    if isinstance(ref := schema.get("$ref"), str):
        return "", [_target(ref, root)]
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(parts := schema.get(name), list):
            return "", parts
    if "properties" in schema:
        return "object", []
    return ("array" if "items" in schema or "prefixItems" in schema else ""), []


def _first(types: list[str]) -> str:
    said = [each for each in types if each]
    return next((each for each in said if each != "null"), said[0] if said else "")


def _type_of_value(value: Any) -> str:
    if value is None:
        return "null"
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if isinstance(value, kind):
            return name
    return "array" if isinstance(value, list) else "object"


def _target(ref: str, root: Mapping[str, Any]) -> Any:
    """What a reference into one of the usual places leads to; None = elsewhere."""
    at, _, name = ref.rpartition("/")
    container = root.get(at.removeprefix("#/"))
    return container.get(name) if isinstance(container, dict) else None
