"""What a field of a type may be, for the message to whoever gave something else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec.inspect as inspect

_STEP = re.compile(r"\.(?P<name>\w+)|\[[^\]]*\]")


def choices(type_: Any, path: str) -> list[bool | int | str | None]:
    """The values that the field takes whose values are few; none where it takes others too.

    Args:
        type_: What the value was to be.
        path: Where in it the field is, as `msgspec` says it: ``$.a[0].b``.
    """
    found = list(_plain(inspect.type_info(type_)))
    for step in _STEP.finditer(path):
        found = [inner for info in found for inner in _inner(info, step["name"])]
    return [
        value for info in found if isinstance(info, inspect.LiteralType) for value in info.values
    ]


def _plain(info: inspect.Type) -> Iterator[inspect.Type]:
    """The type without what is said about it, or each that it may be."""
    if isinstance(info, inspect.Metadata):
        yield from _plain(info.type)
    elif isinstance(info, inspect.UnionType):
        for each in info.types:
            yield from _plain(each)
    else:
        yield info


def _inner(info: inspect.Type, name: str | None) -> Iterator[inspect.Type]:
    """What a field of the name is, or an element where there is no name."""
    if isinstance(info, inspect.StructType | inspect.TypedDictType) and name is not None:
        for field in info.fields:
            if field.encode_name == name:
                yield from _plain(field.type)
    elif isinstance(info, inspect.DictType):
        yield from _plain(info.value_type)
    elif isinstance(info, inspect.CollectionType) and name is None:
        yield from _plain(info.item_type)
