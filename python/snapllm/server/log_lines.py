"""The access log: one line of ``name=value`` for each request."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from snapllm._runner import Answer
from snapllm.protocol.error_codes import ApiError
from snapllm.server.request_facts import RequestFacts, facts_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
access_log = logging.getLogger("snapllm.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
CLIENT_LEFT = 499
_MAX_CHARS = 500
"""Of a value in a line; clients choose some of them."""


def quoted(value: object) -> str:
    """A value as a line has it: in quotes where it would end the value or the line."""
    text = str(value)
    if len(text) > _MAX_CHARS:
        text = f"{text[:_MAX_CHARS]}..."
    is_plain = text.isprintable() and not any(mark in text for mark in ' "=\\')
    return text if text and is_plain else json.dumps(text)


def note_error(request: web.Request, error: ApiError) -> None:
    """Has the request's line say what went wrong."""
    facts_of(request).error = error


def note_started(request: web.Request, model_id: str, answers: Sequence[Answer[Any]]) -> None:
    """Has the request's line count these answers too, however far they get."""
    facts = facts_of(request)
    facts.logged = {"model": model_id}
    facts.answers += answers


def note_prompt(request: web.Request, model_id: str, num_tokens: int | None = None) -> None:
    """Has the request's line name its model and, once it is known, how long its prompt is: of what
    is computed without an answer."""
    counts = {} if num_tokens is None else {"prompt_tokens": num_tokens}
    facts_of(request).logged = {"model": model_id, **counts}


def _logged(facts: RequestFacts) -> dict[str, object]:
    logged, answers = dict(facts.logged), facts.answers
    if answers:
        logged |= {
            "prompt_tokens": sum(answer.num_prompt_tokens for answer in answers),
            "cached_tokens": sum(answer.num_cached_tokens for answer in answers),
            "generated_tokens": sum(answer.num_generated_tokens for answer in answers),
            "finish": ",".join(answer.finish_reason or "cancelled" for answer in answers),
        }
    if facts.error is not None:
        logged["error"] = facts.error.code
        if facts.error.param is not None:
            logged["param"] = facts.error.param
    return logged


@web.middleware
async def request_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gives the request an id, or keeps the client's, and logs one line at its end."""
    given = request.headers.get("x-request-id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
    facts = facts_of(request)
    facts.request_id = request_id
    start = time.perf_counter()
    status = CLIENT_LEFT
    try:
        response = await handler(request)
        if not facts.has_client_left:
            status = response.status
        return response
    finally:
        if status == CLIENT_LEFT and facts.error is not None:
            status = facts.error.status  # what cut the answer off was no client
        elif status == CLIENT_LEFT and facts.begun is not None and facts.is_sent:
            status = facts.begun.status
        line = {
            "method": request.method,
            "path": request.rel_url.raw_path,
            "status": status,
            "ms": f"{(time.perf_counter() - start) * 1000:.1f}",
            "id": request_id,
            **_logged(facts),
        }
        access_log.info(" ".join(f"{name}={quoted(value)}" for name, value in line.items()))
