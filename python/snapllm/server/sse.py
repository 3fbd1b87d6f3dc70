"""Server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from aiohttp import HttpVersion11, web

from snapllm.protocol.error_codes import ApiError, encode_error
from snapllm.server.connections import Connection
from snapllm.server.log_lines import note_error
from snapllm.server.request_facts import facts_of

KEEP_ALIVE_S = 10.0
KEEP_ALIVE_ENDED_S = 1.0
"""For a client that will send no more: it may have left."""
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"[DONE]"
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class EventStream:
    """An open stream of events to one client."""

    def __init__(
        self, request: web.Request, response: web.StreamResponse, keep_alive: bytes
    ) -> None:
        self._request, self._response = request, response
        self._keep_alive = keep_alive
        self._is_silent = True
        self._has_client_ended = False

    async def send(self, events: Iterable[bytes]) -> None:
        """Writes events that are data only, all in one piece."""
        await self.send_raw(b"".join(b"data: " + event + b"\n\n" for event in events))

    async def send_raw(self, data: bytes) -> None:
        """Writes events that are encoded already."""
        self._is_silent = False
        await self._response.write(data)

    async def fail(self, error: ApiError, event: bytes | None = None) -> None:
        """Writes what the answer failed with, and notes it for the request's log line.

        Args:
            error: What went wrong.
            event: The error's event, encoded; by default that of OpenAI's and the native API.
        """
        note_error(self._request, error)
        if event is None:
            await self.send([encode_error(error)])
        else:
            await self.send_raw(event)

    async def keep_alive(self) -> None:
        """Writes the keep-alive whenever nothing else was written for a while.

        Proxies and clients give up on silent connections, and a long prompt takes a
        while until its first token.
        """
        while True:
            self._is_silent = True
            await self._pause()
            if self._is_silent:
                await self._response.write(self._keep_alive)

    async def _pause(self) -> None:
        """Waits until it is time to write something: at once where the client may have left."""
        connection = self._request.protocol
        if not isinstance(connection, Connection):
            await asyncio.sleep(KEEP_ALIVE_S)
        elif self._has_client_ended:
            await asyncio.sleep(KEEP_ALIVE_ENDED_S)
        else:
            # Not wait_for: up to Python 3.11 that may miss that it is cancelled itself.
            ended = asyncio.ensure_future(connection.client_ended.wait())
            try:
                await asyncio.wait([ended], timeout=KEEP_ALIVE_S)
            finally:
                ended.cancel()
            self._has_client_ended = connection.client_ended.is_set()


@contextlib.asynccontextmanager
async def event_stream(
    request: web.Request, keep_alive: bytes = KEEP_ALIVE
) -> AsyncIterator[EventStream]:
    """Opens a stream and keeps it alive; the handler returns `stream_response`."""
    response = web.StreamResponse(headers=_HEADERS)
    if request.version < HttpVersion11:
        # Nothing else ends it there, and aiohttp goes by what the client asks for.
        response.force_close()
    facts_of(request).begun = response  # also for a client that leaves while it is being sent
    await response.prepare(request)
    stream = EventStream(request, response, keep_alive)
    keeper = asyncio.create_task(stream.keep_alive())
    try:
        yield stream
        facts_of(request).is_sent = True
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await keeper
    await response.write_eof()


def stream_response(request: web.Request) -> web.StreamResponse:
    """The response that `event_stream` opened."""
    response = facts_of(request).begun
    assert response is not None, "no stream was opened"
    return response
