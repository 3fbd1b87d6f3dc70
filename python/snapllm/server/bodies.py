"""Reading requests' bodies: large ones beside the event loop."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import TypeVar

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from snapllm.errors import InvalidRequestError
from snapllm.server.keys import OPTIONS, threads_of

_T = TypeVar("_T")

QUICK_BYTES = 1 << 17
"""A thread would take longer to wake than reading so much takes."""
_FORM = "multipart/form-data"
_FORM_FAULTS = (ValueError, LookupError, AssertionError, RuntimeError, zlib.error)
"""What aiohttp raises for what is no form, besides errors of its own."""
_PATTERNS = (b'"pattern"', b'regex"')
"""Regular expressions are rewritten as they are read."""


async def read_whole(request: web.Request) -> bytes:
    """A request's body. Other requests have their turns while one is decompressed, which may take
    a second.

    Raises:
        HTTPRequestEntityTooLarge: It is longer than bodies may be.
    """
    if "Content-Encoding" not in request.headers:
        return await request.read()
    limit, body = request.app[OPTIONS].max_body_bytes, bytearray()
    while piece := await request.content.readany():
        body += piece
        if len(body) > limit:
            raise web.HTTPRequestEntityTooLarge(limit, len(body))
        await asyncio.sleep(0)
    return bytes(body)


async def read_body(request: web.Request, parse: Callable[[bytes], _T]) -> _T:
    """What a request's body says.

    Args:
        request: The request.
        parse: Reads the body, on any thread; what it raises is raised.
    """
    body = await read_whole(request)
    if len(body) <= QUICK_BYTES and not any(name in body for name in _PATTERNS):
        return parse(body)
    return await threads_of(request).parsing.run(parse, body)


async def read_form(
    request: web.Request, parse: Callable[[dict[str, list[str | bytes]]], _T]
) -> _T:
    """What a form says.

    Args:
        request: The request.
        parse: Reads the values of each field, text or the bytes of a file, on any thread; what it
            raises is raised.

    Raises:
        InvalidRequestError: The body is no such form.
        HTTPRequestEntityTooLarge: It is longer than bodies may be.
    """
    if request.content_type != _FORM:
        raise InvalidRequestError(f"the body must be a form: {_FORM}")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        # While aiohttp unpacks one, nobody else has a turn.
        raise InvalidRequestError("a form is sent as it is, without Content-Encoding")
    try:
        form = await request.post()
    except (HttpProcessingError, *_FORM_FAULTS) as error:
        raise InvalidRequestError(f"the form cannot be read: {error}") from None

    def work() -> _T:
        fields: dict[str, list[str | bytes]] = {}
        for name, value in form.items():
            content = value.file.read() if isinstance(value, web.FileField) else value
            content = content if isinstance(content, str) else bytes(content)
            fields.setdefault(name, []).append(content)
        return parse(fields)

    return await threads_of(request).parsing.run(work)
