"""Connections, and the answer to what comes over one and is no request."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError

from snapllm.protocol.anthropic_answers import error_object
from snapllm.protocol.error_codes import ApiError
from snapllm.server.log_lines import quoted
from snapllm.server.middleware import json_response

# The encodings of bodies that can be read wherever the server runs.
_DECODED = ("gzip", "deflate")
log = logging.getLogger("snapllm.server")


class Connection(web.RequestHandler):
    """A client's connection. What is no request is its fault: a line in the log, no traceback."""

    __slots__ = ()

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
        response.force_close()
        return response


def _explain(problem: HttpProcessingError) -> ApiError:
    # What follows the first line shows where in the request.
    code, reason = "invalid_request", problem.message.partition("\n")[0].rstrip(":")
    is_broken = any(name in problem.message for name in _DECODED)
    if isinstance(problem, ContentEncodingError) and not is_broken:
        code, reason = "unsupported_encoding", "its Content-Encoding is neither gzip nor deflate"
    return ApiError(code, f"the request cannot be read: {reason}")


class Site(web.BaseSite):
    """An address to listen on."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        super().__init__(runner)
        self._host = host
        self._port = port

    @property
    def name(self) -> str:
        """What is listened on, in words."""
        return f"{self._host} port {self._port}"

    async def bind(self) -> None:
        """Takes the address; until `start` clients are refused there.

        Raises:
            OSError: The address cannot be had.
        """
        server, loop = self._runner.server, asyncio.get_running_loop()
        assert server is not None
        options: dict[str, Any] = {"access_log": None}
        self._server = await loop.create_server(
            lambda: Connection(server, loop=loop, **options),
            self._host,
            self._port,
            backlog=self._backlog,
            start_serving=False,
        )

    async def start(self) -> None:
        """Begins to listen at the address that was taken."""
        assert self._server is not None, "bind first"
        await super().start()
        await self._server.start_serving()

    def close(self) -> None:
        """Gives the address back, also where nothing was started."""
        if self._server is not None:
            self._server.close()
