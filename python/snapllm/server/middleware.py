"""Around every request: its id, the access log, and errors in the API's shape."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import web

from snapllm.errors import SnapLLMError
from snapllm.outputs import ChatResult, Finish
from snapllm.protocol.anthropic_answers import error_object
from snapllm.protocol.error_codes import RETRY_AFTER_S, ApiError, api_error, encode_error
from snapllm.server.cache_reports import cache_header
from snapllm.server.keys import STATE

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
log = logging.getLogger("snapllm.server")
access_log = logging.getLogger("snapllm.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}


def json_response(body: bytes, status: int = 200) -> web.Response:
    """A JSON body that is encoded already."""
    return web.Response(body=body, status=status, content_type="application/json")


def _is_anthropic(request: web.Request) -> bool:
    return request.path.startswith("/v1/messages") or "anthropic-version" in request.headers


def refuse(request: web.Request, error: ApiError) -> web.Response:
    """An error as its HTTP response, in the shape of the request's protocol."""
    if _is_anthropic(request):
        body = msgspec.json.encode(error_object(error, request["request_id"]))
    else:
        body = encode_error(error)
    response = json_response(body, error.status)
    if error.status in (429, 503):
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def note_answers(
    request: web.Request, model_id: str, answers: Sequence[Finish | ChatResult]
) -> None:
    """Adds the model and token counts to the request's log line and its cache report."""
    request.app[STATE].cache_reports.note(request["request_id"], model_id, answers)
    request["cache_header"] = cache_header(answers)
    usages = [answer.usage for answer in answers]
    request["facts"] = {
        "model": model_id,
        "prompt_tokens": sum(usage.num_prompt_tokens for usage in usages),
        "cached_tokens": sum(usage.num_cached_tokens for usage in usages),
        "generated_tokens": sum(usage.num_generated_tokens for usage in usages),
        "finish": ",".join(answer.finish_reason for answer in answers),
    }


@web.middleware
async def request_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gives the request an id, or keeps the client's, and logs one line at its end."""
    given = request.headers.get("x-request-id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
    request["request_id"] = request_id
    start = time.perf_counter()
    status = 499  # the client left
    try:
        response = await handler(request)
        if "client_left" not in request:
            status = response.status
        return response
    finally:
        access_log.info(
            "method=%s path=%s status=%d ms=%.1f id=%s%s",
            request.method,
            request.rel_url.raw_path,  # encoded, so that it cannot end the line
            status,
            (time.perf_counter() - start) * 1000,
            request_id,
            "".join(f" {name}={value}" for name, value in request.get("facts", {}).items()),
        )


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns whatever a handler raises into the API's error shape."""
    if request.app[STATE].is_draining:
        return refuse(request, ApiError("closed", "the server is shutting down"))
    try:
        return await handler(request)
    except SnapLLMError as error:
        return refuse(request, api_error(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = _HTTP_CODES.get(error.status, "invalid_request")
        response = refuse(request, ApiError(code, _explain(request, error)))
        response.set_status(error.status)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except web.RequestPayloadError as error:
        # So that nobody waits for the rest of a body that cannot be read.
        request.content.feed_eof()
        return refuse(request, ApiError("invalid_request", f"the body cannot be read: {error}"))
    except ConnectionError:
        # The client left: nobody to answer.
        if "response" not in request:
            raise
        request["client_left"] = True
        begun: web.StreamResponse = request["response"]
        return begun
    except Exception:
        if "response" in request:
            raise  # the answer has begun: all that is left is to cut it off
        log.exception("request %s failed", request["request_id"])
        explained = ApiError("internal_error", "internal error; see the server's log")
        return refuse(request, explained)


def _explain(request: web.Request, error: web.HTTPException) -> str:
    if error.status == 404:
        return f"Unknown path: {request.path}"
    if error.status == 405:
        return f"Method {request.method} is not allowed for {request.path}"
    return error.text or error.reason
