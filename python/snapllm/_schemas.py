"""JSON schemas, as grammars can be made of them. Every schema of a request goes through here."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec

from snapllm._patterns import MAX_PATTERN, UnsupportedPatternError, anchored
from snapllm.errors import InvalidRequestError

# What an empty schema allows. llama.cpp takes that one for no schema at all.
_ANY_JSON = {"type": ["object", "array", "string", "number", "boolean", "null"]}

_OF_NAMES = frozenset(
    ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
)
"""Keywords whose schemas have names, which mean nothing."""
_OF_VALUES = frozenset(("const", "enum", "default", "example", "examples"))


def schema_text(schema: Mapping[str, Any], field: str) -> str:
    """A schema that an answer must match, as JSON text; an empty one is met by any JSON.

    Raises:
        InvalidRequestError: A pattern in it is too long or no regular expression; `param` is
            `field`.
    """
    return msgspec.json.encode(enforceable(dict(schema), field) or _ANY_JSON).decode()


def enforceable(schema: dict[str, Any], field: str) -> dict[str, Any]:
    """The schema, in words that llama.cpp knows where it has any: it drops the others.

    Raises:
        InvalidRequestError: A pattern in it is too long or no regular expression; `param` is
            `field`.
    """
    told = {keyword: _told(keyword, value, field) for keyword, value in schema.items()}
    items = schema.get("items")
    if isinstance(items, bool):
        if "prefixItems" in schema:
            del told["items"]  # there are never more than those
        else:
            told |= {"items": {}} if items else {"items": {}, "maxItems": 0}
    return told


def _told(keyword: str, value: Any, field: str) -> Any:
    if keyword in _OF_VALUES:
        return value
    if keyword == "pattern" and isinstance(value, str):
        return _pattern(value, field)
    if keyword in _OF_NAMES and isinstance(value, dict):
        return {name: _told("", each, field) for name, each in value.items()}
    if isinstance(value, dict):
        return enforceable(value, field)
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
