"""Connections: the answer to what comes over one and is no request, and clients that go silent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import secrets
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError

from snapllm.protocol.anthropic_answers import error_object
from snapllm.protocol.error_codes import ApiError
from snapllm.server.log_lines import quoted
from snapllm.server.middleware import NOT_ENCODED, UNKNOWN_ENCODING, json_response
from snapllm.server.request_facts import facts_of

_TWINS = {"127.0.0.1": "::1", "::": "0.0.0.0"}  # each beside its other
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LOOK_S = (0.005, 0.05, 0.25)
"""Pauses between looks whether a client is there that will send no more; the last repeats."""
_ASK_S = 10.0
"""How often it is sent something, that it be known."""
FIRST_REQUEST_S = 60.0
"""In which a client must have sent the head of its first request."""
_REST_S = 10.0
"""How long a client may go on with a body that is not read to its end."""
# The encodings of bodies that can be read wherever the server runs.
_DECODED = ("gzip", "deflate")
log = logging.getLogger("snapllm.server")


class Connection(web.RequestHandler):
    """A client's connection.

    What is no request is its fault: a line in the log, no traceback.

    A client that will send no more may wait for its answer, or may have left: both end what they
    send, and only something that is sent to it tells which. Until its answer begins it gets what
    HTTP has for that, a 100 (RFC 9110, section 15.2: there may be more than one).
    """

    __slots__ = ("_is_deaf", "_look", "_num_answered", "_silence", "client_ended")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.client_ended = asyncio.Event()
        """Set once the client will send no more and may have left: a stream is to write then."""
        self._look: asyncio.TimerHandle | None = None
        self._num_answered = 0
        self._is_deaf = False
        """Whether what still comes is thrown away."""
        self._silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As aiohttp has it, which waits for a first request for ever: silent clients would take
        all the connections that there can be."""
        super().connection_made(transport)
        self._silence = self._loop.call_later(FIRST_REQUEST_S, self._end_silence)

    def _end_silence(self) -> None:
        if self._request_count == 0 and self.transport is not None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """As aiohttp has it, which tells nobody that the rest of a body cannot be read: whoever
        reads it would wait for ever."""
        if self._is_deaf:
            return
        super().data_received(data)
        request = self._current_request
        if request is None or not self._messages or request.content.is_eof():
            return
        fault = getattr(self._messages[-1][0], "exc", None)
        if isinstance(fault, HttpProcessingError):
            error = web.RequestPayloadError(str(fault))
            error.__cause__ = fault
            request.content.set_exception(error)

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio has it
        """Whether the connection stays open: while a request is without its answer."""
        waits_for_request = self._waiter is not None and not self._waiter.done()
        if self._request_count == 0 or waits_for_request:
            return False
        if self._look is None:
            self.client_ended.set()
            # Later, so that a request that has just come has begun.
            self._look = self._loop.call_later(_LOOK_S[0], self._look_again, 1, -_ASK_S)
        return True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """As aiohttp has it, and counts; the rest of a compressed body is not decompressed."""
        is_rest_packed = "Content-Encoding" in request.headers and not request.content.is_eof()
        if is_rest_packed:
            resp.force_close()
        try:
            finished = await super().finish_response(request, resp, start_time)
        finally:
            self._num_answered += 1
        if is_rest_packed:
            await self._pass_over_rest(request)
        return finished

    async def _pass_over_rest(self, request: web.BaseRequest) -> None:
        """Lets the client end a body that nobody wants: closed at once, it might not see its
        answer. aiohttp would decompress all of it, which may be any length, and nobody else would
        have a turn meanwhile."""
        self._is_deaf = True
        request.content.feed_eof()  # so that aiohttp does not wait for it, too
        if self.transport is None:
            return
        self.transport.write_eof()
        self.transport.resume_reading()
        # Not wait_for: up to Python 3.11 that may miss that it is cancelled itself.
        ended = asyncio.ensure_future(self.client_ended.wait())
        try:
            await asyncio.wait([ended], timeout=_REST_S)
        finally:
            ended.cancel()

    def connection_lost(self, exc: BaseException | None) -> None:
        """As aiohttp has it; nobody is looked for any more."""
        self.client_ended.set()
        for timer in (self._look, self._silence):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def _look_again(self, times: int, asked_at: float) -> None:
        transport, request = self.transport, self._current_request
        if transport is None or transport.is_closing():
            return
        if not self._messages:
            if self._num_answered == self._request_count:
                transport.close()  # nobody waits for the rest of a body
                return
            self.close()  # after this answer
        if request is not None:
            # Half a request is none, and HTTP/1.0 knows no 100.
            waits = request.content.is_eof() and request.version >= HttpVersion11
            connection = transport.get_extra_info("socket")
            if not waits or connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                transport.abort()
                return
            now = self._loop.time()
            if now - asked_at >= _ASK_S and not facts_of(request).has_answer_begun:
                transport.write(_CONTINUE)
                asked_at = now
        delay_s = _LOOK_S[min(times, len(_LOOK_S) - 1)]
        self._look = self._loop.call_later(delay_s, self._look_again, times + 1, asked_at)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what cannot be read; all else as aiohttp has it."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        error = _explain(exc)
        request_id = f"req_{secrets.token_hex(12)}"
        log.info("%s id=%s", quoted(error.message), request_id)
        # Not even its path is known: Anthropic's shape has all that is in OpenAI's.
        response = json_response(msgspec.json.encode(error_object(error, request_id)), error.status)
        response.headers["x-request-id"] = response.headers["request-id"] = request_id
        response.headers["x-should-retry"] = "false"
        response.force_close()
        return response

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Logs what aiohttp could not handle, but for the rest of a body that nobody wanted to read
        and that cannot be: its request has its answer."""
        if not isinstance(options.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **options)


def _explain(problem: HttpProcessingError) -> ApiError:
    # What follows the first line shows where in the request.
    code, reason = "invalid_request", problem.message.partition("\n")[0].rstrip(":")
    is_broken = any(name in problem.message for name in _DECODED)
    if isinstance(problem, ContentEncodingError) and not is_broken:
        code, reason = "unsupported_encoding", UNKNOWN_ENCODING
    elif is_broken:
        reason = NOT_ENCODED
    return ApiError(code, f"the request cannot be read: {reason}")


class Site(web.BaseSite):
    """An address to listen on.

    Clients that are given ``localhost`` take IPv4's loopback address for it or IPv6's, and some try
    no other: whoever listens on the first listens on the second, too, where the machine has it and
    the port is free there. Who listens on all of IPv6's addresses does so on all of IPv4's.
    """

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        super().__init__(runner)
        self._host = host
        self._port = port
        self._twin: asyncio.Server | None = None
        """Of the other protocol's address."""

    @property
    def name(self) -> str:
        """What is listened on, in words."""
        return f"{self._host} port {self._port}"

    async def bind(self) -> None:
        """Takes the address; until `start` clients are refused there.

        Raises:
            OSError: The address cannot be had.
        """
        self._server = await self._take(self._host, self._port)
        if twin := _TWINS.get(self._host):
            port = self._server.sockets[0].getsockname()[1]
            with self._doing_without_twin():
                self._twin = await self._take(twin, port)

    async def _take(self, host: str, port: int) -> asyncio.Server:
        server, loop = self._runner.server, asyncio.get_running_loop()
        assert server is not None
        options: dict[str, Any] = {"access_log": None}
        return await loop.create_server(
            lambda: Connection(server, loop=loop, **options),
            host,
            port,
            backlog=self._backlog,
            start_serving=False,
        )

    async def start(self) -> None:
        """Begins to listen at the address that was taken."""
        assert self._server is not None, "bind first"
        await super().start()
        await self._server.start_serving()
        if self._twin is not None:
            with self._doing_without_twin():
                await self._twin.start_serving()

    @contextlib.contextmanager
    def _doing_without_twin(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._twin is not None:
                self._twin.close()
                self._twin = None
            if error.errno == errno.EADDRINUSE:
                log.warning(
                    "another server has %s: clients ask that one there, also some given localhost",
                    _TWINS[self._host],
                )

    async def stop(self) -> None:
        """Listens no more; what is connected stays so."""
        if self._twin is not None:
            self._twin.close()
        await super().stop()

    def close(self) -> None:
        """Gives the address back, also where nothing was started."""
        for server in self._servers():
            server.close()

    def _servers(self) -> list[asyncio.AbstractServer]:
        return [server for server in (self._server, self._twin) if server is not None]
