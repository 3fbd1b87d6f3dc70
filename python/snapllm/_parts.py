"""Names of the files of a split model: ``NAME-00001-of-00003.gguf`` and so on, as llama.cpp's
gguf-split writes them."""

from __future__ import annotations

import re
from typing import NamedTuple

_PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<num_parts>\d{5})")


class PartName(NamedTuple):
    """What the name of a file says, without its suffix; one that is whole is the only part."""

    name: str
    number: int = 1
    num_parts: int = 1
    is_part: bool = False

    def of(self, number: int) -> str:
        """The name of another part, without its suffix."""
        return f"{self.name}-{number:05}-of-{self.num_parts:05}"


def part_name(stem: str) -> PartName:
    """Reads a file's name, which may have folders before it and has no suffix."""
    match = _PART.fullmatch(stem)
    if match is None:
        return PartName(stem)
    return PartName(match["name"], int(match["number"]), int(match["num_parts"]), True)
