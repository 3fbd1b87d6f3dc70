"""Who may ask: API keys, and browsers of other origins or under other names."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Collection

from aiohttp import web

from snapllm.protocol.error_codes import ApiError
from snapllm.server.keys import OPTIONS
from snapllm.server.middleware import refuse
from snapllm.server.request_facts import facts_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_EXPOSED = "request-id, retry-after, x-request-id, x-should-retry, x-snapllm-cache"
_KEY_HEADERS = ("x-api-key", "anthropic-api-key", "api-key")
_OPEN_PATHS = {"/", "/health", "/api/hello"}
# What a page may send to any server without asking that server first (Fetch, "CORS-safelisted
# request-header"; a request without a type is one of them, too).
_UNASKED_TYPES = {"", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"}
_OWN_DOMAINS = (".localhost", ".internal")
"""No public name ends so (RFC 6761; ICANN reserved the other): containers ask under such ones."""
_PORT = re.compile(r":\d*$")
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,4096}")


def given_keys(request: web.Request) -> list[str]:
    """The API keys of a request, in all headers that clients use. Anthropic's send two, where one
    is given to them and the other is in their environment."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    bearer = [token.strip()] if scheme.lower() == "bearer" else []
    return bearer + [request.headers[name] for name in _KEY_HEADERS if name in request.headers]


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses requests without one of the keys, where there are keys.

    Prompts of different keys share nothing.
    """
    keys = request.app[OPTIONS].api_keys
    if not keys or request.path in _OPEN_PATHS or request.method == "OPTIONS":
        return await handler(request)
    given = [key.encode(errors="surrogateescape") for key in given_keys(request)]
    # All of them, so that the time says nothing about which one is nearly right.
    matches = [each for each in given for key in keys if hmac.compare_digest(each, key.encode())]
    if not matches:
        return refuse(request, ApiError("unauthorized", "a valid API key is required"))
    facts_of(request).cache_namespace = hashlib.sha256(matches[0]).hexdigest()[:16]
    return await handler(request)


@web.middleware
async def check_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses what comes to this machine alone under the name of another one.

    A page can have its own name lead to 127.0.0.1 (DNS rebinding), and be of the same origin then.
    A key, which it does not know, is enough against that.
    """
    options = request.app[OPTIONS]
    is_guarded = bool(options.api_keys) or not _is_local(request)
    host = request.headers.get("Host", "")
    if is_guarded or _is_own_name(host, options.cors_origins):
        return await handler(request)
    message = f"{_plain(host)} is no name of this server: allow it with --cors-origin or --api-key"
    return refuse(request, ApiError("host_not_allowed", message))


def _plain(header: str) -> str:
    """A header's value as it can be sent back: what is not UTF-8 in it was kept as surrogates."""
    return header.encode(errors="replace").decode()


def _is_local(request: web.Request) -> bool:
    """Whether it came by an address that only this machine can reach."""
    transport = request.transport
    address = transport.get_extra_info("sockname") if transport is not None else None
    return isinstance(address, tuple) and ipaddress.ip_address(address[0]).is_loopback


def _is_own_name(host: str, origins: Collection[str]) -> bool:
    """Whether the name is an address, of this network, or that of an allowed origin."""
    if "*" in origins or any(origin.partition("://")[2] == host for origin in origins):
        return True
    name = _PORT.sub("", host).strip("[]").rstrip(".").lower()
    # What other networks know has a dot.
    if "." not in name or name.endswith(_OWN_DOMAINS) or name == socket.gethostname().lower():
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@web.middleware
async def allow_origins(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers browsers of the allowed origins (CORS); off where there are none.

    A page of another origin could not read an answer, but what it sends would be done all the same:
    where the browser does not ask before, it is refused.
    """
    origins = request.app[OPTIONS].cors_origins
    if "Origin" not in request.headers:
        return await handler(request)
    origin = _plain(request.headers["Origin"])
    if not (origin in origins or "*" in origins):
        if _is_sent_unasked(request, origin):
            message = f"pages of {origin} may not ask: allow them with --cors-origin"
            return refuse(request, ApiError("origin_not_allowed", message))
        return await handler(request)
    facts_of(request).cors_origin = origin
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        # Clients send headers of their own (x-stainless-..., anthropic-...): all that is asked
        # for, where it is a list of names.
        asked = request.headers.get("Access-Control-Request-Headers", "")
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
                "Access-Control-Allow-Headers": asked if _HEADER_NAMES.fullmatch(asked) else "",
                "Access-Control-Max-Age": "600",
                "Vary": "Origin, Access-Control-Request-Headers",
            },
        )
    return await handler(request)


def _is_sent_unasked(request: web.Request, origin: str) -> bool:
    """Whether a page of another origin sent something that its browser did not ask about."""
    if request.method != "POST" or origin.partition("://")[2] == request.host:
        return False
    media_type = request.headers.get("Content-Type", "").partition(";")[0]
    return media_type.strip().lower() in _UNASKED_TYPES


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Signal handler: puts the request's id and its allowed origin on every response."""
    facts = facts_of(request)
    facts.has_answer_begun = True
    if facts.request_id:
        response.headers["x-request-id"] = response.headers["request-id"] = facts.request_id
    if facts.cache_header is not None:
        response.headers["x-snapllm-cache"] = facts.cache_header
    if facts.cors_origin is not None:
        response.headers["Access-Control-Allow-Origin"] = facts.cors_origin
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        response.headers.add("Vary", "Origin")
