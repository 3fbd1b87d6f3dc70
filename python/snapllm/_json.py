"""JSON of what callers give: made in one way, and within what llama.cpp reads in little time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from snapllm._checks import plain_number
from snapllm.errors import InvalidRequestError

_MAX_MEMBERS = 10_000
"""Of one object. llama.cpp keeps them in a list, which it goes through for each: with twice as many
it takes four times as long."""
_MAX_BITS = 1023
"""Of an integer, which is a float to llama.cpp where it is too large for one."""


def encode_json(value: object, field: str) -> str:
    """A value as JSON text. Texts, numbers and mappings may be of other libraries' types.

    Raises:
        InvalidRequestError: JSON knows no such value, or it is nested too deeply, as within
            itself; `param` is the field.
    """
    try:
        return msgspec.json.encode(value, enc_hook=_plain).decode()
    except RecursionError:
        problem = "it is nested too deeply, or within itself"
    except UnicodeEncodeError:
        problem = "half of a surrogate pair"
    except ValueError:
        problem = "a number has too many digits"
    except TypeError as error:
        problem = str(error)
    raise InvalidRequestError(f"{field}: {problem}", param=field)


def plain_json(value: object, field: str) -> Any:
    """A value as its JSON is read: of nothing but Python's own dicts, lists, texts and numbers.

    Raises:
        InvalidRequestError: As of `encode_json`, or an object or a number in it is too large.
    """
    return read_json(encode_json(value, field), field)


def read_json(text: str, field: str) -> Any:
    """What JSON text says, as it is to be given to llama.cpp.

    Raises:
        InvalidRequestError: It is no JSON, or an object or a number in it is too large; `param` is
            the field.
    """
    try:
        value = msgspec.json.decode(text.encode())
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{field}: {error}", param=field) from None
    check_sizes(value, field)
    return value


def check_sizes(value: object, field: str) -> None:
    """Checks all objects and numbers within a value that was read from JSON.

    Raises:
        InvalidRequestError: One is too large; `param` is the field.
    """
    waiting = [value]
    while waiting:
        at = waiting.pop()
        if isinstance(at, dict):
            if len(at) > _MAX_MEMBERS:
                raise InvalidRequestError(
                    f"{field}: an object has {len(at)} members, at most {_MAX_MEMBERS} are allowed",
                    param=field,
                )
            waiting += at.values()
        elif isinstance(at, list):
            waiting += at
        elif isinstance(at, int) and at.bit_length() > _MAX_BITS:
            raise InvalidRequestError(f"{field}: a number is too large", param=field)


def _plain(value: object) -> object:
    """What `msgspec` does not know in its own types, where there is such a thing."""
    if isinstance(value, str):
        return str.__str__(value)  # without what a subclass makes of it
    if isinstance(value, Mapping):
        return dict(value)
    number = plain_number(value)
    if number is value:
        raise TypeError(f"JSON has no value for {type(value).__name__}")
    return number
