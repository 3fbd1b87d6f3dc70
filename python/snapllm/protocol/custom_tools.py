"""Custom tools: what a call's arguments say of the text that such a tool is called with.

The model calls a function whose one parameter is a text (`conversation.text_tool`); the
client gets that text, piece by piece as the JSON string that holds it is written.
"""

from __future__ import annotations

import contextlib
import re

import msgspec

from snapllm.conversation import TEXT_PARAMETER

_WRAPPER = f'{{"{TEXT_PARAMETER}":"'
_BEGINNING = re.compile(rf'\s*\{{\s*"{TEXT_PARAMETER}"\s*:\s*"')
# What of a JSON string can be read on its own: characters, escapes, both halves of a pair.
_WHOLE = re.compile(
    r"(?:[^\"\\\x00-\x1f]"
    r"|\\[^u]"
    r"|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}"
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})+"
)


class TextReader:
    """Reads the text out of the arguments of one call."""

    def __init__(self) -> None:
        self._arguments = ""
        self._position = 0
        """How far the text has been read; 0 = it has not begun."""

    def read(self, arguments: str) -> str:
        """The text that the next piece of the arguments brings."""
        self._arguments += arguments
        if self._position == 0:
            beginning = _BEGINNING.match(self._arguments)
            if beginning is None:
                return ""
            self._position = beginning.end()
        whole = _WHOLE.match(self._arguments, self._position)
        if whole is None:
            return ""
        with contextlib.suppress(msgspec.DecodeError):
            text = msgspec.json.decode(f'"{whole[0]}"', type=str)
            self._position = whole.end()
            return text
        return ""

    def rest(self) -> str:
        """What is left at the end: all of it, where the arguments were not of that form. Where
        they were cut off before the text, there is none."""
        if self._position > 0 or _WRAPPER.startswith("".join(self._arguments.split())):
            return ""
        with contextlib.suppress(msgspec.DecodeError):
            given = msgspec.json.decode(self._arguments, type=dict[str, str])
            return given.get(TEXT_PARAMETER, self._arguments)
        return self._arguments


def text_of(arguments: str) -> str:
    """The text of a whole call."""
    reader = TextReader()
    return reader.read(arguments) + reader.rest()
