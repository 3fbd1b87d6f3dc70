"""What is noted about a request while it is served."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from snapllm._runner import Answer
from snapllm.protocol.error_codes import ApiError


@dataclass(eq=False)
class RequestFacts:
    """One request's; event loop only."""

    request_id: str = ""
    cache_namespace: str = ""
    """Whose prompts may be reused: those of the same API key."""
    model_field: str = "model"
    """Where the body names its model."""
    cors_origin: str | None = None
    cache_header: str | None = None
    logged: dict[str, object] = field(default_factory=dict)
    """What the request's line says beside what its answers come to."""
    answers: list[Answer[Any]] = field(default_factory=list)
    num_expected: int = 1
    """How many there are once all of the request is submitted."""
    error: ApiError | None = None
    has_answer_begun: bool = False
    """Whether the answer's first bytes are on their way."""
    begun: web.StreamResponse | None = None
    """The stream of the answer, from when it is open."""
    is_sent: bool = False
    """Whether all of that stream is on its way: a client that leaves now has the answer."""
    has_client_left: bool = False
    is_drained: bool = True
    """Whether the server's end leaves it time; a load is given up at once."""


# aiohttp warns of keys that are strings from the version on that has others.
_KEY: Any = web.RequestKey("facts", RequestFacts) if hasattr(web, "RequestKey") else "facts"


def facts_of(request: web.BaseRequest) -> RequestFacts:
    """The request's facts, which begin empty."""
    if _KEY not in request:
        request[_KEY] = RequestFacts()
    facts: RequestFacts = request[_KEY]
    return facts
