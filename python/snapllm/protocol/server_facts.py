"""The native API: what the server says of itself, and of the requests that it answered."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class IndexAnswer(TypedDict):
    """The body of GET /."""

    name: str
    version: str
    description: str
    docs: str
    openapi: str
    endpoints: list[str]


class HealthAnswer(TypedDict):
    """The body of GET /health."""

    status: Literal["ok"]
    version: str
    models_loaded: list[str]
    models_loading: list[str]
    active_model: str | None
    uptime_s: float


class HelloAnswer(TypedDict):
    """The body of GET /api/hello."""

    message: Literal["hello"]


class CacheReport(TypedDict):
    """Where the tokens of an answer's prompt came from."""

    model: str
    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int
    hot_tokens: int
    warm_tokens: int
    cold_tokens: int
    restore_ms: float
    """How long it took to bring the reused ones into the sequence."""
    differs_at: int | None
    """Where the prompt stopped being what was cached; None: it did not, or nothing was."""
    cached_token: int | None
    """The token that was cached there."""


class AnswerCacheReport(CacheReport):
    """The same, with the token's text."""

    cached_text: str | None


class RequestCacheAnswer(TypedDict):
    """The body of GET /api/v1/requests/{request_id}/cache."""

    status: Literal["success"]
    request_id: str
    answers: list[AnswerCacheReport]
