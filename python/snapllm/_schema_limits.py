"""How far a JSON schema reaches once its references are followed.

llama.cpp recurses along references, reads a schema once for each type in a list of them, reads what
an `allOf` refers to wherever it stands, and goes through alternatives for each question it has: a
short text may take all of the stack, or of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from snapllm._schema_faults import UnusableSchemaError
from snapllm._schema_parts import (
    MAX_NAME,
    MAX_OPTIONAL,
    MAX_READ,
    Part,
    Reference,
    includes_itself,
    name_too_long,
    read_parts,
    too_many_optional,
    too_many_schemas,
)

_MAX_PATH = 500
"""Of schemas within each other, with references followed as llama.cpp does."""


def check_limits(schema: Mapping[str, Any]) -> None:
    """Checks a whole schema, in the order and the words of llama.cpp's reader.

    Raises:
        UnusableSchemaError: It is too large or too deep, or has no end; the message says how.
    """
    parts = read_parts(schema)
    num_read = _fold(parts, Part.included, _num_read)
    # What leads on to another schema and is no more is not read with it where it stands alone.
    if sum(1 if parts[ref].is_reference else num for ref, num in num_read.items()) > MAX_READ:
        raise too_many_schemas()
    if max(_fold(parts, Part.included, _num_letters).values()) > MAX_NAME:
        raise name_too_long()
    # It builds a tree of the schema first, then writes the grammar.
    deepest = max(_deepest(parts, in_place) for in_place in (False, True))
    if deepest > _MAX_PATH:
        raise UnusableSchemaError(
            f"its references lead too deep ({deepest} schemas within each other, at most"
            f" {_MAX_PATH})"
        )
    _check_alternatives(parts)


@dataclass(slots=True)
class _Step:
    """A part that is being read, from a reference to it."""

    ref: str
    level: int
    is_included: bool
    deepest: int
    waiting: Iterator[Reference]


def _deepest(parts: Mapping[str, Part], in_place: bool) -> int:
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
            # What an allOf refers to may be another reference, which is followed there and then.
            leads_on = step.is_included and parts[step.ref].is_reference
            is_included = in_place and (ref.num_included > 0 or leads_on)
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


def _check_alternatives(parts: Mapping[str, Part]) -> None:
    """Checks what llama.cpp goes through anew wherever it asks what types a value may have."""
    numbers = _fold(parts, Part.alternatives, _num_alternatives)
    # It asks for one property after the other, each of which may be a reference.
    if sum(numbers[ref.target] for ref in parts[""].refs) > MAX_READ:
        raise too_many_schemas()
    num_properties = _fold(parts, Part.itself, _num_of_objects)
    for part in parts.values():
        for union in part.unions:
            more = sum(num_properties[ref] for ref in union.targets if ref in parts)
            if union.num_properties + more > MAX_OPTIONAL:
                raise too_many_optional()


_Inner: TypeAlias = list[tuple[Reference, int, int]]
"""References, how often each is followed, and the number of what it leads to."""


def _num_read(part: Part, inner: _Inner) -> int:
    """How many schemas are read for a part, with what it includes."""
    return part.num_read + sum(times * number for _, times, number in inner)


def _num_letters(part: Part, inner: _Inner) -> int:
    """Letters of the longest path of properties' names, through what is included."""
    return max(part.num_letters, *(ref.num_letters + number for ref, _, number in inner), 0)


def _num_alternatives(part: Part, inner: _Inner) -> int:
    """Schemas of one and the same value, each as often as there are ways to it."""
    return part.num_alternatives + sum(number for _, _, number in inner)


def _num_of_objects(part: Part, inner: _Inner) -> int:
    """Properties of the object that a part is, or that a reference leads to in the end."""
    return part.num_properties + sum(number for _, _, number in inner)


def _fold(
    parts: Mapping[str, Part],
    followed: Callable[[Part], list[tuple[Reference, int]]],
    number_of: Callable[[Part, _Inner], int],
) -> dict[str, int]:
    """A number for each part, made of those of the parts that it leads to.

    Raises:
        UnusableSchemaError: A part leads to itself.
    """
    numbers: dict[str, int] = {}
    opened: set[str] = set()
    waiting = list(parts)
    while waiting:
        ref = waiting[-1]
        inner = followed(parts[ref])
        missing = [each.target for each, _ in inner if each.target not in numbers]
        if ref in numbers or not missing:
            waiting.pop()
            opened.discard(ref)
            if ref not in numbers:
                known = [(each, times, numbers[each.target]) for each, times in inner]
                numbers[ref] = min(number_of(parts[ref], known), MAX_READ + 1)
        elif opened.intersection(missing) or ref in missing:
            raise includes_itself()
        else:
            opened.add(ref)
            waiting += missing
    return numbers
