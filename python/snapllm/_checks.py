"""Checks of what callers give: errors name the argument or field at fault."""

from __future__ import annotations

import contextlib
import ipaddress
import operator
import re
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from os import PathLike, fspath
from pathlib import Path
from typing import Any, SupportsIndex, TypeVar

import msgspec

from snapllm._base64 import is_data_url
from snapllm._numbers import TokenId, Tokens
from snapllm.errors import InvalidRequestError, ModelFileNotFoundError
from snapllm.hub import is_reference

_T = TypeVar("_T")
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ENDPOINTS = ("load", "pin", "switch", "unload", "cache/stats")  # of /api/v1/models/
_HOST = re.compile(r"(\*\.)?[^\s.:/?#@*\[\]\\,]+(\.[^\s.:/?#@*\[\]\\,]+)*")


def convert(value: object, type_: type[_T], field: str = "", *, strict: bool = True) -> _T:
    """Checks a Python value against a type and its limits.

    Args:
        value: The value.
        type_: The type.
        field: What to call it in an error.
        strict: False = texts stand for the numbers they spell, as in a URL's query.

    Raises:
        InvalidRequestError: The value does not fit; `param` names the field at fault.
    """
    try:
        return msgspec.convert(value, type_, strict=strict)
    except msgspec.ValidationError as error:
        raise invalid_field(str(error), field, type_) from None
    except UnicodeEncodeError:
        raise invalid_field("half of a surrogate pair", field) from None
    except RecursionError:
        raise invalid_field("it is nested too deeply, or within itself", field) from None


def plain_number(value: object) -> object:
    """A number of another library's, as NumPy's, or its truth value, as one of Python's; all else
    as it is."""
    if isinstance(value, int):
        return value
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    try:
        return float(value) if isinstance(value, Real) else value
    except OverflowError:
        return value  # a fraction that is no float: as little a number as any other type


def check_text(text: object, field: str) -> str:
    """The text, where it is one that can be encoded.

    Raises:
        InvalidRequestError: It is no text, or holds half of a surrogate pair.
    """
    if not isinstance(text, str):
        raise InvalidRequestError(f"{field}: expected text, not {type(text).__name__}", param=field)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{field}: half of a surrogate pair", param=field) from None
    return text


def plain_text(text: object, field: str) -> str:
    """`check_text`; of a subclass, as NumPy's, as Python's own text."""
    return str.__str__(check_text(text, field))


def check_grammar(grammar: object) -> str:
    """The grammar, where llama.cpp reads all of it: a NUL would be its end.

    Raises:
        InvalidRequestError: As of `check_text`, or it holds a NUL.
    """
    if "\0" in (text := check_text(grammar, "grammar")):
        raise InvalidRequestError("grammar: it holds a NUL", param="grammar")
    return text


def check_model_id(model_id: object) -> str:
    """The id, where a URL can hold it: clients and proxies take `.` and `..` for steps of the
    path, and refuse or drop control characters.

    Raises:
        InvalidRequestError: It is none.
    """
    text = check_text(model_id, "model_id")
    if text in (".", "..") or CONTROL_CHARACTER.search(text):
        raise InvalidRequestError(
            f"model_id must not be {text!r}: no URL can hold it", param="model_id"
        )
    if text in _ENDPOINTS:
        raise InvalidRequestError(
            f"model_id must not be {text!r}: /api/v1/models/{text} is something else",
            param="model_id",
        )
    return text


def is_file(path: Path) -> bool:
    """Whether there is such a file; `Path`'s own raises where a name is too long to be one."""
    with contextlib.suppress(OSError):
        return path.is_file()
    return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; see `is_file`."""
    with contextlib.suppress(OSError):
        return path.is_dir()
    return False


def path_text(path: str | PathLike[str], field: str) -> str:
    """The path as text, absolute: the program may go on in another folder. "" stays that.

    Raises:
        InvalidRequestError: It is none, or holds a NUL.
    """
    text = fspath(path) if isinstance(path, str | PathLike) else path
    if not isinstance(text, str):
        raise InvalidRequestError(
            f"{field}: expected a path, not {type(path).__name__}", param=field
        )
    if "\0" in text:
        raise InvalidRequestError(f"{field}: {text!r} holds a NUL", param=field)
    try:
        return str(Path(text).absolute()) if text else ""
    except OSError:  # the folder that it is relative to is gone: so is what it names
        return text


def check_path(path: str | PathLike[str], field: str) -> str:
    """`path_text`, which is UTF-8 here: a model's is shown in JSON.

    Raises:
        InvalidRequestError: It is not, or is no path.
    """
    text = path_text(path, field)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{field}: {text!r} is not UTF-8", param=field) from None
    return text


def file_path(path: str | PathLike[str]) -> str:
    """`path_text` of a file, which is not empty: that would be the current folder.

    Raises:
        InvalidRequestError: As `path_text`, or it is empty.
    """
    if not (text := path_text(path, "path")):
        raise InvalidRequestError("path must not be empty", param="path")
    return text


def check_model_path(path: str | PathLike[str]) -> str:
    """`check_path` of a model's file, which is not empty.

    Raises:
        InvalidRequestError: As `check_path`, or it is empty.
        ModelFileNotFoundError: It names a model of the hub, as a command line may.
    """
    text = check_path(file_path(path), "path")
    if is_reference(name := fspath(path)) and not is_file(Path(text)):
        raise ModelFileNotFoundError(
            f"{name} is no file, and models of the hub are not downloaded here: "
            "`snapllm pull` (snapllm.hub.fetch) does that, and says where their files are",
            filename=name,
        )
    return text


def check_host(host: str, field: str) -> str:
    """The host name, address, or ``*.`` and a domain.

    Raises:
        InvalidRequestError: It is something else, as a URL.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not _HOST.fullmatch(host):
            raise InvalidRequestError(
                f"{field}: expected a host as images.example.org or *.example.org, not {host!r}",
                param=field,
            ) from None
    return host


