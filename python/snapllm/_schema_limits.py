"""How far a JSON schema reaches once its references are followed.

llama.cpp recurses along references, reads a schema once for each type in a list of them, and reads
what an `allOf` refers to wherever it stands: a short text may take all of the stack, or of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_MAX_LEVELS = 100
"""Of a schema as it is written, as of all JSON that llama.cpp reads."""
_MAX_PATH = 500
"""Of schemas within each other, with references followed as llama.cpp does."""
_MAX_READ = 50_000
"""Schemas that are read, again and again ones counted as often."""
_MAX_OPTIONAL = 500
"""Properties of one object that may be missing: the time goes with the third power."""
_MAX_NAME = 1000
"""Letters of a property's name. There is one level of recursion for each."""
_OF_SCHEMAS = ("properties", "additionalProperties", "allOf", "items", "prefixItems")


class SchemaTooLargeError(Exception):
    """A schema reaches farther than a grammar can be made of."""


def check_limits(schema: Mapping[str, Any]) -> None:
    """Checks a whole schema, in the order and the words of llama.cpp's reader.

    Raises:
        SchemaTooLargeError: It is too large or too deep; the message says how.
    """
    root = _part(schema)
    parts = {"": root}
    found = [ref.target for ref in root.refs]
    num_read = root.num_read
    while found:
        ref = found.pop()
        if ref in parts:
            continue
        parts[ref] = _part(_target(schema, ref))
        found += [each.target for each in parts[ref].refs]
        num_read += 1 + parts[ref].num_read
        if num_read > _MAX_READ:
            raise _too_many()
    if sum(_num_read(parts).values()) > _MAX_READ:
        raise _too_many()
    # It builds a tree of the schema first, then writes the grammar.
    deepest = max(_deepest(parts, in_place) for in_place in (False, True))
    if deepest > _MAX_PATH:
        raise SchemaTooLargeError(
            f"its references lead too deep ({deepest} schemas within each other, at most"
            f" {_MAX_PATH})"
        )


def _too_many() -> SchemaTooLargeError:
    return SchemaTooLargeError(f"it makes more than {_MAX_READ} schemas")


class _Reference(NamedTuple):
    target: str
    level: int
    """Where it stands: levels of its part down to it."""
    num_included: int
    """How often what it leads to is read in its place, as of an allOf; else it is read once for
    the whole schema."""


@dataclass(slots=True)
class _Part:
    """What is written in one place: the schema itself, or what a reference leads to."""

    levels: int = 0
    num_read: int = 0
    refs: list[_Reference] = field(default_factory=list)
    """In the order in which they are read."""

    @property
    def included(self) -> list[tuple[str, int]]:
        """References that are read again in each place, and how often in this one."""
        return [(ref.target, ref.num_included) for ref in self.refs if ref.num_included]


def _target(schema: Any, ref: str) -> Any:
    """What a reference leads to; None where it leads nowhere, which llama.cpp finds out."""
    for name in ref.removeprefix("#").split("/")[1:]:
        if isinstance(schema, Mapping):
            schema = schema.get(name)
        elif isinstance(schema, list) and name.isdecimal() and len(name) < 10:
            schema = schema[int(name)] if int(name) < len(schema) else None
        else:
            return None
    return schema


def _part(schema: Any) -> _Part:
    part = _Part()
    # (schema, levels above it, times it is read, whether it is one of an allOf)
    waiting: list[tuple[Any, int, int, bool]] = [(schema, 1, 1, False)]
    while waiting:
        at, level, times, is_included = waiting.pop()
        if not isinstance(at, Mapping):
            continue
        if level > _MAX_LEVELS:
            raise SchemaTooLargeError(f"it is nested too deeply (at most {_MAX_LEVELS} levels)")
        part.levels = max(part.levels, level)
        part.num_read += times
        if part.num_read > _MAX_READ:
            raise _too_many()
        ref = at.get("$ref")
        if isinstance(ref, str):
            if times:
                part.refs.append(_Reference(ref, level, times if is_included else 0))
            continue
        _check_properties(at)
        inner = [
            (each, level + 1, times * again, within)
            for each, again, within in _inner(at, is_included)
        ]
        waiting += reversed(inner)
    return part


