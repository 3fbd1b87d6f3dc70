"""What of a JSON schema llama.cpp reads in one place: the schema itself, and each part of it that a
reference leads to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from snapllm._schema_faults import UnusableSchemaError, check_words

_MAX_LEVELS = 100
"""Of a schema as it is written, as of all JSON that llama.cpp reads."""
MAX_READ = 50_000
"""Schemas that are read, again and again ones counted as often."""
MAX_OPTIONAL = 500
"""Properties of one object that may be missing: the time goes with the third power."""
MAX_NAME = 1000
"""Letters of a property's name with those of the ones around it, which rules are named after; and
of a reference. There is one level of recursion for each."""
_MAX_TYPES = 7
"""In a list of types: there are no more, and the schema is copied for each."""
_INDEX = re.compile("0|[1-9][0-9]{0,8}")
_OF_SCHEMAS = ("properties", "additionalProperties", "allOf", "items", "prefixItems")


def too_many_schemas() -> UnusableSchemaError:
    return UnusableSchemaError(f"it makes more than {MAX_READ} schemas")


def leads_nowhere(ref: str) -> UnusableSchemaError:
    return UnusableSchemaError(f"the $ref {ref[:80]!r} leads nowhere in it")


def place_in_list(name: str) -> int:
    """The place that a part of a reference names.

    Raises:
        UnusableSchemaError: It is no number. llama.cpp takes " 0", "+0" and "0x" for one, too.
    """
    if not _INDEX.fullmatch(name):
        raise UnusableSchemaError(f"a $ref has {name[:20]!r} for a place in a list")
    return int(name)


def includes_itself() -> UnusableSchemaError:
    return UnusableSchemaError("a schema includes itself")


def name_too_long() -> UnusableSchemaError:
    return UnusableSchemaError(
        f"a property's name has more than {MAX_NAME} letters, with those of the properties that it"
        " is within"
    )


class Reference(NamedTuple):
    """A `$ref` that is read."""

    target: str
    level: int
    """Where it stands: levels of its part down to it."""
    num_letters: int
    """Of the properties' names down to it."""
    is_alternative: bool
    """Whether what it leads to describes the very value that its part describes."""


@dataclass(slots=True)
class Part:
    """What is written in one place: the schema itself, or what a reference leads to."""

    levels: int = 0
    num_read: int = 0
    num_letters: int = 0
    """Of the longest path of properties' names."""
    num_alternatives: int = 0
    """Schemas of it that describe one and the same value."""
    refs: list[Reference] = field(default_factory=list)
    """In the order in which they are read."""

    def alternatives(self) -> list[Reference]:
        """References to what may stand in place of the part."""
        return [ref for ref in self.refs if ref.is_alternative]


def read_parts(schema: Mapping[str, Any]) -> dict[str, Part]:
    """All parts that are read, by their reference; the whole schema's is ""."""
    parts = {"": _part(schema)}
    found = [ref.target for ref in parts[""].refs]
    num_read = parts[""].num_read
    while found:
        ref = found.pop()
        if ref in parts:
            continue
        target = _target(schema, ref)
        if target is None:
            raise leads_nowhere(ref)
        parts[ref] = _part(target)
        found += [each.target for each in parts[ref].refs]
        num_read += 1 + parts[ref].num_read
        if num_read > MAX_READ:
            raise too_many_schemas()
    return parts


def _target(schema: Any, ref: str) -> Any:
    """What a reference leads to; None where it leads nowhere."""
    for name in ref.removeprefix("#").split("/")[1:]:
        if isinstance(schema, Mapping):
            schema = schema.get(name)
        elif isinstance(schema, list):
            index = place_in_list(name)
            schema = schema[index] if index < len(schema) else None
        else:
            return None
    return schema


class _Place(NamedTuple):
    """A schema within a part, on the way to be read."""

    schema: Any
    level: int = 1
    """Of it and the schemas around it."""
    times: int = 1
    """It is read; 0 = it is JSON and no more."""
    num_letters: int = 0
    """Of the properties' names down to it."""
    is_alternative: bool = True
    """Whether it describes the very value that the part describes."""


