"""Server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from aiohttp import web

KEEP_ALIVE_S = 10.0
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class EventStream:
    """An open stream of events to one client."""

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response
        self._is_silent = True

    async def send(self, events: Iterable[bytes]) -> None:
        """Writes events' data, all in one piece."""
        self._is_silent = False
        await self._response.write(b"".join(b"data: " + event + b"\n\n" for event in events))

    async def keep_alive(self) -> None:
        """Writes a comment whenever nothing else was written for a while.

        Proxies and clients give up on silent connections, and a long prompt takes a
        while until its first token.
        """
        while True:
            self._is_silent = True
            await asyncio.sleep(KEEP_ALIVE_S)
            if self._is_silent:
                await self._response.write(b": keep-alive\n\n")


@contextlib.asynccontextmanager
async def event_stream(request: web.Request) -> AsyncIterator[EventStream]:
    """Opens a stream and keeps it alive; the handler returns `stream_response`."""
    response = web.StreamResponse(headers=_HEADERS)
    response.headers["x-request-id"] = request["request_id"]
    await response.prepare(request)
    request["response"] = response
    stream = EventStream(response)
    keeper = asyncio.create_task(stream.keep_alive())
    try:
        yield stream
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await keeper
    await response.write_eof()


def stream_response(request: web.Request) -> web.StreamResponse:
    """The response that `event_stream` opened."""
    response: web.StreamResponse = request["response"]
    return response