def _inner(schema: Mapping[str, Any], is_included: bool) -> Iterator[tuple[Any, int, bool]]:
    """The schemas in one, as they are read; how often, and whether it is one of an allOf.

    Those that are not read come last: they are JSON all the same.
    """
    alternatives = schema.get("oneOf", schema.get("anyOf"))
    if isinstance(alternatives, list):
        yield from ((each, 1, is_included) for each in alternatives)
        return
    types = schema.get("type")
    types = types if isinstance(types, list) else [types]
    read = [keyword for each in types for keyword in _read_of(schema, each)]
    for keyword in dict.fromkeys((*read, *_OF_SCHEMAS)):
        value = schema.get(keyword)
        if keyword == "properties" and isinstance(value, Mapping):
            value = list(value.values())
        times = read.count(keyword)
        for each in value if isinstance(value, list) else [value]:
            yield each, times, keyword == "allOf"


def _read_of(schema: Mapping[str, Any], kind: Any) -> tuple[str, ...]:
    """The keywords whose schemas are read in one of a type, or of none, in their order."""
    if "const" in schema or "enum" in schema:
        return ()
    is_open = schema.get("additionalProperties", True) is True
    if kind in (None, "object") and ("properties" in schema or not is_open):
        return ("properties", "additionalProperties")
    if kind in (None, "object", "string") and "allOf" in schema:
        return ("allOf",)
    if kind in (None, "array"):
        return ("items",) if "items" in schema else ("prefixItems",)
    return ()


def _check_properties(schema: Mapping[str, Any]) -> None:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return
    required = schema.get("required")
    names = (
        [each for each in required if isinstance(each, str)] if isinstance(required, list) else []
    )
    if len(properties.keys() - set(names)) > _MAX_OPTIONAL:
        raise SchemaTooLargeError(
            f"an object has more than {_MAX_OPTIONAL} properties that are not required"
        )
    if any(len(name) > _MAX_NAME for name in properties):
        raise SchemaTooLargeError(f"a property's name has more than {_MAX_NAME} letters")


@dataclass(slots=True)
class _Step:
    """A part that is being read, from a reference to it."""

    ref: str
    level: int
    is_included: bool
    deepest: int
    waiting: Iterator[_Reference]


def _deepest(parts: Mapping[str, _Part], in_place: bool) -> int:
    """Levels of the deepest path when references are followed in the order they are written in.

    One to what is being read ends its path; one to what was read before counts with all of that,
    though it is not read again.

    Args:
        parts: By reference; the whole schema's is "".
        in_place: Read what an allOf refers to once more wherever it stands.
    """
    depths: dict[str, int] = {}
    opened: set[str] = set()
    path = [_Step("", 0, False, parts[""].levels, iter(parts[""].refs))]
    while path:
        step = path[-1]
        for ref in step.waiting:
            is_included = in_place and ref.num_included > 0
            if not is_included and ref.target in depths:
                step.deepest = max(step.deepest, ref.level + depths[ref.target])
            elif is_included or ref.target not in opened:
                if not is_included:
                    opened.add(ref.target)
                part = parts[ref.target]
                found = _Step(ref.target, ref.level, is_included, part.levels, iter(part.refs))
                path.append(found)
                break
        else:
            path.pop()
            if not step.is_included:
                depths[step.ref] = step.deepest
                opened.discard(step.ref)
            if path:
                path[-1].deepest = max(path[-1].deepest, step.level + step.deepest)
    return depths[""]


def _num_read(parts: Mapping[str, _Part]) -> dict[str, int]:
    """How many schemas are read for each part, with what it includes."""
    numbers: dict[str, int] = {}
    opened: set[str] = set()
    waiting = list(parts)
    while waiting:
        ref = waiting[-1]
        part = parts[ref]
        missing = [each for each, _ in part.included if each not in numbers]
        if ref in numbers or not missing:
            waiting.pop()
            opened.discard(ref)
            included = sum(times * numbers[each] for each, times in part.included)
            numbers.setdefault(ref, min(part.num_read + included, _MAX_READ + 1))
        elif opened.intersection(missing) or ref in missing:
            raise SchemaTooLargeError("an allOf includes itself")
        else:
            opened.add(ref)
            waiting += missing
    return numbers