def as_list(value: object, field: str) -> list[Any]:
    """What a sequence, or anything else that can be gone through, holds; a text is none.

    Raises:
        InvalidRequestError: It is none.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidRequestError(
            f"{field}: expected a sequence, not {type(value).__name__}", param=field
        )
    return list(value)


def as_images(value: object, field: str) -> list[Any]:
    """The pictures of a sequence, or a single one; paths are made absolute.

    Raises:
        InvalidRequestError: It is neither, or a path is none.
    """
    # Arrays and Pillow's images. Of an array, three dimensions are one picture's.
    is_pixels = hasattr(type(value), "__array_interface__") and getattr(value, "ndim", 2) in (2, 3)
    is_file = isinstance(value, str | PathLike | bytes | bytearray | memoryview)
    # An open file could be gone through, but its lines are no pictures: it is refused as one.
    is_open_file = hasattr(value, "read")
    pictures = [value] if is_pixels or is_file or is_open_file else as_list(value, field)
    for i, each in enumerate(pictures):
        check_no_data_url(each, f"{field}[{i}]")
    return [
        path_text(each, f"{field}[{i}]") if isinstance(each, str | PathLike) else each
        for i, each in enumerate(pictures)
    ]


def check_no_data_url(picture: object, field: str) -> None:
    """Raises `InvalidRequestError` for a data URL in a path's place, whose own error would show
    all of it."""
    if isinstance(picture, str) and is_data_url(picture):
        raise InvalidRequestError(
            f"{field}: a data URL is no path: give the bytes that it holds", param=field
        )


def as_dict(value: object, field: str) -> dict[Any, Any]:
    """A mapping as a dict.

    Raises:
        InvalidRequestError: It is none.
    """
    if not isinstance(value, Mapping):
        raise InvalidRequestError(
            f"{field}: expected a mapping, not {type(value).__name__}", param=field
        )
    return dict(value)


_MAX_KEY = 64


def member(field: str, key: str) -> str:
    """What to call the member of a field in an error; a long key is cut."""
    return f"{field}.{key}" if len(key) <= _MAX_KEY else f"{field}.{key[:_MAX_KEY]}..."


_PATH = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`(?P<path>\$[^`]*)`)?$", re.DOTALL)
_NAMED = re.compile(r"(?:field|argument) `(?P<name>[^`]*)`")


def invalid_field(problem: str, field: str = "", type_: Any = None) -> InvalidRequestError:
    """Turns a `msgspec` message into an error that names the field at fault, and what it may be
    where that is one of a few values of the type."""
    match = _PATH.match(problem)
    what, path = (match["what"], match["path"] or "") if match else (problem, "")
    param = field + path.removeprefix("$")
    named = _NAMED.search(what)
    if named:
        param = f"{param}.{named['name']}"
    param = param.removeprefix(".")
    what = what.replace("`", "'")
    if type_ is not None and what.startswith("Invalid enum value"):
        from snapllm._choices import choices  # what it needs is imported for errors only

        if allowed := choices(type_, path):
            what += f": it may be {', '.join(map(repr, allowed))}"
    return InvalidRequestError(f"{param}: {what}" if param else what, param=param or None)


def token_ids(tokens: Tokens, field: str, expected: str = "token ids") -> list[int]:
    """The token ids as Python's integers.

    Raises:
        InvalidRequestError: They are none; `param` is the field, or the place in it.
    """
    try:
        if isinstance(tokens, bytes | bytearray):
            raise TypeError
        plain = list(map(_plain_token, tokens))
    except TypeError:
        raise InvalidRequestError(f"{field}: expected {expected}", param=field) from None
    return convert(plain, list[TokenId], field)


def _plain_token(token: SupportsIndex) -> int:
    if isinstance(token, bool):
        raise TypeError
    return operator.index(token)  # NumPy's integers too
