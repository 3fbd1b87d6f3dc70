"""Around every request: errors in the API's shape, and what its answers reused."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

from snapllm.errors import SnapLLMError
from snapllm.protocol.anthropic_answers import error_object
from snapllm.protocol.error_codes import (
    RETRY_AFTER_S,
    ApiError,
    api_error,
    code_of_status,
    encode_error,
)
from snapllm.server.cache_reports import Ended, cache_header
from snapllm.server.context_files import MAX_IMPORT_BYTES
from snapllm.server.keys import OPTIONS, STATE
from snapllm.server.log_lines import note_error
from snapllm.server.request_facts import facts_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LARGE_BODIES = "/api/v1/contexts/import"
"""The endpoint whose bodies have a bound of their own."""
_KNOWN_ENCODINGS = ("gzip", "deflate", "br", "zstd")
"""What aiohttp reads, or refuses itself where the machine lacks what reads it."""
UNKNOWN_ENCODING = "its Content-Encoding is neither gzip nor deflate"
NOT_ENCODED = "it is not in the Content-Encoding that it is said to be in"
log = logging.getLogger("snapllm.server")


def json_response(body: bytes, status: int = 200) -> web.Response:
    """A JSON body that is encoded already."""
    return web.Response(body=body, status=status, content_type="application/json")


def _is_anthropic(request: web.Request) -> bool:
    path = request.path
    return path.startswith("/v1/messages") or (
        path.startswith("/v1/") and "anthropic-version" in request.headers
    )


def refuse(request: web.Request, error: ApiError) -> web.Response:
    """An error as its HTTP response, in the shape of the request's protocol."""
    note_error(request, error)
    if _is_anthropic(request):
        body = msgspec.json.encode(error_object(error, facts_of(request).request_id))
    else:
        body = encode_error(error)
    response = json_response(body, error.status)
    if error.status in (429, 503):
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, section 11.6.1: it must be said
    if error.status < 500 and error.status not in (408, 409, 429):
        # Claude Code tries again for minutes what is refused for its key.
        response.headers["x-should-retry"] = "false"
    return response


def note_answers(request: web.Request, model_id: str, answers: Sequence[Ended]) -> None:
    """Makes the request's cache report and header."""
    facts = facts_of(request)
    request.app[STATE].cache_reports.note(
        facts.cache_namespace, facts.request_id, model_id, answers
    )
    facts.cache_header = cache_header(answers)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns whatever a handler raises into the API's error shape."""
    state, facts = request.app[STATE], facts_of(request)
    if state.is_draining:
        return refuse(request, ApiError("closed", "the server is shutting down"))
    state.in_flight.add(facts)
    try:
        _check_size(request)
        _check_encoding(request)
        return await handler(request)
    except SnapLLMError as error:
        return refuse(request, api_error(error, _endpoint(request), facts.model_field))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = code_of_status(error.status)
        response = refuse(request, ApiError(code, _explain(request, error)))
        response.set_status(error.status)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except web.RequestPayloadError as error:
        # So that nobody waits for the rest of a body that cannot be read. Where it ends, and the
        # next request begins, is not known any more either.
        request.content.feed_eof()
        is_encoding = isinstance(error.__cause__, ContentEncodingError)
        reason = NOT_ENCODED if is_encoding else str(error)
        refusal = refuse(request, ApiError("invalid_request", f"the body cannot be read: {reason}"))
        refusal.force_close()
        return refusal
    except ConnectionError:
        # The client left: nobody to answer.
        if facts.begun is None and request.transport is not None:
            raise  # it was another connection
        facts.has_client_left = True
        return web.Response() if facts.begun is None else facts.begun
    except Exception:
        explained = ApiError("internal_error", "internal error; see the server's log")
        if facts.begun is not None:
            note_error(request, explained)
            raise  # the answer has begun: all that is left is to cut it off
        log.exception("request %s failed", facts.request_id)
        return refuse(request, explained)
    finally:
        state.in_flight.discard(facts)


def _check_size(request: web.Request) -> None:
    """Refuses a body that says that it is too large, before any of it is read."""
    is_import = _endpoint(request) == LARGE_BODIES
    limit = MAX_IMPORT_BYTES if is_import else request.app[OPTIONS].max_body_bytes
    num_bytes = request.content_length or 0
    if num_bytes > limit:
        raise web.HTTPRequestEntityTooLarge(limit, num_bytes)


def _check_encoding(request: web.Request) -> None:
    """Refuses a body in an encoding that aiohttp does not know: it leaves that as it is."""
    encoding = request.headers.get("Content-Encoding", "").lower()
    if request.body_exists and encoding not in ("", "identity", *_KNOWN_ENCODINGS):
        raise web.HTTPUnsupportedMediaType(text=f"the body cannot be read: {UNKNOWN_ENCODING}")


def _endpoint(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical


def _explain(request: web.Request, error: web.HTTPException) -> str:
    if error.status == 404:
        meant = _path_meant(request)
        hint = f"; there is {meant}: see the base URL that the client is given" if meant else ""
        return f"Unknown path: {request.path}{hint}"
    if error.status == 405:
        return f"Method {request.method} is not allowed for {request.path}"
    return error.text or error.reason


def _path_meant(request: web.Request) -> str:
    """The endpoint that a client asks for with a slash too many, or under a base URL that has no
    `/v1`, as Anthropic's have it, or has it twice or where none belongs; "" = there is none."""
    parts = [part for part in request.path.split("/") if part]
    as_it_is = "/" + "/".join(parts)
    while parts[:1] == ["v1"]:
        del parts[0]
    known = {resource.canonical for resource in request.app.router.resources()}
    meant = [as_it_is, *("/".join([base, *parts]) for base in ("/v1", "") if parts)]
    return next((path for path in meant if path in known), "")
