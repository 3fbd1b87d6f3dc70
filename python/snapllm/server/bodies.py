"""Reading requests' bodies: large ones beside the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from snapllm.errors import InvalidRequestError
from snapllm.server.keys import threads_of

_T = TypeVar("_T")

QUICK_BYTES = 1 << 17
"""A thread would take longer to wake than reading so much takes."""
_FORM = "multipart/form-data"
_PATTERNS = (b'"pattern"', b'regex"')
"""Regular expressions are rewritten as they are read."""


async def read_body(request: web.Request, parse: Callable[[bytes], _T]) -> _T:
    """What a request's body says.

    Args:
        request: The request.
        parse: Reads the body, on any thread; what it raises is raised.
    """
    body = await request.read()
    if len(body) <= QUICK_BYTES and not any(name in body for name in _PATTERNS):
        return parse(body)
    return await threads_of(request).parsing.run(parse, body)


async def read_form(request: web.Request) -> dict[str, list[str | bytes]]:
    """The values of each field of a form: text, or the bytes of a file.

    Raises:
        InvalidRequestError: The body is no such form.
        HTTPRequestEntityTooLarge: It is longer than bodies may be.
    """
    if request.content_type != _FORM:
        raise InvalidRequestError(f"the body must be a form: {_FORM}")
    try:
        form = await request.post()
    except (ValueError, LookupError, AssertionError, HttpProcessingError) as error:
        raise InvalidRequestError(f"the form cannot be read: {error}") from None
    fields: dict[str, list[str | bytes]] = {}
    for name, value in form.items():
        content = value.file.read() if isinstance(value, web.FileField) else value
        fields.setdefault(name, []).append(content if isinstance(content, str) else bytes(content))
    return fields
