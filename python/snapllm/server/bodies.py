"""Reading requests' bodies: large ones beside the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from aiohttp import web

from snapllm.server.keys import threads_of

_T = TypeVar("_T")

QUICK_BYTES = 1 << 17
"""A thread would take longer to wake than reading so much takes."""
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