def _part(schema: Any) -> Part:
    part = Part()
    waiting = [_Place(schema)]
    while waiting:
        place = waiting.pop()
        at = place.schema
        if not isinstance(at, Mapping):
            continue
        _count(part, place)
        ref = at.get("$ref")
        if isinstance(ref, str):
            if place.times:
                part.refs.append(_reference(ref, place))
            continue
        if place.times:
            check_words(at)
        _check_names(at)
        waiting += reversed(list(_inner(place)))
    return part


def _count(part: Part, place: _Place) -> None:
    if place.level > _MAX_LEVELS:
        raise UnusableSchemaError(f"it is nested too deeply (at most {_MAX_LEVELS} levels)")
    part.levels = max(part.levels, place.level)
    part.num_letters = max(part.num_letters, place.num_letters)
    part.num_read += place.times
    if part.num_read > MAX_READ:
        raise too_many_schemas()
    if place.is_alternative:
        part.num_alternatives += place.times


def _reference(ref: str, place: _Place) -> Reference:
    if len(ref) > MAX_NAME:
        raise UnusableSchemaError(f"a $ref has more than {MAX_NAME} letters")
    return Reference(
        target=ref,
        level=place.level,
        num_letters=place.num_letters,
        is_alternative=place.is_alternative,
    )


def _inner(place: _Place) -> Iterator[_Place]:
    """The schemas in one, as they are read.

    Those that are not read come last: they are JSON all the same.
    """
    schema, level = place.schema, place.level + 1
    alternatives = _alternatives(schema)
    if alternatives is not None:
        yield from (_Place(each, level, *place[2:]) for each in alternatives)
        return
    read = _read(schema)
    for keyword in dict.fromkeys((*read, *_OF_SCHEMAS)):
        value = schema.get(keyword)
        names: list[str] | None = None
        if keyword == "properties" and isinstance(value, Mapping):
            names, value = list(value), list(value.values())
        for i, each in enumerate(value if isinstance(value, list) else [value]):
            yield _Place(
                each,
                level,
                place.times * read.count(keyword),
                place.num_letters + (len(names[i]) if names else 0),
                is_alternative=False,
            )


def _alternatives(schema: Mapping[str, Any]) -> list[Any] | None:
    """What one of must be met; None where there is no such choice."""
    alternatives = schema.get("oneOf", schema.get("anyOf"))
    return alternatives if isinstance(alternatives, list) else None


def _read(schema: Mapping[str, Any]) -> list[str]:
    """The keywords whose schemas are read, as often as they are, in their order."""
    return [keyword for kind in _types(schema) for keyword in _read_of(schema, kind)]


def _types(schema: Mapping[str, Any]) -> list[Any]:
    types = schema.get("type")
    if not isinstance(types, list):
        return [types]
    if len(types) > _MAX_TYPES:
        raise UnusableSchemaError(f"a list has more than {_MAX_TYPES} types")
    if any(isinstance(each, list) for each in types):
        raise UnusableSchemaError("a list of types holds another")
    return types


def _read_of(schema: Mapping[str, Any], kind: Any) -> tuple[str, ...]:
    """The keywords whose schemas are read in one of a type, or of none, in their order."""
    if "const" in schema or "enum" in schema:
        return ()
    is_open = schema.get("additionalProperties", True) is True
    if kind in (None, "object") and ("properties" in schema or not is_open):
        return ("properties", "additionalProperties")
    if kind in (None, "array"):
        return ("items",) if "items" in schema else ("prefixItems",)
    return ()


def _check_names(schema: Mapping[str, Any]) -> None:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return
    required = schema.get("required")
    names = (
        [each for each in required if isinstance(each, str)] if isinstance(required, list) else []
    )
    if len(properties.keys() - set(names)) > MAX_OPTIONAL:
        raise too_many_optional()
    if any(len(name) > MAX_NAME for name in properties):
        raise name_too_long()


def too_many_optional() -> UnusableSchemaError:
    return UnusableSchemaError(
        f"an object has more than {MAX_OPTIONAL} properties that are not required"
    )
