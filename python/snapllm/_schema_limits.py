"""How far a JSON schema reaches once its references are followed.

llama.cpp recurses along references, reads a schema once for each type in a list of them, and goes
through alternatives for each question it has: a short text may take all of the stack, or of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from snapllm._schema_faults import UnusableSchemaError
from snapllm._schema_parts import (
    MAX_NAME,
    MAX_READ,
    Part,
    Reference,
    includes_itself,
    name_too_long,
    read_parts,
    too_many_schemas,
)

_MAX_PATH = 500
"""Of schemas within each other, with references followed as llama.cpp does."""


def check_limits(schema: Mapping[str, Any]) -> None:
    """Checks a whole schema, in the order and the words of llama.cpp's reader.

    REQUIRES: it is in the forms that `in_forms` makes: no allOf is read.

    Raises:
        UnusableSchemaError: It is too large or too deep, or has no end; the message says how.
    """
    parts = read_parts(schema)
    if max(part.num_letters for part in parts.values()) > MAX_NAME:
        raise name_too_long()
    deepest = _deepest(parts)
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
    deepest: int
    waiting: Iterator[Reference]


def _deepest(parts: Mapping[str, Part]) -> int:
    """Levels of the deepest path when references are followed in the order they are written in.

    One to what is being read ends its path; one to what was read before counts with all of that,
    though it is not read again.

    Args:
        parts: By reference; the whole schema's is "".
    """
    depths: dict[str, int] = {}
    opened: set[str] = set()
    path = [_Step("", 0, parts[""].levels, iter(parts[""].refs))]
    while path:
        step = path[-1]
        for ref in step.waiting:
            if ref.target in depths:
                step.deepest = max(step.deepest, ref.level + depths[ref.target])
            elif ref.target not in opened:
                opened.add(ref.target)
                part = parts[ref.target]
                path.append(_Step(ref.target, ref.level, part.levels, iter(part.refs)))
                break
        else:
            path.pop()
            depths[step.ref] = step.deepest
            opened.discard(step.ref)
            if path:
                path[-1].deepest = max(path[-1].deepest, step.level + step.deepest)
    return depths[""]


def _check_alternatives(parts: Mapping[str, Part]) -> None:
    """Checks what llama.cpp goes through anew wherever it asks what types a value may have."""
    numbers = _num_alternatives(parts)
    # It asks for one property after the other, each of which may be a reference.
    if sum(numbers[ref.target] for ref in parts[""].refs) > MAX_READ:
        raise too_many_schemas()


def _num_alternatives(parts: Mapping[str, Part]) -> dict[str, int]:
    """Schemas of one and the same value for each part, each as often as there are ways to it.

    Raises:
        UnusableSchemaError: A part leads to itself.
    """
    numbers: dict[str, int] = {}
    opened: set[str] = set()
    waiting = list(parts)
    while waiting:
        ref = waiting[-1]
        targets = [each.target for each in parts[ref].alternatives()]
        missing = [target for target in targets if target not in numbers]
        if ref in numbers or not missing:
            waiting.pop()
            opened.discard(ref)
            if ref not in numbers:
                number = parts[ref].num_alternatives + sum(numbers[each] for each in targets)
                numbers[ref] = min(number, MAX_READ + 1)
        elif opened.intersection(missing) or ref in missing:
            raise includes_itself()
        else:
            opened.add(ref)
            waiting += missing
    return numbers
