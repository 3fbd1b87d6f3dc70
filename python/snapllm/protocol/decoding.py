"""Reading request bodies: JSON into checked types, errors that name the field."""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import re
from typing import Any, TypeVar

import msgspec

from snapllm._checks import invalid_field, member
from snapllm._core import json_depth
from snapllm.errors import InvalidRequestError

_T = TypeVar("_T")
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}"
    rb"|(?P<half>\\u[dD][89a-fA-F][\da-fA-F]{2})"
    rb"|\\.",
    re.DOTALL,
)

_OWN_FIELD = re.compile(r"`\$\.(\w+)`$")
_ANY_KEY = re.compile(r"(\w+)\[\.\.\.\]")

# Far deeper than any real request, and within what recursive readers can take.
MAX_JSON_DEPTH = 100
_MAX_WHOLE = 2**53  # above it a float may stand for several


def decode_body(body: bytes, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Decodes a request body. A field that is null and cannot be counts as not given, and 5.0 is
    5, as in JSON Schema.

    Raises:
        InvalidRequestError: It is no JSON, or a field does not fit; `param` names it.
    """
    body = body.removeprefix(codecs.BOM_UTF8)  # as RFC 8259, section 8.1, allows
    if not body:
        raise InvalidRequestError("the request body is empty")
    if json_depth(body) > MAX_JSON_DEPTH:
        raise InvalidRequestError(f"the request body is nested deeper than {MAX_JSON_DEPTH} levels")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        if _may_be_whole(error):
            return _decode_whole_numbers(body, decoder, error)
        return _decode_without_nulls(body, decoder, error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = _invalid_utf8(body) or _half_of_a_pair(body) or str(error)
        raise InvalidRequestError(f"the request body is not valid JSON: {problem}") from None


def _may_be_whole(error: msgspec.ValidationError) -> bool:
    """Whether a number that should be whole has a fraction, if it is not one of zero."""
    return "Expected `int" in str(error) and "got `float`" in str(error)


def _decode_whole_numbers(
    body: bytes, decoder: msgspec.json.Decoder[_T], error: msgspec.ValidationError
) -> _T:
    body = _with_whole_numbers(body)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as other:
        error = other
    return _decode_without_nulls(body, decoder, error)


def _with_whole_numbers(body: bytes) -> bytes:
    """The body with 5.0 written as 5; as it is where that cannot be."""

    def number(text: str) -> int | float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(text)
        return int(value) if value.is_integer() and abs(value) <= _MAX_WHOLE else value

    def refuse(text: str) -> float:
        raise ValueError(text)

    try:
        found = json.loads(body, parse_float=number, parse_constant=refuse)
        return msgspec.json.encode(found)
    except (ValueError, OverflowError, RecursionError):
        return body


def _invalid_utf8(body: bytes) -> str:
    """What of the body is no UTF-8, by its place in the body; the decoder says it by its place
    in the text that it stands in, or does not."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return str(error)
    return ""


def _half_of_a_pair(body: bytes) -> str:
    """The first half of a surrogate pair without the other; to the decoder the body ends there."""
    for escape in _ESCAPES.finditer(body):
        if escape["half"] and escape.end() < len(body):
            half = escape["half"].decode()
            return f"{half} at byte {escape.start()} is half of a surrogate pair"
    return ""


def _decode_without_nulls(
    body: bytes, decoder: msgspec.json.Decoder[_T], error: msgspec.ValidationError
) -> _T:
    """Decodes an object without those of its own fields that are null and cannot be.

    Raises:
        InvalidRequestError: There is another fault.
    """
    refused = error
    fields: dict[str, msgspec.Raw] = {}
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    while (name := _own_field(refused)) in fields and bytes(fields[name]) == b"null":
        del fields[name]
        try:
            return decoder.decode(msgspec.json.encode(fields))
        except msgspec.ValidationError as other:
            if f"missing required field `{name}`" in str(other):
                break
            refused = other
    if _may_be_whole(refused) and fields:
        with contextlib.suppress(msgspec.ValidationError):
            return decoder.decode(_with_whole_numbers(msgspec.json.encode(fields)))
    raise _with_key(invalid_field(str(refused), type_=decoder.type), fields, decoder.type) from None


def _with_key(
    error: InvalidRequestError, fields: dict[str, msgspec.Raw], body_type: Any
) -> InvalidRequestError:
    """The error with the key of the member at fault, for which the decoder has `[...]`, where that
    is of one of the body's own fields."""
    param = error.param or ""
    found = _ANY_KEY.match(param)
    if found is None or found[1] not in fields:
        return error
    types = {field.encode_name: field.type for field in msgspec.structs.fields(body_type)}
    member_of = msgspec.json.Decoder(types[found[1]])
    for key, value in msgspec.json.decode(fields[found[1]], type=dict[str, msgspec.Raw]).items():
        try:
            member_of.decode(msgspec.json.encode({key: value}))
        except msgspec.ValidationError:
            named = member(found[1], key)
            message = error.message.replace(found[0], named, 1)
            return InvalidRequestError(message, param=param.replace(found[0], named, 1))
    return error


def _own_field(error: msgspec.ValidationError) -> str:
    """The field of the body itself that is at fault."""
    found = _OWN_FIELD.search(str(error))
    return found[1] if found else ""
