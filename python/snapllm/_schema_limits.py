"""How far a JSON schema reaches once its references are followed.

llama.cpp recurses along references, reads a schema once for each type in a list of them, and reads
what an `allOf` refers to wherever it stands: a short text may take all of the stack, or of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_MAX_LEVELS = 100
"""Of a schema as it is written, as of all JSON that llama.cpp reads."""
_MAX_PATH = 500
"""Of schemas within each other, with references followed."""
_MAX_READ = 50_000
"""Schemas that are read, again and again ones counted as often."""
_MAX_OPTIONAL = 500
"""Properties of one object that may be missing: the time goes with the third power."""
_MAX_NAME = 1000
"""Letters of a property's name. There is one level of recursion for each."""


class SchemaTooLargeError(Exception):
    """A schema reaches farther than a grammar can be made of."""


def check_limits(schema: Mapping[str, Any]) -> None:
    """Checks a whole schema, in the order and the words of llama.cpp's reader.

    Raises:
        SchemaTooLargeError: It is too large or too deep; the message says how.
    """
    root = _part(schema)
    parts = {"": root}
    found = list(root.refs)
    num_read = root.num_read
    while found:
        ref = found.pop()
        if ref in parts:
            continue
        parts[ref] = _part(_target(schema, ref))
        found += parts[ref].refs
        num_read += 1 + parts[ref].num_read
        if num_read > _MAX_READ:
            raise _too_many()
    if _longest_path(parts) > _MAX_PATH:
        raise SchemaTooLargeError(
            f"its references lead too deep (at most {_MAX_PATH} schemas within each other)"
        )
    if sum(_num_read(parts).values()) > _MAX_READ:
        raise _too_many()


def _too_many() -> SchemaTooLargeError:
    return SchemaTooLargeError(f"it makes more than {_MAX_READ} schemas")


@dataclass(slots=True)
class _Part:
    """What is written in one place: the schema itself, or what a reference leads to."""

    levels: int = 0
    num_read: int = 0
    refs: list[str] = field(default_factory=list)
    included: list[tuple[str, int]] = field(default_factory=list)
    """References that are read again in each place, and how often in this one."""


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
            part.refs.append(ref)
            if is_included:
                part.included.append((ref, times))
            continue
        _check_properties(at)
        waiting += [
            (each, level + 1, times * again, within)
            for each, again, within in _inner(at, is_included)
        ]
    return part


def _inner(schema: Mapping[str, Any], is_included: bool) -> Iterator[tuple[Any, int, bool]]:
    """The schemas in one, how often each is read, and whether it is one of an allOf."""
    alternatives = schema.get("oneOf", schema.get("anyOf"))
    if isinstance(alternatives, list):
        yield from ((each, 1, is_included) for each in alternatives)
        return
    types = schema.get("type")
    types = types if isinstance(types, list) else [types]
    objects = sum(each in ("object", None) for each in types)
    arrays = sum(each in ("array", None) for each in types)
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        yield from ((each, objects, False) for each in properties.values())
    yield schema.get("additionalProperties"), objects, False
    for keyword in ("items", "prefixItems"):
        items = schema.get(keyword)
        for each in items if isinstance(items, list) else [items]:
            yield each, arrays, False
    parts = schema.get("allOf")
    if isinstance(parts, list):
        times = sum(each in ("object", "string", None) for each in types)
        yield from ((each, times, True) for each in parts)


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


def _longest_path(parts: Mapping[str, _Part]) -> int:
    """Levels of the longest path of references, at most: cycles count once, as a whole."""
    users: dict[str, list[str]] = {ref: [] for ref in parts}
    left = {}
    for ref, part in parts.items():
        refs = set(part.refs)
        left[ref] = len(refs)
        for each in refs:
            users[each].append(ref)
    below = dict.fromkeys(parts, 0)
    ready = [ref for ref, num in left.items() if not num]
    longest = 0
    while ready:
        ref = ready.pop()
        del left[ref]
        levels = below[ref] + parts[ref].levels
        longest = max(longest, levels)
        for user in users[ref]:
            below[user] = max(below[user], levels)
            left[user] -= 1
            if not left[user]:
                ready.append(user)
    # What is left leads into a cycle.
    return longest + sum(parts[ref].levels for ref in left)


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
